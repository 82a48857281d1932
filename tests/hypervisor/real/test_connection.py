"""Daemons and machines that die or hang, while they are asked."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import libvirt
import pytest

from controller.hypervisor import errors
from controller.hypervisor.driver import Answered, Disconnected, Driver, EventSink, LifecycleKind
from controller.hypervisor.host import Host, Supervision
from controller.hypervisor.libvirt_driver import connect_libvirt
from controller.hypervisor.timing import Timing
from lab import Host as LabHost
from lab import Lab
from lab.pytest_plugin import MachineFactory
from tests.hypervisor.real.subject import Events, until

pytestmark = pytest.mark.real

IMPATIENT = Timing(
    connect=0.5, read=0.5, sweep=2, change=0.5, close=0.5, keepalive_interval=1, keepalive_count=2
)
"""Short enough that a test of what hangs takes a second."""
PATIENT = Timing(keepalive_interval=60)
"""For a hanging daemon that must not be given up by keepalives meanwhile."""
QUICK = Supervision(first_delay=0.05, most_delay=0.2, check_every=0.5)
JOURNAL = '<journal xmlns="https://varve.dev/ns/chain/1"/>'


@pytest.fixture
def victim(lab: Lab) -> Iterator[LabHost]:
    """A host whose libvirtd the test may stop and kill."""
    host = lab.host("victim")
    yield host
    if host.running:
        host.resume()
    else:
        host.start()


@pytest.fixture
async def supervised(victim: LabHost) -> AsyncIterator[tuple[Host, Events, list[int]]]:
    """The controller's view of the victim, its events, and a count of its changes."""
    events, changes = Events(), []
    host = Host(
        "victim",
        connect_libvirt(victim.uri, timing=IMPATIENT),
        on_event=lambda _name, event: events(event),
        on_change=lambda _name: changes.append(1),
        supervision=QUICK,
    )
    host.start()
    await until(lambda: host.status.synced)
    yield host, events, changes
    await host.stop()


async def test_a_daemon_killed_in_mid_call_leaves_the_outcome_unknown(
    victim: LabHost, machines: MachineFactory, events: Events
) -> None:
    machine = machines("file", host=victim)
    driver = await connect_libvirt(victim.uri, timing=PATIENT)(events)
    try:
        victim.pause()
        change = asyncio.create_task(driver.set_metadata(machine.uuid, JOURNAL, live=True, config=True))
        await until(lambda: _within("lookupByUUIDString"))
        reading = asyncio.create_task(driver.domains())
        await until(lambda: _threads_for(victim.uri) >= 2)
        await asyncio.to_thread(victim.kill)
        with pytest.raises(errors.OutcomeUnknown):
            await change
        with pytest.raises(errors.Unreachable):
            await reading
        await events.wait(lambda event: isinstance(event, Disconnected))
        with pytest.raises(errors.Unreachable):
            await driver.set_metadata(machine.uuid, JOURNAL, live=True, config=True)
    finally:
        await driver.close()


def _within(call: str) -> bool:
    """Whether a thread is inside this call of libvirt's binding now."""
    return any(frame.f_code.co_name == call for frame in sys._current_frames().values())


def _threads_for(uri: str) -> int:
    """How many threads there are for calls to this daemon."""
    return sum(thread.name == f"libvirt-{uri}" for thread in threading.enumerate())


async def test_a_daemon_that_stands_still_is_given_up_and_asked_no_more(
    victim: LabHost, machines: MachineFactory, events: Events
) -> None:
    machine = machines("file", host=victim)
    timing = Timing(change=0.3, read=0.3, keepalive_interval=60)
    driver = await connect_libvirt(victim.uri, timing=timing)(events)
    victim.pause()
    with pytest.raises(errors.OutcomeUnknown, match=r"writing the journal .* has not answered for 0\.3 s"):
        await driver.set_metadata(machine.uuid, JOURNAL, live=True, config=True)
    with pytest.raises(errors.Busy, match=r"writing the journal .* has not answered since"):
        await driver.read(machine.uuid)
    with pytest.raises(errors.Unreachable):
        await driver.domains()
    victim.resume()
    await events.wait(lambda event: event == Answered(machine.uuid))
    xml = (await driver.read(machine.uuid)).live_xml or ""
    assert "<journal" in xml, "the call that was given up came through after all"
    assert await driver.domains()
    await driver.close()


