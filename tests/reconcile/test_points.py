"""What becomes of points when machines move, and when somebody lends a hand; what they say of themselves."""

from __future__ import annotations

import asyncio

import pytest

from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.source import Source
from controller.hypervisor.driver import Pool
from controller.hypervisor.simulated import CLUSTER_BYTES
from tests.reconcile.scenes import (
    content,
    journal,
    status,
    web,
    with_points,
)
from tests.reconcile.world import World, base_image

# The domain --------------------------------------------------------------------------------------------


async def test_a_machine_of_the_same_name_is_another_machine(world: World) -> None:
    host, uuid = await with_points(world, "a")
    host.shutdown(uuid)
    host.undefine(uuid)
    new = host.add_domain("web-1", {"vda": base_image("web-2")}, uuid="0" * 8 + uuid[8:])
    host.faults.forget()
    message = await world.says("a", "DomainReplaced", uuid, new, "make a new one", stalled=True)
    assert message
    assert not host.faults.changes
    world.delete("a")
    await world.until(lambda: world.object("a") is None, 95)
    assert not host.faults.changes
    assert len(world.chain(host, new)) == 1


async def test_a_machine_that_migrates_takes_its_points_along(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    there = world.host("host-b")
    there.storage = host.storage
    await world.settled()
    host.migrate(uuid, there)
    await world.until(lambda: status(world, "a")["resolved"]["hypervisor"] == "host-b", 1)
    await world.ready("a", "b")
    world.delete("a")
    await world.until(lambda: world.object("a") is None, 1)
    assert content(world, there, uuid, "b") == {1: 1, 2: 2}


async def test_a_machine_that_migrates_and_stays_defined_where_it_was(world: World) -> None:
    host, uuid = await with_points(world, "a")
    there = world.host("host-b")
    there.storage = host.storage
    await world.settled()
    machine = host.machine(uuid)
    definition, metadata = list(machine.definition.values()), dict(machine.config_metadata)
    host.migrate(uuid, there)
    host.define("web-1", definition, uuid)
    host.machine(uuid).config_metadata = metadata
    await world.until(lambda: status(world, "a")["resolved"]["hypervisor"] == "host-b", 1)
    world.delete("a")
    await world.until(lambda: world.object("a") is None, 1)


async def test_nothing_is_begun_while_a_machine_migrates(world: World) -> None:
    host, uuid = await with_points(world, "a")
    host.begin_domain_job(uuid)
    world.snapshot("b")
    world.delete("a")
    await world.says("b", "Migrating", "migration-out")
    await world.says("a", "Migrating", "migration-out")
    assert not host.faults.changes
    host.end_domain_job(uuid)
    await world.until(lambda: world.is_ready("b") and world.object("a") is None, 60)


# What a point says of itself ---------------------------------------------------------------------------


async def test_what_a_point_says_of_itself(world: World) -> None:
    _, uuid = await with_points(world, "a")
    found = status(world, "a")
    assert found["restoreSize"] == "64Mi"
    assert found["readyToUse"] is True
    assert found["consistency"] == "CrashConsistent"
    assert "not frozen" in found["consistencyMessage"]
    assert found["layer"]["source"] == "/images/web-1.qcow2"
    assert found["layer"]["format"] == "qcow2"
    assert found["layer"]["capacityBytes"] == 64 << 20
    assert found["layer"]["allocatedBytes"] >= CLUSTER_BYTES
    expected = {"hypervisor": "host-a", "domainName": "web-1", "domainUUID": uuid, "disk": "vda"}
    assert found["resolved"] == expected


@pytest.mark.parametrize(("quiesce", "paused"), [("Never", False), ("Preferred", True)])
async def test_a_point_whose_consistency_needs_no_excuse(world: World, quiesce: str, paused: bool) -> None:
    host = world.host()
    world.policy(quiesce=quiesce)
    uuid = web(host)
    if paused:
        host.pause(uuid)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    assert status(world, "a")["consistency"] == ("Paused" if paused else "CrashConsistent")
    assert "consistencyMessage" not in status(world, "a")


async def test_a_merge_says_first_that_the_point_is_not_ready(world: World) -> None:
    host, _ = await with_points(world, "a", merge={"direction": "Commit"})
    world.delete("a")
    await world.until(lambda: any(call.name == "commit" for call in host.faults.changes))
    first = next(w for w in world.written if w.before["metadata"].get("deletionTimestamp"))
    assert first.status["readyToUse"] is False


# What somebody did by hand -----------------------------------------------------------------------------


async def test_a_layer_that_was_taken_away_by_hand_is_lost(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    nodes = host.machine(uuid).process.disks["vda"].nodes
    hand = host.by_hand()
    base, top = f"vda[{nodes[2].index}]", f"vda[{nodes[1].index}]"
    await hand.commit(uuid, "vda", base=base, top=top, relative=False, bandwidth=0)
    await world.says("a", "Lost", "make a new one", stalled=True)
    assert status(world, "a")["readyToUse"] is False
    assert world.is_ready("b")
    await asyncio.sleep(400)
    assert not [call for call in host.faults.changes if call.name != "set_metadata"]
    assert len(world.chain(host, uuid)) == 2
    world.delete("a")
    await world.gone("a")
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}
    assert len(world.chain(host, uuid)) == 2


async def test_a_lost_point_is_lost_after_a_restart_too(world: World) -> None:
    host, uuid = await with_points(world, "a")
    await world.stop()
    hand = host.by_hand()
    await hand.pull(uuid, "vda", base=None, relative=False, bandwidth=0)
    host.finish_jobs()
    await world.start()
    await world.says("a", "Lost", stalled=True)
    assert len(world.chain(host, uuid)) == 1


async def test_a_journal_that_was_wiped_is_written_again(world: World) -> None:
    """`virsh define` of an XML without it; the status remembers the point, its name tells whose it is."""
    host, uuid = await with_points(world, "a", "b")
    before = {name: status(world, name) for name in "ab"}
    machine = host.machine(uuid)
    machine.live_metadata.clear()
    machine.config_metadata.clear()
    await world.stop()
    await world.start()
    await world.until(lambda: len(journal(host, uuid).disk("vda").points) == 2)
    await world.settled()
    assert {name: status(world, name) for name in "ab"} == before
    assert not [call for call in host.faults.changes if call.name != "set_metadata"]
    world.delete("a")
    await world.gone("a")
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}
    assert len(host.storage.images) == 2


