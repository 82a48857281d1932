"""The lab's storage servers in the controller's words."""

from __future__ import annotations

import pytest

from controller.chain.source import Source
from lab import Lab
from lab.storage.image import ImageSource


def need(lab: Lab, kind: str) -> None:
    """Skip the test where this machine cannot have such disks."""
    reason = lab.why_not(kind)
    if reason is not None:
        pytest.skip(f"{kind}: {reason}")


def source_of(image: ImageSource) -> Source:
    """An image of the lab with all that its server asks for."""
    return Source.from_element(image.disk_type, image.to_xml())
