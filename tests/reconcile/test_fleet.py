"""The whole fleet: starting, many machines, several processes, and how often anything is written."""

from __future__ import annotations

import asyncio

import pytest

from controller.hypervisor.driver import Driver, EventSink
from controller.hypervisor.simulated import DiskDefinition
from controller.kube.errors import Unavailable
from controller.kube.kinds import VOLUME_SNAPSHOT
from tests.reconcile.scenes import web, with_points
from tests.reconcile.world import NAMESPACE, World


def look_at_everything(world: World) -> None:
    """What the resync does."""
    assert world.engine is not None
    store = world.engine._context.store
    for key in [*store.snapshots, *store.domains()]:
        world.engine._queue.add(key)


# Starting ----------------------------------------------------------------------------------------------


async def test_a_start_with_nothing_to_do_writes_nothing(world: World) -> None:
    host = world.host()
    world.policy("gold", default=False)
    web(host)
    await world.start()
    world.snapshot("a", volumeSnapshotClassName="gold")
    await world.ready("a")
    await world.told()
    await world.stop()
    world.kube.forget_calls()
    host.faults.forget()
    for first in (None, VOLUME_SNAPSHOT):  # also when the objects are heard of before their hypervisors
        await world.start(first=first)
        await world.until(world.engine._context.store.domains)
        await world.told()
        assert host.faults.calls
        assert not host.faults.changes
        assert not world.kube.writes
        await world.stop()


async def test_a_start_while_kubernetes_is_away_is_tried_again_by_the_caller(world: World) -> None:
    web(world.host())
    world.kube.fail("list", Unavailable("503"))
    with pytest.raises(Unavailable):
        await world.start()
    assert world.engine is not None
    assert world.engine.ready()
    await world.engine.start()
    assert world.engine.ready() is None
    world.snapshot("a")
    world._unsubscribe = world.kube.subscribe(world.engine.on_object)
    await world.ready("a")


async def test_a_new_hypervisor_takes_nothing_from_the_points_of_others(world: World) -> None:
    await with_points(world, "a")
    web(world.host("host-b"), "db")
    await world.settled()
    assert world.kube.writes.keys() <= {"status"}
    assert all(call.name == "host-b" for call in world.kube.calls if call.writes)


# Several processes -------------------------------------------------------------------------------------


async def test_each_process_of_a_sharded_fleet_speaks_of_its_own(world: World) -> None:
    """Two processes, one hypervisor each, all objects seen by both: neither talks the other's points down."""
    here, there = world.host("host-a"), world.host("host-b")
    world.label("host-a", site="a")
    world.label("host-b", site="b")
    world.policy()
    web(here, "web-1")
    web(there, "web-2")
    other = World(kube=world.kube, hosts=world.hosts, now=world.now)
    await world.start(selector="site=a")
    await other.start(selector="site=b")
    try:
        world.snapshot("a")
        world.snapshot("b", domain="web-2")
        await world.ready("a", "b")
        await world.told()
        await other.told()
        world.kube.forget_calls()
        await asyncio.sleep(400)
        assert not world.kube.writes
        uuid = there.inventory()[0].uuid
        there.shutdown(uuid)
        there.undefine(uuid)
        await world.says("b", "DomainNotFound")
        world.delete("b")
        await asyncio.sleep(200)
        assert world.object("b") is not None, "no process knows all places where the domain may be"
        await world.says("b", "DomainNotFound", "gone for good", "docs/operations.md", stalled=True)
    finally:
        await other.stop()


# Writes and events -------------------------------------------------------------------------------------


async def test_events_are_written_on_transitions_only(world: World) -> None:
    host, _ = await with_points(world)
    world.snapshot("a")
    world.snapshot("bad", disk="sda")
    world.snapshot("worse", source={"domain": "web-1", "disk": "vda", "hypervisor": "host-a"}, suspend=True)
    host.attach(
        host.inventory()[0].uuid, DiskDefinition("sda", (), device="cdrom", bus="sata", readonly=True)
    )
    await world.ready("a")
    await world.says("bad", "DiskUnsupported", stalled=True)
    for _ in range(20):
        look_at_everything(world)
        await asyncio.sleep(40)
    reasons = sorted(event["reason"] for event in world.kube.events)
    assert reasons == ["DiskUnsupported", "SnapshotTaken"]
    world.delete("a")
    await world.gone("a")
    await world.settled()
    reasons = sorted(event["reason"] for event in world.kube.events)
    assert reasons == ["DiskUnsupported", "LayerMerged", "SnapshotTaken"]


