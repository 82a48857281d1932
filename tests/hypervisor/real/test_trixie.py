"""What the gate says of Debian 13's libvirt 11.3 and QEMU 10.0, and that the machine's own do without it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import libvirt
import pytest
from lxml import etree

from controller.chain.gate import DEEPEST
from controller.hypervisor.driver import Driver, JobStatus
from controller.hypervisor.libvirt_driver import connect_libvirt
from controller.hypervisor.reading import gate_of
from lab import bare
from lab.hosts.host import Host
from lab.machines.machine import Machine
from lab.pytest_plugin import MachineFactory
from lab.reader import Reader
from lab.storage.image import ImageSource
from tests.hypervisor.real.subject import Events, Subject

pytestmark = pytest.mark.real

DEEP = "nesting too deep"
SLOW = 16 << 20
"""Bytes per second: a pull that somebody can watch."""


@pytest.fixture
async def events() -> Events:
    return Events()


@pytest.fixture
async def driver(trixie: Host, events: Events) -> AsyncIterator[Driver]:
    """A connection to Debian 13's libvirtd."""
    driver = await connect_libvirt(trixie.uri)(events)
    yield driver
    await driver.close()


def grow(machine: Machine, images: int) -> None:
    """Put overlays on vda until its chain has so many images."""
    for number in range(len(machine.chain()), images):
        bare.take(machine, "vda", ImageSource.file(machine.host.images / f"{machine.name}-{number}.qcow2"))


def start_again(machine: Machine) -> None:
    """Stop it and start it. Raises libvirtError."""
    machine.destroy()
    machine.start()
    machine.wait_writing()


def with_bitmap(machine: Machine) -> None:
    """Put a bitmap into the image of a machine that is off, as backup software leaves one."""
    image = machine.chain(inactive=True)[0].source.name
    subprocess.run(["qemu-img", "bitmap", "--add", image, "backup-1"], check=True)


def test_it_is_what_the_gate_means(trixie: Host) -> None:
    found = gate_of(trixie.connection())
    assert (found.libvirt, found.qemu.rpartition(".")[0]) == ("11.3.0", "10.0")
    assert (found.deepest, found.deepest_measured, found.reads_wait) == (22, 27, True)


def test_the_deepest_chain_that_starts(trixie: Host, machines: MachineFactory) -> None:
    """A3: 25 images start again, 26 do not."""
    machine = machines(host=trixie)
    machine.wait_writing()
    grow(machine, 25)
    start_again(machine)
    grow(machine, 26)
    assert machine.alive(), "a machine that runs does not notice"
    with pytest.raises(libvirt.libvirtError, match=DEEP):
        start_again(machine)


def test_a_bitmap_in_the_base_makes_it_less(trixie: Host, machines: MachineFactory) -> None:
    """A3: nothing shows the bitmap, so the limit is the smaller number."""
    machine = machines(host=trixie, start=False)
    with_bitmap(machine)
    machine.start()
    machine.wait_writing()
    most = gate_of(trixie.connection()).deepest
    grow(machine, most)
    start_again(machine)
    grow(machine, most + 1)
    with pytest.raises(libvirt.libvirtError, match=DEEP):
        start_again(machine)


def test_a_machine_that_does_not_start_is_mended_by_hand(
    trixie: Host, machines: MachineFactory, reader: Reader
) -> None:
    """A3: as docs/operations.md says, section A chain that does not start again."""
    machine = machines(host=trixie)
    machine.wait_writing()
    grow(machine, 26)
    machine.wait_writing()
    images = [layer.source.name for layer in reversed(machine.chain())]
    with pytest.raises(libvirt.libvirtError, match=DEEP):
        start_again(machine)
    wrote = reader.capture(machine, "vda", live=False).check_writer().max_counter
    base = images.pop(0)
    while 1 + len(images) > gate_of(trixie.connection()).deepest:
        subprocess.run(["qemu-img", "commit", "-q", images.pop(0)], check=True)
        subprocess.run(["qemu-img", "rebase", "-u", "-F", "qcow2", "-b", base, images[0]], check=True)
    root = etree.fromstring(machine.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).encode())
    for named in root.findall("devices/disk/backingStore"):
        named.getparent().remove(named)
    trixie.connection().defineXML(etree.tostring(root, encoding="unicode"))
    start_again(machine)
    assert len(machine.chain()) == gate_of(trixie.connection()).deepest
    machine.domain.suspend()
    check = reader.capture(machine, "vda").check_writer()
    assert check.ok
    assert check.max_counter > wrote


