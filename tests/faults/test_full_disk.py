"""A merge that fills the storage ends in a condition, spoils nothing that is kept, and heals."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.controller import hypervisor
from lab.hosts.host import Host
from tests.e2e.stage import QUICK, Stage

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


def test_a_commit_into_a_full_disk_waits_for_space(stage: Stage, small_host: Host, small_disk: Path) -> None:
    machine = stage.machine(host=small_host, writer=QUICK)
    points, shop = stage.points(machine), stage.shop
    elsewhere = {"directory": str(stage.scratch)}
    points.take("base", overlay={"directory": str(small_disk)})
    points.take("unwanted", overlay=elsewhere)
    points.take("above", rounds=1024, overlay=elsewhere)
    filler = fill(small_disk)
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