async def test_a_machine_that_hangs_holds_up_no_other(
    host: LabHost, machines: MachineFactory, events: Events
) -> None:
    hanging, other = machines("file"), machines("file")
    driver = await connect_libvirt(host.uri, timing=Timing(read=2))(events)
    hanging.pause_qemu()
    try:
        with pytest.raises(errors.Busy, match="has not answered for 2 s"):
            await driver.read(hanging.uuid)
        with pytest.raises(errors.Busy, match="nothing more is sent"):
            await driver.read(hanging.uuid)
        # On a connection shared with the hung call, libvirt 9.0 lets one in ten wait for 5 s.
        for _ in range(50):
            assert (await driver.read(other.uuid)).live_xml
            assert await driver.domains()
    finally:
        assert Answered(hanging.uuid) not in events.seen
        hanging.resume_qemu()
    await events.wait(lambda event: event == Answered(hanging.uuid))
    assert (await driver.read(hanging.uuid)).live_xml
    await driver.close()


async def test_a_killed_daemon_is_found_again_with_its_machines(
    victim: LabHost, machines: MachineFactory, supervised: tuple[Host, Events, list[int]]
) -> None:
    host, events, changes = supervised
    machine = machines("file", host=victim)
    await until(lambda: (ref := host.find_by_name(machine.name)) and ref.active)
    before = host.status
    await asyncio.to_thread(victim.kill)
    await events.wait(lambda event: isinstance(event, Disconnected))
    assert not host.status.connected
    assert not host.status.synced
    # The next attempt to connect may be over, and have failed.
    said = r"hypervisor victim: (the daemon closed the connection|.*Connection refused)"
    with pytest.raises(errors.Unreachable, match=said):
        _ = host.driver
    await until(lambda: "Connection refused" in host.status.message)
    assert host.status.since > before.since
    seen = len(changes)
    await asyncio.to_thread(victim.start)
    await until(lambda: host.status.synced)
    assert len(changes) > seen
    ref = host.find_by_uuid(machine.uuid)
    assert ref is not None
    assert ref.active
    assert (await host.driver.read(machine.uuid)).live_xml


async def test_b13_a_daemon_killed_twice_is_found_as_soon_as_it_listens(
    victim: LabHost, machines: MachineFactory
) -> None:
    """B13: by its socket; the next attempt without it would be in an hour, and none is made meanwhile."""
    connect, attempts = connect_libvirt(victim.uri, timing=IMPATIENT), 0

    async def counted(sink: EventSink) -> Driver:
        nonlocal attempts
        attempts += 1
        return await connect(sink)

    host = Host(
        "victim",
        counted,
        on_event=lambda _name, _event: None,
        on_change=lambda _name: None,
        supervision=Supervision(first_delay=3600, most_delay=3600, ring_every=0.2, check_every=3600),
        doorbell=connect.doorbell,
    )
    host.start()
    try:
        await until(lambda: host.status.synced)
        for _ in range(2):
            await asyncio.to_thread(victim.kill)
            await until(lambda: not host.status.connected)
            before = attempts
            await asyncio.sleep(1)  # nothing happens, and that takes time
            assert attempts == before
            await asyncio.to_thread(victim.start)
            await until(lambda: host.status.synced)
    finally:
        await host.stop()


async def test_b13_a_daemon_that_takes_nobody_in_is_not_rung_at(tmp_path: Path) -> None:
    """B13: each question would stay in its queue until nobody else gets in."""
    path = tmp_path / "sock"
    connect = connect_libvirt(f"qemu+unix:///system?socket={path}", timing=IMPATIENT)
    assert connect.doorbell is not None
    assert not await connect.doorbell(), "nobody is there"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert not await connect.doorbell(), "nobody listens"
        listener.listen(8)
        assert await connect.doorbell()
        with pytest.raises(errors.Unreachable, match="does not answer"):
            await connect(Events())
        for _ in range(50):
            assert not await connect.doorbell(), "an attempt has no answer"
        with socket.socket(socket.AF_UNIX) as somebody:
            somebody.settimeout(0)
            somebody.connect(str(path))


async def test_a_daemon_that_stands_still_is_noticed_and_heals(
    victim: LabHost, supervised: tuple[Host, Events, list[int]]
) -> None:
    host, _events, changes = supervised
    victim.pause()
    await until(lambda: "does not answer (no reply since" in host.status.message)
    assert not host.status.connected
    quiet, message = len(changes), host.status.message
    await asyncio.sleep(5 * QUICK.most_delay)
    assert host.status.message == message, "a text that changes would be written to Kubernetes each time"
    assert len(changes) == quiet
    # One in the call that hangs, one in the attempt to connect; each further attempt has one for a moment.
    await until(lambda: _threads_for(victim.uri) <= 2)
    victim.resume()
    await until(lambda: host.status.synced)
    await until(lambda: _threads_for(victim.uri) == 1)


