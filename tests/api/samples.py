"""The samples as users write them."""

from pathlib import Path
from typing import Any

import yaml

DIRECTORY = Path(__file__).parents[2] / "manifests" / "samples"
FILES = tuple(sorted(path.name for path in DIRECTORY.glob("*.yaml")))


def sample(name: str) -> dict[str, Any]:
    """The object in the sample of this file name."""
    loaded: dict[str, Any] = yaml.safe_load((DIRECTORY / name).read_text(encoding="utf-8"))
    return loaded
