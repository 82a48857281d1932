"""What the simulated hypervisor must not get wrong and real libvirt is not asked for each time: lost headers,
lost images, foreign work, migration, and that thousands of machines are cheap."""

from __future__ import annotations

import asyncio

import pytest

from controller.chain.disk import Layer
from controller.chain.observation import JobKind, RunState
from controller.chain.parse import JOURNAL_NAMESPACE, parse_domain
from controller.chain.source import Host, Source
from controller.hypervisor.driver import Driver, Event, IOFailed, JobChanged, JobStatus
from controller.hypervisor.errors import Busy, OperationFailed
from controller.hypervisor.simulated import DiskDefinition, ImageMissing, SimulatedHost, Storage
from controller.hypervisor.snapshot_xml import snapshot_xml

MIB = 1 << 20


def ignore(_: Event) -> None:
    """Hear nothing."""


def image(name: str) -> Source:
    return Source.file(f"/images/{name}.qcow2")


async def take(driver: Driver, uuid: str, overlay: Source) -> None:
    reading = await driver.read(uuid)
    assert reading.live_xml is not None
    xml = snapshot_xml(parse_domain(reading.live_xml), {"vda": Layer(overlay, "qcow2")})
    await driver.create_snapshot(uuid, xml)


async def stacked(host: SimulatedHost, names: str) -> str:
    """A machine whose layers are called by these letters, each with one cluster of its own."""
    uuid = host.add_domain("web-1", {"vda": image(names[0])})
    for position, name in enumerate(names):
        if position:
            await take(host.by_hand(), uuid, image(name))
        host.guest_write(uuid, "vda", position, position + 1)
    return uuid


async def test_explicit_chain_reads_right_where_the_header_lost_the_data() -> None:
    host = SimulatedHost()
    uuid = await stacked(host, "abc")
    await host.by_hand().pull(uuid, "vda", base="vda[1]", relative=False, bandwidth=0)
    definition = host.machine(uuid).definition
    assert definition is not None
    before = definition["vda"]
    host.finish_jobs()
    host.kill_qemu(uuid)
    host.define("web-1", [before], uuid)
    host.start(uuid)
    assert host.visible(uuid, "vda") == {0: 1, 1: 2, 2: 3}
    assert host.content_of(image("c")) == {0: 1, 2: 3}


async def test_definition_that_missed_the_end_of_a_commit() -> None:
    """SIGKILL of QEMU between its header update and libvirt's record: both ways read the same."""
    host = SimulatedHost()
    uuid = await stacked(host, "abc")
    await host.by_hand().commit(uuid, "vda", base="vda[1]", top="vda[2]", relative=False, bandwidth=0)
    host.kill_qemu(uuid, completing=True)
    definition = host.machine(uuid).definition
    assert definition is not None
    assert definition["vda"].keys == (image("c").key, image("b").key, image("a").key)
    backing = host.storage.open(image("c").key).backing
    assert backing is not None
    assert backing.source.key == image("a").key
    assert host.content_of(image("c")) == {0: 1, 1: 2, 2: 3}
    host.start(uuid)
    assert host.visible(uuid, "vda") == {0: 1, 1: 2, 2: 3}


async def test_removing_what_is_needed_shows_at_the_next_start() -> None:
    host = SimulatedHost()
    uuid = await stacked(host, "abc")
    await host.by_hand().remove_image(image("b"))
    assert host.visible(uuid, "vda") == {0: 1, 1: 2, 2: 3}
    host.shutdown(uuid)
    with pytest.raises(OperationFailed) as error:
        host.start(uuid)
    assert error.value.code == 38
    with pytest.raises(ImageMissing):
        host.content_of(image("c"))


async def test_commit_into_a_shared_base_spoils_the_other_machine() -> None:
    host = SimulatedHost()
    uuid = await stacked(host, "ab")
    host.storage.create(image("x"), capacity=64 * MIB, backing=host.storage.open(image("a").key))
    other = host.add_domain("web-2", {"vda": image("x")})
    assert host.visible(other, "vda") == {0: 1}
    await host.by_hand().commit(uuid, "vda", base="vda[1]", top=None, relative=False, bandwidth=0)
    host.finish_jobs()
    assert host.visible(other, "vda") == {0: 1, 1: 2}


