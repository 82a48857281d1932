"""What libvirt keeps of a machine besides its chain, and how much is free where its images lie."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from controller.chain.blocked import Why
from controller.chain.cost import Choice, Range
from controller.chain.desired import Policy
from controller.chain.journal import DiskJournal, Journal, OperationKind
from controller.chain.marks import Mark, MarkKind, parse_mark
from controller.chain.merge_guards import MergeCase, bitmap_guard, mark_guard
from controller.chain.source import Host as SourceHost
from controller.chain.source import Source
from controller.hypervisor import places, storage
from controller.hypervisor.driver import Driver
from controller.hypervisor.observe import observe, with_usage
from lab import Host as LabHost
from lab import Lab
from lab.pytest_plugin import MachineFactory
from tests.hypervisor.real.subject import Events, Subject

pytestmark = pytest.mark.real


async def marks(subject: Subject) -> list[Mark]:
    images = [layer.source for layer in await subject.layers()]
    found = await subject.driver.surroundings(subject.uuid, images)
    return [parse_mark(xml) for xml in found.marks]


async def stopped_by(subject: Subject, span: Range) -> str:
    """What is against a commit of these layers, in words; empty when nothing is."""
    observation = await observe(subject.driver, subject.uuid, identities=())
    cared_for = DiskJournal("vda", images=frozenset({(await subject.keys())[0]}))
    observation = replace(observation, journal=Journal("c", (cared_for,)))
    observation = await with_usage(subject.driver, observation, merging=True)
    facts = observation.disks["vda"]
    assert facts.chain is not None
    choice = Choice(span, span.bottom, 0, (OperationKind.COMMIT,))
    case = MergeCase(observation, facts, facts.chain, choice, Policy())
    found = mark_guard(case) or bitmap_guard(case)
    assert found is None or found.why is Why.UNSUPPORTED_TOPOLOGY
    return "" if found is None else found.message


BY_HAND = """<domainsnapshot><name>by-hand</name><disks><disk name='vda' snapshot='external'/>
<disk name='vdb' snapshot='no'/></disks></domainsnapshot>"""


async def test_nothing_is_kept_of_points_of_varve(subject: Subject) -> None:
    await subject.take()
    assert await marks(subject) == []


async def test_an_external_snapshot_of_libvirts_keeps_its_images_from_being_merged(subject: Subject) -> None:
    await subject.take()
    (frozen, *_) = await subject.layers()
    subject.machine.domain.snapshotCreateXML(BY_HAND, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
    overlay = (await subject.layers())[0]
    await subject.take()
    (mark,) = await marks(subject)
    assert (mark.kind, mark.name, set(mark.images)) == (MarkKind.SNAPSHOT, "by-hand", {"vda"})
    assert mark.images["vda"] == {frozen.source.footprint, overlay.source.footprint}
    for span in (Range(0, 1), Range(1, 2), Range(2, 3), Range(0, 3)):
        assert "snapshot by-hand" in await stopped_by(subject, span)
    await subject.take()
    assert not await stopped_by(subject, Range(0, 1))
    subject.machine.domain.snapshotLookupByName("by-hand").delete(
        libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY
    )
    assert not await stopped_by(subject, Range(0, 4))


async def test_an_internal_snapshot_keeps_its_image_from_being_merged(subject: Subject) -> None:
    await subject.take()
    (inside, *_) = await subject.layers()
    subject.machine.domain.snapshotCreateXML("<domainsnapshot><name>inside</name></domainsnapshot>", 0)
    await subject.take()
    (mark,) = await marks(subject)
    assert mark.kind is MarkKind.INTERNAL
    assert set(mark.images) == {"vda", "vdb"}
    assert mark.images["vda"] == {inside.source.footprint}
    for span in (Range(0, 1), Range(1, 2)):
        assert "internal snapshot inside" in await stopped_by(subject, span)
    await subject.take()
    assert not await stopped_by(subject, Range(0, 1))


async def test_a_checkpoint_stops_no_merge_into_what_holds_its_bitmap(subject: Subject) -> None:
    """B5: libvirt takes the bitmaps along; see test_checkpoints.py."""
    await subject.take()
    (active, *_) = await subject.layers()
    subject.machine.domain.checkpointCreateXML("<domaincheckpoint><name>full</name></domaincheckpoint>", 0)
    (mark,) = await marks(subject)
    assert (mark.kind, mark.name) == (MarkKind.CHECKPOINT, "full")
    assert mark.images["vda"] == {active.source.footprint}
    await subject.take()
    for span in (Range(0, 1), Range(1, 2), Range(0, 2)):
        assert not await stopped_by(subject, span)


async def test_how_much_is_free(subject: Subject, tmp_path: Path) -> None:
    (active, *_) = await subject.layers()
    nowhere = Source.file(str(tmp_path / "missing" / "image"))
    export = Source.network("nbd", "export", [SourceHost("127.0.0.1", "1")])
    found = await subject.driver.surroundings(subject.uuid, [active.source, nowhere, export])
    assert set(found.free) == {active.source.home}, "what cannot be told was made up"
    there = os.statvfs(Path(active.source.path).parent)
    # libvirt counts what the file system keeps for root as free: f_bfree, not f_bavail.
    assert abs(found.free[active.source.home] - there.f_bfree * there.f_frsize) < 1 << 30


async def test_b16_a_pool_that_is_not_active_hides_nothing(subject: Subject, host: LabHost) -> None:
    """B16: libvirt refuses another one on its place, unless that is spelled in another way."""
    (active, *_) = await subject.layers()
    place = places.place_of(active.source)
    assert place is not None
    pool = host.connection().storagePoolDefineXML(place.pool_xml("asleep"))
    try:
        found = await subject.driver.surroundings(subject.uuid, [active.source])
        assert not pool.isActive()
    finally:
        pool.undefine()
    assert found.free[active.source.home] > 0


async def test_a_ceph_that_does_not_know_how_much_is_free(subject: Subject, lab: Lab, host: LabHost) -> None:
    """The lab's has no mgr; libvirt shows 0 of 0 bytes then."""
    image = Source.from_element("network", lab.rbd.source("image").to_xml())
    place = places.place_of(image)
    assert place is not None
    connection = libvirt.open(host.uri)
    try:
        with storage.opened(connection, place) as pool:
            assert pool.info()[1:] == [0, 0, 0]
    finally:
        connection.close()
    assert not (await subject.driver.surroundings(subject.uuid, [image])).free


