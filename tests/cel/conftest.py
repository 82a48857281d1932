"""A control plane for these tests alone: the objects that they leave behind would be worked on elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab.control.plane import ControlPlane
from lab.install import install
from lab.lab import Lab


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: sudo -E env PATH=$PATH make test")
    install()
    with Lab() as lab:
        yield lab.control_plane()
