"""B17: qcow2 on a device of fixed size: what libvirt tells of it, what its own tables tell, and what happens
when a commit runs out of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.chain.cost import Choice, Range
from controller.chain.desired import Policy
from controller.chain.journal import DiskJournal, Journal, OperationKind
from controller.chain.merge_guards import MergeCase, device_guard
from controller.chain.room import needed
from controller.chain.source import Source
from controller.hypervisor.driver import Driver, JobStatus
from controller.hypervisor.observe import observe, with_usage
from lab import Disk, Host, Lab
from lab.machines.disk import MEBIBYTE
from lab.machines.writer import WriterOptions
from lab.pytest_plugin import MachineFactory
from lab.storage.image import ImageSource, run_qemu_tool
from tests.hypervisor.real.subject import Events, Subject
from tests.hypervisor.servers import need

pytestmark = pytest.mark.real

VIRTUAL = 16 * MEBIBYTE


@pytest.fixture
def base(lab: Lab, host: Host, room: int, tmp_path: Path) -> Iterator[Disk]:
    """qcow2 on a device of ``room`` bytes, which a storage pool of an administrator has, as one of a volume
    group has its volumes: here it is a directory with a link to the device."""
    need(lab, "block")
    directory = tmp_path / "volumes"
    directory.mkdir()
    link = directory / "base"
    link.symlink_to(lab.block.device(f"room-{room}", room).source.name)
    pool = host.connection().storagePoolCreateXML(
        f"<pool type='dir'><name>volumes-{room}</name><target><path>{directory}</path></target></pool>"
    )
    yield Disk(ImageSource("block", str(link)), "qcow2", VIRTUAL)
    pool.destroy()


@pytest.fixture
async def subject(
    base: Disk, driver: Driver, events: Events, machines: MachineFactory, tmp_path: Path
) -> Subject:
    """A machine on ``base``; above it, in files, layers ``o1`` with 8 MiB of data and ``o2``. The guest is
    paused."""
    machine = await asyncio.to_thread(machines, base, writer=WriterOptions(window_sectors=1024))
    machine.wait_writing()
    machine.domain.suspend()
    subject = Subject(driver, machine, events)
    for name in ("o1", "o2"):
        xml = subject.snapshot_xml(Source.file(str(tmp_path / name)))
        await driver.create_snapshot(machine.uuid, xml)
        if name == "o1":
            subject.fill(8)
    return subject


async def seen(subject: Subject) -> MergeCase:
    """The merge of ``o1`` into the base, with all that is known of it."""
    found = await observe(subject.driver, subject.uuid, identities=())
    base = found.disks["vda"].chain
    assert base is not None
    cared_for = Journal("c", (DiskJournal("vda", images=frozenset({base.keys[0]})),))
    found = await with_usage(subject.driver, replace(found, journal=cared_for), merging=True)
    facts = found.disks["vda"]
    assert facts.chain is not None
    choice = Choice(Range(1, 2), 2, 0, (OperationKind.COMMIT,))
    return MergeCase(found, facts, facts.chain, choice, Policy())


@pytest.mark.parametrize("room", [6 * MEBIBYTE])
async def test_a_device_that_is_too_small_is_known_beforehand(subject: Subject, room: int) -> None:
    case = await seen(subject)
    base = case.chain.layers[2]
    assert case.facts.sizes[base.key].physical == room
    inside = case.observation.inside[base.key]
    checked = json.loads(run_qemu_tool("qemu-img", "check", "-U", "--output=json", base.source.path))
    assert inside.used is not None
    assert 0 < inside.used <= checked["image-end-offset"] <= room
    blocked = device_guard(case)
    assert blocked is not None
    assert str(room) in blocked.message
    before = await subject.keys()
    subject.events.seen.clear()
    await subject.commit(2, 1)
    await subject.events.job(JobStatus.FAILED)
    assert await subject.keys() == before, "nothing is lost but the point that was to go"


@pytest.mark.parametrize("room", [15 * MEBIBYTE])
async def test_what_a_commit_takes_was_foreseen(subject: Subject) -> None:
    case = await seen(subject)
    assert device_guard(case) is None
    base, upper = case.chain.layers[2], case.chain.layers[1]
    inside = case.observation.inside[base.key]
    assert inside.used is not None
    held = case.facts.sizes[upper.key].allocation
    bound = needed(inside.used, VIRTUAL, inside.cluster, [(held, inside.cluster)])
    await subject.commit(2, 1)
    await subject.events.job(JobStatus.COMPLETED)
    after = (await subject.driver.inside([base.source]))[base.key]
    assert after.used is not None
    assert 8 * MEBIBYTE <= after.used <= bound