async def test_a_journal_that_cannot_be_read_stops_everything(world: World) -> None:
    host, uuid = await with_points(world, "a")
    machine = host.machine(uuid)
    kept = dict(machine.live_metadata)
    newer = f'<varve:chain xmlns:varve="{JOURNAL_NAMESPACE}" version="9"/>'
    machine.live_metadata[JOURNAL_NAMESPACE] = machine.config_metadata[JOURNAL_NAMESPACE] = newer
    world.snapshot("b")
    world.delete("a")
    await world.says("a", "JournalUnreadable", "upgrade the controller", stalled=True)
    await world.says("b", "JournalUnreadable", stalled=True)
    assert not host.faults.changes
    machine.live_metadata.update(kept)
    machine.config_metadata.update(kept)
    await world.until(lambda: world.is_ready("b") and world.object("a") is None, 60)


async def test_a_block_job_of_somebody_else_is_waited_for(world: World) -> None:
    host, uuid = await with_points(world, "a")
    destination = host.storage.create(Source.file("/images/copy.qcow2"), capacity=64 << 20)
    host.auto = False
    host.start_copy(uuid, "vda", destination)
    world.snapshot("b")
    await world.says("b", "ForeignBlockJob", "copy job that varve did not start", "virsh blockjob")
    world.delete("a")
    await world.says("a", "ForeignBlockJob")
    assert not host.faults.changes
    assert host.jobs(uuid)
    host.auto = True
    await host.by_hand().abort(uuid, "vda")
    await world.until(lambda: world.is_ready("b") and world.object("a") is None, 1)


# Where layers go ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_class", [True, False])
@pytest.mark.parametrize("place", ["directory", "pool"])
async def test_where_a_layer_goes(world: World, place: str, of_class: bool) -> None:
    host = world.host()
    host.pools["fast"] = Pool("fast", "dir", path="/fast")
    overlay = {"directory": "/fast"} if place == "directory" else {"pool": "fast"}
    world.policy(**({"overlay": overlay} if of_class else {}))
    web(host)
    await world.start()
    world.snapshot("a", **({} if of_class else {"overlay": overlay}))
    await world.ready("a")
    assert len([key for key in host.storage.images if key.startswith("file:/fast/web-1.vda.varve-")]) == 1
    world.delete("a")
    await world.gone("a")
    assert len(host.storage.images) == 1
