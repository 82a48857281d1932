"""Two machines on one golden image: no operation ever writes to it, and the objects that wait say why."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from lab.hosts.host import Host
from lab.machines.disk import Disk
from lab.machines.machine import Machine
from lab.storage.image import ImageSource, run_qemu_tool
from tests.e2e.matrix import SIZE, need
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def digest(stage: Stage, golden: ImageSource) -> str:
    """SHA-256 of the image's own bytes, tables included, not of what the guest sees."""
    match golden.protocol:
        case "file":
            return hashlib.sha256(Path(golden.name).read_bytes()).hexdigest()
        case "gluster":
            volume = stage.lab.gluster.volume()
            return hashlib.sha256((volume.brick / golden.name.partition("/")[2]).read_bytes()).hexdigest()
    copy = stage.scratch / "golden.copy"
    run_qemu_tool("qemu-img", "convert", "-U", *golden.tool_arguments("raw"), "-O", "raw", str(copy))
    return hashlib.sha256(copy.read_bytes()).hexdigest()


def never_written(stage: Stage, machine: Machine, on: Host, where: str, **spec: Any) -> None:
    """A machine whose disk is the golden image, and another one that reads through it: what would be merged
    into it waits, and goes on when the other one is gone."""
    points, shop, name = stage.points(machine), stage.shop, machine.name
    golden = machine.chain()[0].source
    points.take(f"{name}-1", **spec)  # the golden image is frozen from here on
    before = digest(stage, golden)
    reader = stage.machine(Disk(None, size=SIZE, backing=(golden, "qcow2")), name=f"{name}-reader", host=on)
    assert [layer.source for layer in reader.chain()][1:] == [golden]
    points.take(f"{name}-2", **spec)
    points.take(f"{name}-3", **spec)
    points.delete(f"{name}-2")  # between layers of the machine's own: nobody else reads them
    shop.begin_delete(f"{name}-1")
    message = shop.waits_for(f"{name}-1", "ImageProtected")
    assert reader.name not in message, "whose it is is for administrators"
    shop.wait_detail(f"disk vda of {reader.name}{where}")
    machine.wait_writing()
    points.verify()
    assert digest(stage, golden) == before
    own = Path(reader.chain()[0].source.name)
    reader.remove()
    own.unlink()  # its header names the golden image, and that is seen too where libvirt can list both
    points.kept.pop(f"{name}-1")
    shop.gone(f"{name}-1", timeout=90)
    points.verify()
    assert digest(stage, golden) != before, "nobody reads it any more: it has taken up the layer above it"


def test_a_file_on_one_hypervisor(stage: Stage) -> None:
    machine = stage.machine(Disk.file(size=SIZE), name="golden-file")
    never_written(stage, machine, stage.host, "")


@pytest.mark.parametrize("kind", ["gluster", "nbd"])
def test_an_image_on_the_network_over_two_hypervisors(stage: Stage, other_host: Host, kind: str) -> None:
    need(stage, kind)
    name = f"golden-{kind}"
    machine = stage.machine(stage.lab.disk(kind, name, size=SIZE), name=name)
    beside = {} if kind == "gluster" else {"overlay": {"directory": str(stage.host.images)}}
    never_written(stage, machine, other_host, " on Hypervisor host-b", **beside)