def test_a_restart_of_libvirtd_ends_a_machine_with_more(trixie: Host, machines: MachineFactory) -> None:
    """A3: why objects of a longer chain are Stalled although the machine runs."""
    safe, doomed = machines(host=trixie), machines(host=trixie)
    for machine, images in ((safe, 25), (doomed, 26)):
        machine.wait_writing()
        grow(machine, images)
    trixie.restart()
    assert safe.alive()
    assert doomed.qemu() is None


def test_40_images_start_again_on_the_machines_own(host: Host, machines: MachineFactory) -> None:
    """A3 is no fault of libvirt 9.0: the limit must not reach it."""
    found = gate_of(host.connection())
    if found.deepest < DEEPEST:
        pytest.skip(f"{found.libvirt} of this machine has the fault")
    machine = machines()
    machine.wait_writing()
    grow(machine, 40)
    start_again(machine)
    assert len(machine.chain()) == 40
    assert machine.domain.blockInfo("vda")[0] > 0


async def test_statistics_of_a_deep_chain_are_not_asked_for(
    driver: Driver, events: Events, trixie: Host, machines: MachineFactory
) -> None:
    """A3: asked once, libvirt can do nothing more with the machine. varve never asks, so a merge mends it."""
    machine = machines(host=trixie)
    machine.wait_writing()
    subject = Subject(driver, machine, events)
    most = gate_of(trixie.connection()).deepest_measured
    grow(machine, most)
    assert (await subject.read()).stats, "as long as may be"
    grow(machine, most + 1)
    assert (await subject.read()).stats == ()
    events.seen.clear()
    await subject.commit(base=10, top=5)
    await events.job(JobStatus.COMPLETED)
    assert len(await subject.layers()) == most + 1 - 5
    assert (await subject.read()).stats
    start_again(machine)


def test_statistics_cut_libvirt_off(trixie: Host, machines: MachineFactory) -> None:
    """A3: what happens to who asks."""
    machine = machines(host=trixie)
    machine.wait_writing()
    grow(machine, gate_of(trixie.connection()).deepest_measured + 1)
    trixie.connection().domainListGetStats([machine.domain], libvirt.VIR_DOMAIN_STATS_BLOCK, 0)
    with pytest.raises(libvirt.libvirtError, match=DEEP):
        grow(machine, 30)
    assert machine.alive()


@contextmanager
def watched(machine: Machine) -> Iterator[list[int]]:
    """Somebody asks for statistics without pause; how often is counted."""
    asked, over = [0], threading.Event()
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING

    def ask() -> None:
        connection = libvirt.open(machine.host.uri)
        domain = connection.lookupByUUIDString(machine.uuid)
        while not over.is_set():
            connection.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_BLOCK, flags)
            asked[0] += 1

    watchers = [threading.Thread(target=ask) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        yield asked
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()


async def test_a_pull_may_be_watched(
    driver: Driver, events: Events, trixie: Host, machines: MachineFactory
) -> None:
    """A4, ADR 6: QEMU 10.0 outlives being asked and changed at the end of a pull, so varve does both."""
    machine = machines("file", "file", host=trixie)
    machine.wait_writing()
    subject, other = Subject(driver, machine, events), Subject(driver, machine, events, target="vdb")
    for _ in range(4):
        await subject.take()
        subject.fill()
        await subject.take()
        with watched(machine) as asked:
            await subject.pull(base=None, bandwidth=SLOW)
            reading = await subject.read()
            assert "vda" in reading.jobs, "it ended before anybody looked"
            assert reading.stats
            await other.take()
            await events.job(JobStatus.COMPLETED)
            await other.take()
        assert asked[0] > 0
        assert len(await subject.layers()) == 1
    assert machine.alive()


async def test_a_pull_is_left_alone_when_the_machine_may_be_older(
    driver: Driver, events: Events, trixie: Host, machines: MachineFactory
) -> None:
    """A machine runs on with the QEMU that it was started with, whatever was installed since: only its type
    proves how old that may be."""
    machine = machines(host=trixie, start=False)
    xml = machine.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    old = xml.replace("machine='pc-i440fx-10.0'", "machine='pc-i440fx-7.2'")
    assert old != xml
    trixie.connection().defineXML(old)
    machine.start()
    machine.wait_writing()
    subject = Subject(driver, machine, events)
    subject.fill()
    await subject.take()
    await subject.pull(base=None, bandwidth=SLOW)
    reading = await subject.read()
    assert "vda" in reading.jobs
    assert reading.stats == ()
    await events.job(JobStatus.COMPLETED)
