"""Fixtures: one lab per test session, started as far as the tests of the session ask for it.

Register with `pytest_plugins = ["lab.pytest_plugin"]` in tests/conftest.py. Tests that use them are marked
`real` (hypervisors, storage) or `cluster` (control plane).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Protocol

import pytest

from lab.control.plane import ControlPlane
from lab.errors import LabError
from lab.hosts.host import Host
from lab.install import install
from lab.lab import Lab
from lab.machines.disk import Disk
from lab.machines.machine import Machine
from lab.machines.writer import WriterOptions
from lab.reader import Reader
from lab.storage.gluster import GlusterServer, GlusterVolume
from lab.storage.nbd import NbdServers

_numbers = itertools.count(1)


class MachineFactory(Protocol):
    """Makes machines with names of their own; they are removed after the test."""

    def __call__(
        self,
        *disks: Disk | str,
        name: str | None = None,
        host: Host | None = None,
        writer: WriterOptions | None = None,
        start: bool = True,
    ) -> Machine:
        """`disks`: as given, or one of DISK_KINDS for a fresh one of this kind; none: one file disk."""


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The session's lab, empty at first. Skipped without root; ends with the session, however it ends."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: sudo -E env PATH=$PATH make test")
    install()
    with Lab() as running:
        yield running


@pytest.fixture(scope="session")
def control_plane(lab: Lab) -> ControlPlane:
    """etcd, kube-apiserver, kubectl."""
    return lab.control_plane()


@pytest.fixture(scope="session")
def host(lab: Lab) -> Host:
    """The libvirt host `a`."""
    return lab.host("a")


@pytest.fixture(scope="session")
def trixie(lab: Lab) -> Host:
    """A host with Debian 13's libvirt and QEMU. Skipped, with the reason, where that cannot be made."""
    try:
        return lab.host("trixie", release="trixie")
    except LabError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def gluster(lab: Lab) -> GlusterServer:
    """The gluster server."""
    return lab.gluster


@pytest.fixture(scope="session")
def gluster_volume(gluster: GlusterServer) -> GlusterVolume:
    """The volume gv0."""
    return gluster.volume()


@pytest.fixture(scope="session")
def nbd(lab: Lab) -> NbdServers:
    """NBD exports."""
    return lab.nbd


@pytest.fixture(scope="session")
def reader(lab: Lab) -> Reader:
    """Captures and compares points."""
    return lab.reader


def _factory(lab: Lab, made: list[Machine]) -> MachineFactory:
    def make(
        *disks: Disk | str,
        name: str | None = None,
        host: Host | None = None,
        writer: WriterOptions | None = None,
        start: bool = True,
    ) -> Machine:
        unique = name or f"m-{next(_numbers)}"
        wanted = [
            lab.disk(disk, f"{unique}-{at}") if isinstance(disk, str) else disk
            for at, disk in enumerate(disks or ("file",))
        ]
        machine = (host or lab.host("a")).machine(unique, wanted, writer=writer, start=start)
        made.append(machine)
        return machine

    return make


def _remove(made: list[Machine]) -> None:
    """Remove machines, on hosts that a test may have left stopped or paused."""
    for host in {machine.host.name: machine.host for machine in made}.values():
        if host.running:
            host.resume()
        else:
            host.start()
    for machine in made:
        machine.remove()


@pytest.fixture
def machines(lab: Lab) -> Iterator[MachineFactory]:
    """Makes machines for one test."""
    made: list[Machine] = []
    yield _factory(lab, made)
    _remove(made)


@pytest.fixture(scope="module")
def module_machines(lab: Lab) -> Iterator[MachineFactory]:
    """Makes machines for the tests of one module."""
    made: list[Machine] = []
    yield _factory(lab, made)
    _remove(made)
