"""What the lab's own tests share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty directory for a lab. pytest's own may be too deep: the path of a unix socket has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="lab-") as name:
        yield Path(name)
