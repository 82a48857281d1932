"""Reading a domain in one go, the inventory, the facts, and the events of guests."""

from __future__ import annotations

import asyncio
import threading

import libvirt
import pytest
from lxml import etree

from controller.chain.observation import RunState
from controller.chain.parse import parse_domain
from controller.hypervisor.driver import Driver, IOFailed, Lifecycle, LifecycleKind
from controller.hypervisor.probe import probe
from lab import Disk, Host
from lab.pytest_plugin import MachineFactory
from lab.storage.nbd import NbdServers
from tests.hypervisor.real.subject import DEADLINE, Events, Subject

pytestmark = pytest.mark.real


async def test_one_reading_has_all_that_a_pass_needs(subject: Subject) -> None:
    await subject.take()
    reading = await subject.driver.read(subject.uuid)
    assert (reading.uuid, reading.state, reading.state_reason) == (subject.uuid, RunState.PAUSED, "user")
    assert reading.persistent
    assert not reading.paused_by_io_error
    assert (reading.jobs, reading.job_active) == ({}, "")
    assert reading.live_xml is not None
    definition = parse_domain(reading.live_xml)
    shown = {(disk.target, layer.index) for disk in definition.disks for layer in disk.layers}
    assert {(stats.target, stats.index) for stats in reading.stats} == shown
    assert all(stats.capacity == 16 << 20 and stats.physical > 0 for stats in reading.stats)
    subject.machine.domain.resume()
    assert (await subject.read()).state is RunState.RUNNING


async def test_a_machine_that_is_off_has_no_live_definition(subject: Subject) -> None:
    subject.machine.destroy()
    reading = await subject.read()
    assert (reading.state, reading.state_reason) == (RunState.SHUTOFF, "destroyed")
    assert reading.live_xml is None
    assert parse_domain(reading.inactive_xml or "").uuid == subject.uuid
    assert (reading.stats, reading.jobs) == ((), {})


async def test_a_transient_domain_has_no_persistent_definition(subject: Subject) -> None:
    subject.machine.domain.undefine()
    reading = await subject.read()
    assert not reading.persistent
    assert reading.inactive_xml is None
    assert reading.live_xml is not None


async def test_a_reading_is_of_one_moment_while_the_machine_comes_and_goes(subject: Subject) -> None:
    """Whatever the moment: a definition, statistics and a state that belong together, never a mixture."""
    domain = subject.machine.domain
    seen_off = threading.Event()

    def come_and_go() -> None:
        for _ in range(3):
            seen_off.clear()
            domain.destroy()
            seen_off.wait(DEADLINE)
            domain.create()

    coming_and_going = asyncio.create_task(asyncio.to_thread(come_and_go))
    states = set()
    while not coming_and_going.done():
        reading = await subject.read()
        off = reading.state is RunState.SHUTOFF
        states.add(off)
        assert (reading.live_xml is None) is off
        assert reading.inactive_xml is not None
        if off:
            assert reading.stats == ()
            seen_off.set()
            continue
        definition = parse_domain(reading.live_xml or "")
        shown = {(disk.target, layer.index) for disk in definition.disks for layer in disk.layers}
        assert {(stats.target, stats.index) for stats in reading.stats} <= shown
    await coming_and_going
    assert states == {True, False}, "the test met only one state of the machine"


async def test_an_empty_drive_has_no_job_and_no_layers(driver: Driver, machines: MachineFactory) -> None:
    machine = machines("file", start=False)
    root = etree.fromstring(machine.domain.XMLDesc(0).encode())
    devices = root.find("devices")
    assert devices is not None
    drive = etree.SubElement(devices, "disk", type="file", device="cdrom")
    etree.SubElement(drive, "target", dev="hdc", bus="ide")
    etree.SubElement(drive, "readonly")
    machine.host.connection().defineXML(etree.tostring(root, encoding="unicode"))
    machine.start()
    reading = await driver.read(machine.uuid)
    assert reading.jobs == {}
    disk = parse_domain(reading.live_xml or "").disk("hdc")
    assert disk is not None
    assert disk.layers == ()
    assert {stats.target for stats in reading.stats} == {"vda"}