@pytest.mark.parametrize("kind", ["file", "gluster"])
async def test_what_layers_hold_is_known_after_a_restart(
    driver: Driver, events: Events, machines: MachineFactory, kind: str
) -> None:
    """libvirt's own number, the highest offset written to, is 0 then."""
    machine = machines(kind)
    machine.wait_writing()
    machine.domain.suspend()
    subject = Subject(driver, machine, events)
    await subject.take()
    subject.fill(8)
    await subject.take()

    async def sizes() -> list[int]:
        facts = (await observe(driver, subject.uuid, identities=())).disks["vda"]
        assert facts.chain is not None
        return [facts.bytes_of(layer.key) for layer in facts.chain.layers]

    before = await sizes()
    assert before[0] < 1 << 20
    assert 8 << 20 <= before[1] < 9 << 20
    machine.domain.destroy()
    machine.domain.create()
    reading = await driver.read(subject.uuid)
    frozen = [one for one in reading.stats if one.capacity and one.index != 1]
    assert [one.allocation for one in frozen] == [0, 0], "libvirt knows more than it did: see _held"
    assert (await sizes())[1:] == before[1:]


async def test_an_administrators_pool_is_left_alone_while_its_server_is_away(
    subject: Subject, lab: Lab, host: LabHost
) -> None:
    """A pool that cannot be listed is stopped by libvirt, and stays so when the server is back."""
    image = Source.from_element("network", lab.gluster.volume().source("image").to_xml())
    place = places.place_of(image)
    assert place is not None
    pool = host.connection().storagePoolDefineXML(place.pool_xml("theirs-for-long"))
    try:
        pool.create()
        lab.gluster.kill()
        try:
            assert not (await subject.driver.surroundings(subject.uuid, [image])).free
            assert pool.isActive()
        finally:
            lab.gluster.start()
        await serves_again(subject, image)
        assert pool.isActive()
        lab.gluster.kill()
        try:
            with pytest.raises(libvirt.libvirtError):
                pool.refresh(0)
            assert not pool.isActive(), "libvirt has become kinder"
        finally:
            lab.gluster.start()
    finally:
        if pool.isActive():
            pool.destroy()
        pool.undefine()
    await serves_again(subject, image)


async def serves_again(subject: Subject, image: Source) -> None:
    """glusterd listens some seconds before it serves."""
    async with asyncio.timeout(60):
        while not (await subject.driver.surroundings(subject.uuid, [image])).free:
            pass
