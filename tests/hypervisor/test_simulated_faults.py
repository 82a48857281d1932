"""Faults of the simulated hypervisor: a call fails, or the controller dies at it, and the host goes on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from controller.chain.disk import Layer
from controller.chain.observation import JobKind
from controller.chain.parse import JOURNAL_NAMESPACE, parse_domain
from controller.chain.source import Source
from controller.hypervisor.driver import Disconnected, Driver, Event, JobChanged, JobStatus
from controller.hypervisor.errors import Busy, NoSpace, OperationFailed, OutcomeUnknown, Unreachable
from controller.hypervisor.simulated import Killed, Moment, Side, SimulatedHost
from controller.hypervisor.snapshot_xml import snapshot_xml

BASE = Source.file("/images/base.qcow2")
OVERLAY = Source.file("/images/overlay.qcow2")
NOTE = f'<chain xmlns="{JOURNAL_NAMESPACE}"/>'


def ignore(_: Event) -> None:
    """Hear nothing."""


async def take(driver: Driver, uuid: str) -> None:
    """A tiny controller: record, then take, unless it is done."""
    reading = await driver.read(uuid)
    assert reading.live_xml is not None
    definition = parse_domain(reading.live_xml)
    disk = definition.disk("vda")
    assert disk is not None
    if definition.journal_xml is None:
        await driver.set_metadata(uuid, NOTE, live=True, config=True)
    if disk.keys[0] != OVERLAY.key:
        await driver.create_snapshot(uuid, snapshot_xml(definition, {"vda": Layer(OVERLAY, "qcow2")}))


@pytest.mark.parametrize("side", list(Side))
async def test_every_call_can_be_the_last(side: Side) -> None:
    """How a crash test enumerates: kill at call 1, 2, 3 … until a run is not struck any more."""
    for number in itertools.count(1):
        host = SimulatedHost()
        uuid = host.add_domain("web-1", {"vda": BASE})
        host.guest_write(uuid, "vda", 0, 7)
        kill = host.kill_before if side is Side.BEFORE else host.kill_after
        kill(number)
        with contextlib.suppress(Killed):
            await take(await host.connect(ignore), uuid)
        struck = bool(host.faults.struck)
        await take(await host.connect(ignore), uuid)
        assert host.point(uuid, "vda", BASE) == {0: 7}
        disk = host.machine(uuid).live_disk("vda")
        assert [node.key for node in disk.nodes] == [OVERLAY.key, BASE.key]
        if not struck:
            assert number == 3  # two calls were struck before
            return


async def test_the_dead_reach_nothing() -> None:
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    heard: list[Event] = []
    driver = await host.connect(heard.append)
    host.kill_before(1)
    with pytest.raises(Killed):
        await driver.set_metadata(uuid, NOTE, live=True, config=True)
    host.pause(uuid)
    with pytest.raises(Killed):
        await driver.set_metadata(uuid, NOTE, live=True, config=True)
    assert heard == []
    assert host.machine(uuid).live_metadata == {}
    assert [call.name for call in host.faults.calls] == ["set_metadata"]


async def test_failure_before_and_after_the_effect() -> None:
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    driver = await host.connect(ignore)
    host.fail_before(1, Busy("held", code=68))
    host.fail_after(2, OutcomeUnknown("deadline"))
    with pytest.raises(Busy):
        await driver.set_metadata(uuid, NOTE, live=True, config=False)
    assert host.machine(uuid).live_metadata == {}
    with pytest.raises(OutcomeUnknown):
        await driver.set_metadata(uuid, NOTE, live=True, config=False)
    assert JOURNAL_NAMESPACE in host.machine(uuid).live_metadata
    await driver.set_metadata(uuid, None, live=True, config=False)
    assert [str(call).partition("(")[0] for call in host.faults.changes] == ["set_metadata"] * 3
    assert [call.number for call in host.faults.struck] == [1, 2]


async def test_a_named_call_can_fail_reads_included() -> None:
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    driver = await host.connect(ignore)
    host.fail_before(2, Unreachable("gone"), on="read")
    await driver.read(uuid)
    await driver.definitions()
    with pytest.raises(Unreachable):
        await driver.read(uuid)
    assert host.faults.changes == []


async def test_somebody_with_virsh_is_not_counted() -> None:
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    host.kill_before(1)
    await take(host.by_hand(), uuid)
    assert host.faults.calls == []
    assert len(host.machine(uuid).live_disk("vda").nodes) == 2


async def test_daemon_restart_drops_connections_and_the_news_of_what_ended_meanwhile() -> None:
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    heard: list[Event] = []
    driver = await host.connect(heard.append)
    await take(driver, uuid)
    host.guest_write(uuid, "vda", 1, 1)
    await driver.pull(uuid, "vda", base=None, relative=False, bandwidth=0)
    host.stop_libvirtd()
    host.finish_jobs()
    with pytest.raises(Unreachable):
        await host.connect(ignore)
    definition = host.machine(uuid).definition
    assert definition is not None
    assert list(definition["vda"].keys) == [OVERLAY.key, BASE.key]
    host.start_libvirtd()
    assert list(definition["vda"].keys) == [OVERLAY.key]
    with pytest.raises(Unreachable):
        await driver.domains()
    await host.connect(heard.append)
    assert any(isinstance(event, Disconnected) for event in heard)
    assert not any(isinstance(event, JobChanged) for event in heard)


async def test_failed_job_gives_no_reason_and_spoils_only_the_lower_image() -> None:
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    heard: list[Event] = []
    driver = await host.connect(heard.append)
    host.guest_write(uuid, "vda", 0, 1)
    await take(driver, uuid)
    for cluster in range(4):
        host.guest_write(uuid, "vda", cluster, 9)
    await driver.commit(uuid, "vda", base="vda[1]", top=None, relative=False, bandwidth=0)
    host.advance(2)
    assert host.point(uuid, "vda", BASE) == {0: 9, 1: 9}
    host.fail_job(uuid, "vda")
    await driver.domains()  # one turn of the loop
    assert heard[-1] == JobChanged(uuid, "vda", JobKind.ACTIVE_COMMIT, JobStatus.FAILED)
    assert host.visible(uuid, "vda") == dict.fromkeys(range(4), 9)
    assert len(host.machine(uuid).live_disk("vda").nodes) == 2


async def test_refused_place() -> None:
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    host.storage.refuse("file:/images/", NoSpace("No space left on device", code=38))
    with pytest.raises(NoSpace):
        await take(host.by_hand(), uuid)
    assert host.machine(uuid).live_disk("vda").nodes[0].key == BASE.key
    assert OVERLAY.key not in host.storage.images


TAKEN = [OVERLAY.key, BASE.key]


@pytest.mark.parametrize(
    ("moment", "qemu", "live", "stored"),
    [
        (Moment.BEFORE, TAKEN[1:], TAKEN[1:], TAKEN[1:]),
        (Moment.STARTED, TAKEN[1:], TAKEN[1:], TAKEN[1:]),
        (Moment.UNNOTED, TAKEN, TAKEN[1:], TAKEN[1:]),
        (Moment.LIVE, TAKEN, TAKEN, TAKEN[1:]),
        (Moment.AFTER, TAKEN, TAKEN, TAKEN),
    ],
)
async def test_libvirtd_dies_in_a_take(
    moment: Moment, qemu: list[str], live: list[str], stored: list[str]
) -> None:
    """A2: what QEMU has, and what libvirt believes when it is back."""
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    heard: list[Event] = []
    driver = await host.connect(heard.append)
    host.libvirtd_dies(2, moment)
    with pytest.raises(OutcomeUnknown):
        await take(driver, uuid)
    with pytest.raises(Unreachable):
        await driver.domains()
    with pytest.raises(Unreachable):
        await host.connect(ignore)
    host.start_libvirtd()
    assert host.faults.deaths == [moment]
    assert any(isinstance(event, Disconnected) for event in heard)
    disk, definition = host.machine(uuid).live_disk("vda"), host.machine(uuid).definition
    assert definition is not None
    assert [node.key for node in disk.nodes] == qemu
    assert [node.key for node in disk.listed] == live
    assert list(definition["vda"].keys) == stored
    assert host.is_split(uuid) == (qemu != live)
    assert host.open_images() == {BASE.key} | ({OVERLAY.key} if moment is not Moment.BEFORE else set())
    reading = await host.by_hand().read(uuid)
    assert JOURNAL_NAMESPACE in (reading.live_xml or ""), "what was noted before is there"


async def test_libvirtd_dies_at_the_end_of_a_commit_and_is_back_by_itself() -> None:
    host = SimulatedHost()
    host.revives_after = 0.01
    uuid = host.add_domain("web-1", {"vda": BASE})
    top = Source.file("/images/top.qcow2")
    await take(host.by_hand(), uuid)
    definition = parse_domain((await host.by_hand().read(uuid)).live_xml or "")
    await host.by_hand().create_snapshot(uuid, snapshot_xml(definition, {"vda": Layer(top, "qcow2")}))
    host.libvirtd_dies_at_an_end(1, Moment.UNNOTED)
    heard: list[Event] = []
    driver = await host.connect(heard.append)
    await driver.commit(uuid, "vda", base="vda[1]", top="vda[2]", relative=False, bandwidth=0)
    host.finish_jobs()
    assert not host.libvirtd_runs
    disk = host.machine(uuid).live_disk("vda")
    assert [node.key for node in disk.listed] == [top.key, OVERLAY.key, BASE.key]
    assert [node.key for node in disk.nodes] == [top.key, BASE.key]
    assert OVERLAY.key in host.open_images(), "nobody has told QEMU to close it"
    assert not any(isinstance(event, JobChanged) for event in heard)
    await asyncio.sleep(0.05)
    assert host.libvirtd_runs
    await host.connect(ignore)


async def test_a_machine_that_libvirt_has_lost_goes_on_and_writes() -> None:
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    await take(host.by_hand(), uuid)
    driver = await host.connect(ignore)
    await driver.commit(uuid, "vda", base="vda[1]", top=None, relative=False, bandwidth=0)
    host.finish_jobs()
    host.libvirtd_dies(1, Moment.CLEANED)
    with pytest.raises(OutcomeUnknown):
        await driver.pivot(uuid, "vda")
    host.start_libvirtd()
    assert (await host.by_hand().read(uuid)).live_xml is None
    host.guest_write(uuid, "vda", 1, 1)
    assert host.visible(uuid, "vda") == {1: 1}
    assert host.open_images() == {BASE.key}
    with pytest.raises(OperationFailed, match="lock"):
        host.start(uuid)
    host.end_lost(uuid)
    host.start(uuid)
