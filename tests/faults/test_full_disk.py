"""A merge that fills the storage ends in a condition, spoils nothing that is kept, and heals."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.controller import hypervisor
from lab.hosts.host import Host
from lab.machines.machine import Machine
from tests.e2e.points import Points
from tests.e2e.stage import AT_ONCE, QUICK, Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 8 MiB. Mounted before the host of the test is made, whose mounts are its own."""
    directory = tmp_path_factory.mktemp("small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@pytest.fixture
def small_host(stage: Stage, small_disk: Path) -> Iterator[Host]:
    """A host that sees the small disk."""
    host = stage.lab.host("small")
    stage.shop.apply(hypervisor("host-small", host.uri))
    stage.shop.kubectl("wait", "--for=condition=Ready", "hypervisor/host-small", "--timeout=30s")
    yield host
    stage.shop.kubectl("delete", "hypervisor/host-small")


def fill(directory: Path) -> Path:
    """Take all space that is left there."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


def with_points(stage: Stage, host: Host, small_disk: Path, *, keeps: int) -> tuple[Machine, Points]:
    """A machine whose lowest overlay is on the small disk, of which so many bytes are to remain free."""
    stage.shop.apply(other_class("careful", minFreeBytes=keeps, merge=AT_ONCE))
    machine = stage.machine(host=host, writer=QUICK)
    points, elsewhere = stage.points(machine), {"directory": str(stage.scratch)}
    points.take("base", overlay={"directory": str(small_disk)}, volumeSnapshotClassName="careful")
    points.take("unwanted", overlay=elsewhere, volumeSnapshotClassName="careful")
    points.take("above", rounds=1024, overlay=elsewhere, volumeSnapshotClassName="careful")
    return machine, points


def test_a_commit_that_would_leave_too_little_free_is_not_begun(
    stage: Stage, small_host: Host, small_disk: Path
) -> None:
    machine, points = with_points(stage, small_host, small_disk, keeps=2 << 20)
    shop, filler = stage.shop, fill(small_disk)
    del points.kept["unwanted"]
    shop.begin_delete("unwanted")
    message = shop.waits_for("unwanted", "InsufficientSpace")
    assert str(small_disk) in message
    assert "minFreeBytes" in message
    assert len(machine.chain()) == 4
    for name, layer in points.holders().items():
        assert stage.lab.reader.verify(points.kept[name], layer.source).identical, name
    filler.unlink()
    shop.gone("unwanted", timeout=90)
    points.verify()


def test_a_commit_into_a_full_disk_waits_for_space(stage: Stage, small_host: Host, small_disk: Path) -> None:
    machine, points = with_points(stage, small_host, small_disk, keeps=0)
    shop, filler = stage.shop, fill(small_disk)
    del points.kept["unwanted"]
    shop.begin_delete("unwanted")
    message = shop.waits_for("unwanted", "Failed")
    assert "storage is full" in message
    assert len(machine.chain()) == 4
    for name, layer in points.holders().items():
        assert stage.lab.reader.verify(points.kept[name], layer.source).identical, name
    filler.unlink()
    shop.gone("unwanted", timeout=60)
    points.verify()
