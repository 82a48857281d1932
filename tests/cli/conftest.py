"""A control plane for these tests alone: a controller of other tests would write the status anew."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control.plane import ControlPlane
from lab.install import install
from lab.lab import Lab

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same wherever the tests run. Rich looks at these variables; and in what a shell starts in the
    background SIGINT is ignored, which its children would inherit."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