async def test_a_socket_that_accepts_and_never_answers_costs_one_thread(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    uri = f"qemu+unix:///system?socket={path}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        host = Host(
            "hanging",
            connect_libvirt(uri, timing=IMPATIENT),
            on_event=lambda _name, _event: None,
            on_change=lambda _name: None,
            supervision=QUICK,
        )
        host.start()
        await until(lambda: "the daemon does not answer (no reply since" in host.status.message)
        await asyncio.sleep(5 * QUICK.most_delay)
        assert _threads_for(uri) == 1
        with pytest.raises(errors.Unreachable, match="hypervisor hanging: the daemon does not answer"):
            _ = host.driver
    # The connection that waits ends with the listener, and the next attempt tells what is wrong now.
    await until(lambda: "Connection refused" in host.status.message)
    await host.stop()
    await until(lambda: _threads_for(uri) == 0)


async def test_no_daemon_at_all_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(errors.Unreachable, match="No such file or directory"):
        await connect_libvirt(f"qemu+unix:///system?socket={tmp_path}/none")(Events())


async def test_the_inventory_follows_the_machines(
    victim: LabHost, machines: MachineFactory, supervised: tuple[Host, Events, list[int]]
) -> None:
    host, events, _changes = supervised
    machine = machines("file", host=victim, start=False)
    await until(lambda: (ref := host.find_by_name(machine.name)) and not ref.active)
    machine.start()
    await until(lambda: (ref := host.find_by_uuid(machine.uuid)) and ref.active)
    machine.destroy()
    await until(lambda: (ref := host.find_by_uuid(machine.uuid)) and not ref.active)
    machine.start()
    machine.domain.undefine()
    await events.wait(lambda event: getattr(event, "kind", None) is LifecycleKind.UNDEFINED)
    await host.refresh()
    assert host.find_by_uuid(machine.uuid), "a running machine outlives its definition"
    machine.destroy()
    await until(lambda: host.find_by_uuid(machine.uuid) is None and host.find_by_name(machine.name) is None)


async def test_the_flags_are_asked_for_when_the_first_machine_is_there(
    lab: Lab, machines: MachineFactory
) -> None:
    empty = lab.host("empty")
    host = Host(
        "empty",
        connect_libvirt(empty.uri),
        on_event=lambda _name, _event: None,
        on_change=lambda _name: None,
        supervision=QUICK,
    )
    host.start()
    await until(lambda: host.status.synced)
    assert host.status.facts
    assert "commit-relative" not in host.status.facts.capabilities
    machines("file", host=empty, start=False)
    await until(lambda: host.status.facts and "commit-relative" in host.status.facts.capabilities)
    await host.stop()


async def test_closed_connections_leave_nothing_behind(host: LabHost) -> None:
    connect = connect_libvirt(host.uri)
    await (await connect(Events())).close()
    gc.collect()
    descriptors, threads, connections = _descriptors(), threading.active_count(), _open_connections()
    for _ in range(10):
        driver = await connect(Events())
        await driver.domains()
        await driver.close()
        del driver
    # libvirt's event loop and a thread that ends let go of their last things after close has returned.
    await until(lambda: gc.collect() >= 0 and _open_connections() <= connections)
    await until(lambda: threading.active_count() <= threads)
    await until(lambda: _descriptors() <= descriptors)


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _open_connections() -> int:
    """Connections that are neither the lab's (they have no callbacks) nor closed."""
    return sum(
        isinstance(thing, libvirt.virConnect)
        and hasattr(thing, "domainEventCallbackID")
        and thing._o is not None
        for thing in gc.get_objects()
    )


async def test_events_end_with_the_connection(
    host: LabHost, machines: MachineFactory, driver: Driver, events: Events
) -> None:
    machine = machines("file")
    closed = Events()
    other = await connect_libvirt(host.uri)(closed)
    await other.close()
    machine.destroy()
    await events.wait(lambda event: getattr(event, "kind", None) is LifecycleKind.STOPPED)
    assert closed.seen == []
    with pytest.raises(errors.Unreachable, match="the connection is closed"):
        await other.domains()


PROGRAM = """
import asyncio, os, signal, sys
from controller.hypervisor.errors import HypervisorError
from controller.hypervisor.libvirt_driver import connect_libvirt
from controller.hypervisor.timing import Timing

async def main(uri):
    driver = await connect_libvirt(uri, timing=Timing(read=0.3))(print)
    print("connected", flush=True)
    sys.stdin.readline()
    try:
        await driver.domains()
    except HypervisorError as error:
        print(error.message, flush=True)

asyncio.run(main(sys.argv[1]))
"""


def test_a_hanging_daemon_does_not_hold_up_the_exit_of_the_process(victim: LabHost) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, victim.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "connected\n"
    victim.pause()
    output, _ = process.communicate("go\n", timeout=10)  # keepalives would end the call after 15 s
    assert output == "the list of domains has not answered for 0.3 s\n"
    assert process.returncode == 0