async def test_foreign_copy_and_lock_and_domain_job() -> None:
    host = SimulatedHost()
    uuid = await stacked(host, "ab")
    driver = await host.connect(ignore)
    host.start_copy(uuid, "vda", host.storage.create(image("copy"), capacity=64 * MIB))
    with pytest.raises(Busy):
        await driver.pull(uuid, "vda", base=None, relative=False, bandwidth=0)
    reading = await driver.read(uuid)
    assert reading.jobs["vda"].kind is JobKind.COPY
    assert reading.live_xml is not None
    disk = parse_domain(reading.live_xml).disk("vda")
    assert disk is not None
    assert disk.mirror is not None
    assert disk.mirror.job == "copy"
    await driver.abort(uuid, "vda")
    host.begin_domain_job(uuid, "migration-out")
    assert (await driver.read(uuid)).job_active == "migration-out"
    with pytest.raises(Busy) as error:
        await driver.set_metadata(uuid, None, live=True, config=True)
    assert error.value.code == 68
    host.end_domain_job(uuid)
    host.lock(uuid)
    with pytest.raises(Busy):
        await driver.read(uuid)
    host.unlock(uuid)
    await driver.set_metadata(uuid, None, live=True, config=True)


async def test_migration_takes_chain_and_journal_along_and_renumbers() -> None:
    storage = Storage()
    source, destination = SimulatedHost("a", storage=storage), SimulatedHost("b", storage=storage)
    uuid = await stacked(source, "abc")
    note = f'<chain xmlns="{JOURNAL_NAMESPACE}"/>'
    await source.by_hand().set_metadata(uuid, note, live=True, config=True)
    assert [node.index for node in source.machine(uuid).live_disk("vda").nodes] == [3, 2, 1]
    source.migrate(uuid, destination)
    assert uuid not in source.machines
    assert [node.index for node in destination.machine(uuid).live_disk("vda").nodes] == [1, 2, 3]
    reading = await destination.by_hand().read(uuid)
    assert reading.live_xml is not None
    assert parse_domain(reading.live_xml).journal_xml is not None
    assert destination.visible(uuid, "vda") == {0: 1, 1: 2, 2: 3}


async def test_guest_io_error_and_hotplug_and_rename() -> None:
    host = SimulatedHost()
    uuid = await stacked(host, "ab")
    heard: list[Event] = []
    driver = await host.connect(heard.append)
    host.io_error(uuid, "vda")
    reading = await driver.read(uuid)
    assert (reading.state, reading.paused_by_io_error) == (RunState.PAUSED, True)
    assert IOFailed(uuid, "vda", "enospc") in heard
    host.resume(uuid)
    disk = DiskDefinition.of("vdb", Source.network("nbd", "b", [Host("127.0.0.1", "10809")]))
    host.storage.create(disk.chain[0].source, capacity=64 * MIB)
    host.attach(uuid, disk)
    host.guest_write(uuid, "vdb", 1, 1)
    host.detach(uuid, "vdb")
    host.shutdown(uuid)
    host.rename(uuid, "web-9")
    assert [ref.name for ref in await driver.domains()] == ["web-9"]


async def test_jobs_finish_by_themselves_with_auto() -> None:
    host = SimulatedHost(auto=True)
    uuid = await stacked(host, "abcd")
    heard: asyncio.Queue[Event] = asyncio.Queue()
    driver = await host.connect(heard.put_nowait)
    await driver.commit(uuid, "vda", base="vda[1]", top="vda[3]", relative=False, bandwidth=0)
    async with asyncio.timeout(5):
        assert await heard.get() == JobChanged(uuid, "vda", JobKind.COMMIT, JobStatus.COMPLETED)
        await driver.commit(uuid, "vda", base="vda[1]", top=None, relative=False, bandwidth=0)
        assert await heard.get() == JobChanged(uuid, "vda", JobKind.ACTIVE_COMMIT, JobStatus.READY)
    await driver.pivot(uuid, "vda")
    assert host.content_of(image("a")) == {0: 1, 1: 2, 2: 3, 3: 4}


async def test_a_failed_snapshot_burns_numbers() -> None:
    host = SimulatedHost()
    uuid = await stacked(host, "a")
    missing = Source.network("gluster", "gv0/new.qcow2", [Host("127.0.0.1")])
    host.storage.refuse("gluster:", OperationFailed("failed to initialize gluster connection", code=38))
    for _ in range(2):
        with pytest.raises(OperationFailed):
            await take(host.by_hand(), uuid, missing)
    await take(host.by_hand(), uuid, image("b"))
    assert [node.index for node in host.machine(uuid).live_disk("vda").nodes] == [4, 1]


async def test_many_machines_and_deep_chains() -> None:
    host = SimulatedHost()
    uuids = [host.add_domain(f"m{n}", {"vda": image(f"m{n}")}) for n in range(1000)]
    driver = await host.connect(ignore)
    assert len((await driver.definitions()).documents) == 2000
    for deep in uuids[:20]:
        for depth in range(49):
            host.guest_write(deep, "vda", depth, 1)
            await take(driver, deep, image(f"{deep}-{depth}"))
    reading = await driver.read(uuids[0])
    assert reading.live_xml is not None
    disk = parse_domain(reading.live_xml).disk("vda")
    assert disk is not None
    assert len(disk.layers) == 50
    assert sum(len(host.visible(uuid, "vda")) for uuid in uuids) == 20 * 49
