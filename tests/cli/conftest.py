"""A control plane for these tests alone: a controller of other tests would write the status anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control.plane import ControlPlane
from lab.install import install
from lab.lab import Lab

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kubectl, with our CRDs and the namespace shop."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: sudo -E env PATH=$PATH make test")
    install()
    with Lab() as lab:
        plane = lab.control_plane()
        plane.kubectl("apply", "--server-side", "-f", str(CRDS))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        plane.kubectl("create", "namespace", "shop")
        yield plane
