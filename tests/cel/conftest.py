"""A control plane for these tests alone."""

from collections.abc import Iterator

import pytest

from lab.control.plane import ControlPlane
from lab.lab import Lab


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with Lab() as lab:
        yield lab.control_plane()