async def test_a_status_that_somebody_overwrote_is_mended(world: World) -> None:
    web(world.host())
    world.policy()
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    await world.settled()
    before = world.object("a")["status"]
    world.kube.edit_status(VOLUME_SNAPSHOT, NAMESPACE, "a", {"observedGeneration": -1})
    await world.ready("a")
    after = world.object("a")["status"]
    for one in (*before["conditions"], *after["conditions"]):
        one.pop("lastTransitionTime")
    assert after == before


async def test_a_long_merge_costs_few_writes(world: World) -> None:
    host = world.host()
    world.policy(merge={"direction": "Commit"})
    uuid = web(host)
    for cluster in range(1000):
        host.guest_write(uuid, "vda", cluster, 1)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    for cluster in range(1000):
        host.guest_write(uuid, "vda", cluster, 2)
    await world.settled()
    world.kube.forget_calls()
    host.auto = False
    world.delete("a")
    await world.until(host.jobs)
    while host.jobs():
        host.advance(1)
        await asyncio.sleep(1)
        if world.object("a") is None:
            break
    await world.gone("a")
    assert 15 <= sum(world.kube.writes.values()) <= 60


async def test_objects_that_are_gone_are_forgotten(world: World) -> None:
    web(world.host())
    world.policy()
    await world.start()
    for number in range(5):
        world.snapshot(f"a{number}")
        await world.ready(f"a{number}")
        world.delete(f"a{number}")
        await world.gone(f"a{number}")
    await world.settled()
    assert world.engine is not None
    store = world.engine._context.store
    assert not store.snapshots
    assert not store.domains()
    assert not world.engine._wakeups.unresolved


async def test_a_hypervisor_object_that_is_deleted_and_made_again(world: World) -> None:
    host, uuid = await with_points(world, "a")
    spec = world.hypervisor("host-a")["spec"]
    host.faults.forget()
    world.delete_hypervisor("host-a")
    await world.says("a", "HypervisorNotFound")
    assert len(world.chain(host, uuid)) == 2
    assert not host.faults.changes
    world.create_hypervisor("host-a", spec)
    await world.until(lambda: world.is_ready("a"), 2)


# Scale -------------------------------------------------------------------------------------------------


async def test_a_thousand_points_on_two_hundred_machines(world: World) -> None:
    hosts = [world.host(f"host-{number}") for number in range(20)]
    world.policy()
    uuids = {f"web-{n}": (hosts[n % 20], web(hosts[n % 20], f"web-{n}")) for n in range(200)}
    await world.start()
    names = {f"{domain}.{number}" for domain in uuids for number in range(5)}
    for name in sorted(names):
        world.snapshot(name, domain=name.partition(".")[0])
    waiting = set(names)

    def all_ready() -> bool:
        waiting.difference_update([name for name in waiting if world.is_ready(name)])
        return not waiting

    await world.until(all_ready, 60)
    await world.told()
    # What is pending at the moment of a pass shares one boundary.
    assert all(2 <= len(world.chain(host, uuid)) <= 6 for host, uuid in uuids.values())
    # Finalizer, status and event of each; and each disk's VolumeChain, made and told.
    assert sum(world.kube.writes.values()) <= 3 * len(names) + 2 * len(uuids) + 100
    world.kube.forget_calls()
    for host in hosts:
        host.faults.forget()
    look_at_everything(world)
    await world.settled()
    assert not world.kube.writes
    for host in hosts:
        assert len([call for call in host.faults.calls if call.name == "read"]) >= 10
        assert not host.faults.changes
    for name in sorted(names):
        world.delete(name)
    await world.until(lambda: not any(map(world.object, names)), 60)
    assert all(len(world.chain(host, uuid)) == 1 for host, uuid in uuids.values())
    assert all(len(host.storage.images) == 10 for host in hosts)


async def test_b13_a_hypervisor_that_is_back_is_found_by_its_doorbell(world: World) -> None:
    """B13: attempts are half a minute apart by then; the question at the door is not."""
    host = world.host()
    web(host)

    class Door:
        attempts = 0
        rung = 0

        async def __call__(self, sink: EventSink) -> Driver:
            self.attempts += 1
            return await host.connect(sink)

        async def doorbell(self) -> bool:
            self.rung += 1
            return host.libvirtd_runs

    door = Door()
    world.make_connector = lambda _uri: door
    host.stop_libvirtd()
    await world.start()
    await asyncio.sleep(600)
    assert world.engine is not None
    hosts = world.engine._fleet.hosts
    before, rung = door.attempts, door.rung
    await asyncio.sleep(60)
    assert door.attempts <= before + 4
    assert door.rung >= rung + 30
    for _ in range(2):
        host.start_libvirtd()
        await world.until(lambda: hosts["host-a"].status.connected, 2)
        host.stop_libvirtd()
        await asyncio.sleep(5)
