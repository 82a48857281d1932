"""Images made beforehand, looked into where they will be used: on each kind of storage, good and bad."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import libvirt_qemu
import pytest

from controller.chain.access import model_of
from controller.chain.parse import parse_domain
from controller.chain.prepared import Examined, fault
from controller.hypervisor import errors
from controller.hypervisor.driver import Driver
from lab import Lab
from lab.errors import LabError
from lab.machines.disk import MEBIBYTE
from lab.machines.machine import Machine
from lab.pytest_plugin import MachineFactory
from lab.storage.image import ImageSource, run_qemu_tool
from tests.hypervisor.servers import need, source_of

pytestmark = pytest.mark.real

SIZE = 8 * MEBIBYTE
ROOM = SIZE + 4 * MEBIBYTE
KINDS = ["file", "gluster", "nbd", "nbd-tls", "nbd-unix", "rbd", "iscsi", "iscsi-chap", "block"]


def encrypted(*arguments: str) -> None:
    """Make an encrypted image. qemu-img measures how fast it can hash first, and gives up when the kernel
    says that it has used no time yet ("Unable to get accurate CPU usage": one in six here)."""
    for tries_left in reversed(range(20)):
        try:
            run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", *arguments)
        except LabError as error:
            if not tries_left or "CPU usage" not in str(error):
                raise
        else:
            return


async def examined(driver: Driver, machine: Machine, place: ImageSource) -> tuple[Examined, str | None]:
    """What is found there, and what is wrong with it for vda of the machine."""
    definition = parse_domain(machine.domain.XMLDesc(0))
    disk = definition.disk("vda")
    assert disk is not None
    assert disk.active is not None
    source = source_of(place)
    known = model_of(source, [layer.source for layer in disk.layers])
    way_in = next((layer.index for layer in disk.layers if layer.source == known), None)
    found = await driver.examine(definition.uuid, source, way_in=way_in)
    return found, fault(found, source, disk.active, SIZE)


def nodes(machine: Machine) -> set[str]:
    request = json.dumps({"execute": "query-named-block-nodes", "arguments": {"flat": True}})
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(machine.domain, request, 0))
    return {node["node-name"] for node in answer["return"]}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_prepared_overlay(
    driver: Driver, lab: Lab, machines: MachineFactory, tmp_path: Path, kind: str
) -> None:
    need(lab, kind)
    name = f"examine-{kind}"
    disk = lab.disk(kind, name, size=SIZE)
    machine = await asyncio.to_thread(machines, disk)
    base = machine.chain()[0].source
    place = ImageSource.file(tmp_path / "o") if kind == "file" else lab.place(kind, f"{name}-o", room=ROOM)
    before = nodes(machine)
    if kind == "file":
        with pytest.raises(errors.NotExaminable, match="there is no"):
            await examined(driver, machine, place)
        place.create("raw", SIZE)
    elif kind in {"gluster", "rbd"}:
        with pytest.raises(errors.NotExaminable):
            await examined(driver, machine, place)
    if kind not in {"gluster", "rbd"}:
        with pytest.raises(errors.NotExaminable, match="qcow2"):
            await examined(driver, machine, place)
    place.create("qcow2", SIZE, (base, "qcow2"))
    found, wrong = await examined(driver, machine, place)
    assert (found.capacity, found.backing_format, found.empty, found.flaws) == (SIZE, "qcow2", True, ())
    assert wrong is None, found
    assert nodes(machine) == before
    machine.wait_writing()


async def test_a_directory_that_is_not_there(
    driver: Driver, machines: MachineFactory, tmp_path: Path
) -> None:
    machine = await asyncio.to_thread(machines, "file")
    with pytest.raises(errors.NotExaminable, match="cannot be read"):
        await examined(driver, machine, ImageSource.file(tmp_path / "missing" / "image"))


@pytest.mark.parametrize("kind", ["file", "nbd"])
async def test_what_is_wrong_with_others(
    driver: Driver, lab: Lab, machines: MachineFactory, tmp_path: Path, kind: str
) -> None:
    disk = lab.disk(kind, f"wrong-{kind}", size=SIZE)
    machine = await asyncio.to_thread(machines, disk)
    base = machine.chain()[0].source
    before = nodes(machine)

    def place(number: int) -> ImageSource:
        if kind == "file":
            return ImageSource.file(tmp_path / str(number))
        return lab.place(kind, f"wrong-{number}", room=ROOM)

    small, alien, full, luks, elsewhere, old = (place(number) for number in range(6))
    content = tmp_path / "content"
    content.write_bytes(b"x" * 65536)
    small.create("qcow2", SIZE - MEBIBYTE, (base, "qcow2"))
    alien.create("qcow2", SIZE, (small, "qcow2"))
    full.create("qcow2", SIZE)
    full.write("qcow2", MEBIBYTE, content)
    old.create("qcow2", SIZE)
    run_qemu_tool("qemu-img", "snapshot", "-c", "inside", old.uri)
    for image in (full, old):  # only now: qemu-img could not open what the machine has open
        run_qemu_tool("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", base.uri, "-F", "qcow2", image.uri)
    options = "data_file=" + str(tmp_path / "data")
    below = ("-u", "-b", base.uri, "-F", "qcow2")
    run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", *below, "-o", options, elsewhere.uri, str(SIZE))
    secret = ("--object", "secret,id=s,data=pw", "-o", "encrypt.format=luks,encrypt.key-secret=s")
    encrypted(*secret, luks.uri, str(SIZE))
    for image, words in (
        (small, "virtual size"),
        (alien, "its header names"),
        (full, "holds data already"),
        (elsewhere, "in another file"),
        (luks, "encrypt"),
        (old, "internal snapshots"),
    ):
        try:
            _, wrong = await examined(driver, machine, image)
        except errors.NotExaminable as error:
            wrong = error.message
        assert wrong is not None, words
        assert words in wrong
        assert nodes(machine) == before
    machine.wait_writing()