async def test_a_guest_stopped_by_an_io_error_is_told_apart_and_reported_by_target(
    driver: Driver, events: Events, machines: MachineFactory, nbd: NbdServers
) -> None:
    export = nbd.export("breaks", 20 << 20)
    machine = machines("file", Disk.nbd(export), start=False)
    root = etree.fromstring(machine.domain.XMLDesc(0).encode())
    for driver_element in root.iterfind("devices/disk/driver"):
        driver_element.set("error_policy", "stop")
    machine.host.connection().defineXML(etree.tostring(root, encoding="unicode"))
    machine.start()
    machine.wait_writing()
    nbd.remove(export)
    event = await events.wait(lambda event: isinstance(event, IOFailed))
    assert isinstance(event, IOFailed)
    assert (event.uuid, event.target) == (machine.uuid, "vdb"), "libvirt's alias was not resolved"
    reading = await driver.read(machine.uuid)
    assert (reading.state, reading.state_reason) == (RunState.PAUSED, "ioerror")
    assert reading.paused_by_io_error


async def test_the_life_of_a_machine_is_told_by_events(
    driver: Driver, events: Events, machines: MachineFactory
) -> None:
    machine = machines("file")
    machine.domain.suspend()
    machine.domain.resume()
    machine.destroy()
    machine.domain.undefine()
    for kind in (
        LifecycleKind.DEFINED,
        LifecycleKind.STARTED,
        LifecycleKind.SUSPENDED,
        LifecycleKind.RESUMED,
        LifecycleKind.STOPPED,
        LifecycleKind.UNDEFINED,
    ):
        await events.wait(Lifecycle(machine.uuid, machine.name, kind).__eq__)
    assert all(ref.uuid != machine.uuid for ref in await driver.domains())


async def test_inventory_and_definitions(subject: Subject) -> None:
    overlay = await subject.take()
    (ref,) = [ref for ref in await subject.driver.domains() if ref.uuid == subject.uuid]
    assert (ref.name, ref.active) == (subject.machine.name, True)
    mine = [xml for xml in (await subject.driver.definitions()).documents if subject.uuid in xml]
    assert len(mine) == 2, "the live and the persistent one"
    assert all(overlay.path in xml for xml in mine)
    subject.machine.destroy()
    (ref,) = [ref for ref in await subject.driver.domains() if ref.uuid == subject.uuid]
    assert not ref.active
    assert len([xml for xml in (await subject.driver.definitions()).documents if subject.uuid in xml]) == 1


FLAGS = {"commit-relative", "commit-active", "rebase-relative", "snapshot-quiesce"}


@pytest.mark.parametrize("running", [True, False], ids=["running", "off"])
async def test_capabilities_are_found_by_asking(
    driver: Driver, machines: MachineFactory, host: Host, running: bool
) -> None:
    machine = machines("file", start=running)
    before = machine.domain.XMLDesc(0)
    facts = await driver.facts()
    assert facts.capabilities >= {*FLAGS, "backing-store-input", "storage-dir"}
    assert facts.flags_asked
    assert {name for name in facts.capabilities if name.startswith("storage-")} == pools_of(host)
    connection = host.connection()
    assert facts.libvirt_version == _dotted(connection.getLibVersion())
    assert facts.qemu_version == _dotted(connection.getVersion())
    assert facts.hostname == connection.getHostname()
    assert machine.domain.XMLDesc(0) == before, "asking changed something"


def pools_of(host: Host) -> set[str]:
    """The types of storage pools for which this libvirtd has loaded what it needs, as capabilities."""
    root = etree.fromstring(host.connection().getStoragePoolCapabilities(0))
    return {f"storage-{pool.get('type')}" for pool in root if pool.get("supported") == "yes"}


def _dotted(number: int) -> str:
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


def test_flags_are_unknown_without_a_domain_to_ask(host: Host) -> None:
    class Empty:
        """A connection without domains."""

        def listAllDomains(self, _flags: int) -> list[object]:  # noqa: N802 (libvirt's name)
            return []

        def __getattr__(self, name: str) -> object:
            return getattr(host.connection(), name)

    facts = probe(Empty())
    assert not facts.capabilities & FLAGS
    assert not facts.flags_asked
    assert "storage-dir" in facts.capabilities


async def test_a_flag_that_the_daemon_does_not_know_is_refused_in_other_words(subject: Subject) -> None:
    domain = subject.machine.domain
    with pytest.raises(libvirt.libvirtError, match="unsupported flags") as unknown:
        domain.blockCommit("__probe__", None, None, 0, 1 << 20)
    with pytest.raises(libvirt.libvirtError, match="not found in domain") as known:
        domain.blockCommit("__probe__", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_RELATIVE)
    assert unknown.value.get_error_code() == known.value.get_error_code() == libvirt.VIR_ERR_INVALID_ARG
