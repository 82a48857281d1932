"""What the API promises where its words leave room: who owns a point, and what deletion means."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.api import FINALIZER
from controller.chain.journal import Journal
from controller.chain.journal_codec import decode
from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.source import Host, Source
from controller.hypervisor.driver import Pool
from controller.hypervisor.simulated import CLUSTER_BYTES, DiskDefinition, SimulatedHost
from controller.kube.kinds import VOLUME_SNAPSHOT
from tests.reconcile.world import NAMESPACE, World, base_image


def web(host: SimulatedHost, name: str = "web-1", **options: Any) -> str:
    return host.add_domain(name, {"vda": base_image(name)}, **options)


def journal(host: SimulatedHost, uuid: str) -> Journal:
    return decode(host.machine(uuid).config_metadata.get(JOURNAL_NAMESPACE))


def status(world: World, name: str) -> dict[str, Any]:
    raw = world.object(name)
    assert raw is not None
    found: dict[str, Any] = raw["status"]
    return found


def content(world: World, host: SimulatedHost, uuid: str, name: str) -> dict[int, int]:
    return host.point(uuid, "vda", f"file:{status(world, name)['layer']['source']}")


def strip(world: World, name: str) -> None:
    """A tool that replaces the whole object, or a person who forces a deletion."""
    world.kube.edit(VOLUME_SNAPSHOT, NAMESPACE, name, lambda raw: raw["metadata"].pop("finalizers", None))


async def with_points(world: World, *names: str, **options: Any) -> tuple[SimulatedHost, str]:
    """A machine with these points, each of other content than the one before."""
    host = world.host()
    world.policy(**options)
    uuid = web(host)
    await world.start()
    for number, name in enumerate(names, 1):
        host.guest_write(uuid, "vda", number, number)
        world.snapshot(name)
        await world.ready(name)
    host.guest_write(uuid, "vda", 99, 99)
    await world.settled()
    host.faults.forget()
    return host, uuid


# Gone means gone ---------------------------------------------------------------------------------------


async def test_the_object_stays_until_its_image_is_removed(world: World) -> None:
    host, uuid = await with_points(world, "a")
    seen = []

    def look(call: Any, phase: str) -> None:
        if call.verb == "finalizer" and phase == "before":
            seen.append((len(host.storage.images), len(world.chain(host, uuid))))

    world.kube.hook = look
    world.delete("a")
    await world.gone("a")
    assert seen == [(1, 1)]


async def test_an_image_that_cannot_be_removed_is_left_and_named(world: World) -> None:
    host = world.host()
    world.policy(merge={"direction": "Commit"})
    source = Source.network("rbd", "pool/web-1", [Host("ceph", "3300")])
    uuid = host.add_domain("web-1", [DiskDefinition.of("vda", source)])  # no storage driver for rbd
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    world.delete("a")
    await world.gone("a")
    await world.settled()
    assert len(host.machine(uuid).process.disks["vda"].nodes) == 1
    [note] = world.events("ImageLeft")
    assert "rbd://ceph:3300/pool/web-1.vda.varve-" in note
    [removal] = journal(host, uuid).disk("vda").removals
    assert "no storage driver" in removal.left
    # The inventory of orphans claims nothing: the next point is taken and merged as ever.
    world.snapshot("b")
    await world.ready("b")


async def test_an_image_that_somebody_else_names_waits_and_says_so(world: World) -> None:
    host, uuid = await with_points(world, "a", merge={"direction": "Commit"})
    overlay = world.chain(host, uuid)[0]
    host.auto = False
    world.delete("a")
    await world.until(lambda: host.jobs(uuid))
    thief = host.add_domain("thief", {"vda": Source.file(f"/images/{overlay}")}, running=False)
    host.auto = True
    host.finish_jobs(uuid)
    await world.until(lambda: world.condition("a")[1] == "Removing")
    await world.until(lambda: "thief" in world.condition("a")[2], 60)
    assert Source.file(f"/images/{overlay}").key in host.storage.images
    host.undefine(thief)
    await world.until(lambda: world.object("a") is None, 120)
    assert len(host.storage.images) == 1


# Owners ------------------------------------------------------------------------------------------------


async def test_a_point_whose_owner_vanished_is_kept(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    world.delete("a", force=True)
    assert world.object("a") is None
    await world.settled()
    world.edit("b", deletionPolicy="Delete")
    await asyncio.sleep(120)
    assert len(world.chain(host, uuid)) == 3
    assert not [call for call in host.faults.changes if call.name != "set_metadata"]
    # The same declaration gets its point back.
    host.faults.forget()
    world.snapshot("a")
    await world.ready("a")
    assert content(world, host, uuid, "a") == {1: 1}
    assert len(world.chain(host, uuid)) == 3
    world.delete("a")
    await world.gone("a")
    assert len(world.chain(host, uuid)) == 2


async def test_a_finalizer_that_was_stripped_is_put_back(world: World) -> None:
    await with_points(world, "a")
    strip(world, "a")
    await world.until(lambda: FINALIZER in world.object("a")["metadata"].get("finalizers", []), 1)


async def test_no_finalizer_before_there_is_something_to_protect(world: World) -> None:
    host = world.host()
    world.policy()
    web(host, running=False)
    await world.start()
    world.snapshot("a")
    await world.says("a", "WaitingForDomain")
    assert "finalizers" not in world.object("a")["metadata"]
    world.delete("a")
    assert world.object("a") is None


async def test_finalizers_of_others_are_left_alone(world: World) -> None:
    host, uuid = await with_points(world, "a")
    world.kube.edit(
        VOLUME_SNAPSHOT, NAMESPACE, "a", lambda raw: raw["metadata"]["finalizers"].insert(0, "other/one")
    )
    world.delete("a")
    await world.until(lambda: world.object("a")["metadata"]["finalizers"] == ["other/one"])
    assert len(world.chain(host, uuid)) == 1


async def test_an_object_that_is_made_anew_while_its_point_is_merged_gets_a_new_point(world: World) -> None:
    """GitOps engines delete and re-create in one breath."""
    host, uuid = await with_points(world, "a")
    world.delete("a")
    await world.gone("a")
    world.snapshot("a")
    await world.ready("a")
    assert content(world, host, uuid, "a") == {1: 1, 99: 99}
    assert len(world.chain(host, uuid)) == 2


# Clusters ----------------------------------------------------------------------------------------------


async def test_the_points_of_another_cluster_are_left_alone(world: World) -> None:
    host, uuid = await with_points(world, "a")
    other = World(cluster="cluster-b")
    other.adopt_host(host)
    other.policy()
    await other.start()
    try:
        other.snapshot("x")
        await other.says("x", "ForeignOwner", "cluster-a", "spec.takeOverFrom", stalled=True)
        assert not host.faults.changes
        assert len(world.chain(host, uuid)) == 2
        other.delete("x")
        assert other.object("x") is None
        other.snapshot("a")  # the same declaration, from the repository of the first cluster
        await other.says("a", "ForeignOwner", stalled=True)
        await world.stop()
        other.edit_hypervisor("host-a", takeOverFrom=["cluster-a"])
        await other.until(lambda: other.is_ready("a"), 1)
        assert status(other, "a")["creationTime"] == status(world, "a")["creationTime"]
        assert len(other.chain(host, uuid)) == 2
        assert journal(host, uuid).cluster == "cluster-b"
    finally:
        await other.stop()


async def test_a_journal_that_claims_nothing_hinders_nobody(world: World) -> None:
    host, uuid = await with_points(world, "a")
    world.delete("a")
    await world.gone("a")
    await world.stop()
    other = World(cluster="cluster-b")
    other.adopt_host(host)
    await other.start()
    try:
        other.snapshot("x")
        await other.ready("x")
        assert journal(host, uuid).cluster == "cluster-b"
    finally:
        await other.stop()


async def test_a_cluster_rebuilt_from_git_finds_its_points_again(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    before = {name: status(world, name) for name in "ab"}
    await world.stop()
    rebuilt = World(cluster="cluster-a")
    rebuilt.adopt_host(host)
    rebuilt.policy()
    rebuilt.snapshot("a")
    rebuilt.snapshot("b")
    await asyncio.sleep(1000)
    await rebuilt.start()
    try:
        await rebuilt.ready("a", "b")
        assert not [call for call in host.faults.changes if call.name != "set_metadata"]
        for name in "ab":
            for field in ("creationTime", "restoreSize", "layer", "consistency", "consistencyMessage"):
                assert status(rebuilt, name)[field] == before[name][field], field
            assert FINALIZER in rebuilt.object(name)["metadata"]["finalizers"]
        rebuilt.delete("a")
        await rebuilt.gone("a")
        assert rebuilt.is_ready("b")
        assert content(rebuilt, host, uuid, "b") == {1: 1, 2: 2}
    finally:
        await rebuilt.stop()


async def test_a_cluster_restored_by_half_keeps_what_it_does_not_know(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    await world.stop()
    rebuilt = World(cluster="cluster-a")
    rebuilt.adopt_host(host)
    rebuilt.policy()
    rebuilt.snapshot("b")
    await rebuilt.start()
    try:
        await rebuilt.ready("b")
        rebuilt.delete("b")
        await rebuilt.gone("b")
        await asyncio.sleep(400)
        assert len(rebuilt.chain(host, uuid)) == 2
        assert [o.name for p in journal(host, uuid).disk("vda").points for o in p.owners] == ["a"]
    finally:
        await rebuilt.stop()


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


# Retain and suspend ------------------------------------------------------------------------------------


async def test_retain_leaves_the_layer(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    world.edit("a", deletionPolicy="Retain")
    world.delete("a")
    await world.gone("a")
    assert len(world.chain(host, uuid)) == 3
    await world.settled()
    assert world.events("LayerRetained")
    world.delete("b")
    await world.gone("b")
    assert len(world.chain(host, uuid)) == 2
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 99: 99}


async def test_suspended_is_not_taken(world: World) -> None:
    host = world.host()
    world.policy()
    web(host)
    await world.start()
    world.snapshot("a", suspend=True)
    await world.until(lambda: world.condition("a")[1] == "Suspended")
    assert world.condition("a", "Reconciling")[0] == world.condition("a", "Stalled")[0] == "False"
    await asyncio.sleep(400)
    assert not host.faults.changes
    world.edit("a", suspend=False)
    await world.until(lambda: world.is_ready("a"), 1)


async def test_suspended_is_not_merged(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    world.edit("a", suspend=True)
    await world.settled()
    assert world.is_ready("a"), "suspending says nothing about the point"
    world.delete("a")
    await world.until(lambda: world.condition("a")[1] == "Suspended")
    assert "spec.suspend" in world.condition("a")[2]
    await asyncio.sleep(400)
    assert not [call for call in host.faults.changes if call.name != "set_metadata"]
    world.edit("a", suspend=False)
    await world.until(lambda: world.object("a") is None, 1)
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}


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


# Pace --------------------------------------------------------------------------------------------------


async def test_deletions_that_settle_share_one_job(world: World) -> None:
    host, uuid = await with_points(
        world, "a", "b", "c", "d", merge={"settleSeconds": 5, "direction": "Commit"}
    )
    world.delete("b")
    await world.says("b", "Settling", "5 s")
    await asyncio.sleep(2)
    world.delete("c")
    await asyncio.sleep(2)
    assert not host.jobs(uuid)
    await world.gone("b", "c")
    begun = [call for call in host.faults.changes if call.name in ("commit", "pull")]
    assert len([call for call in begun if not call.arguments["relative"]]) == 1
    assert content(world, host, uuid, "a") == {1: 1}
    assert content(world, host, uuid, "d") == {1: 1, 2: 2, 3: 3, 4: 4}


async def test_no_more_merges_at_once_than_the_class_allows(world: World) -> None:
    host = world.host()
    world.policy(merge={"maxConcurrentPerHypervisor": 2})
    names = [f"web-{number}" for number in range(7)]
    uuids = [web(host, name) for name in names]
    await world.start()
    for name in names:
        world.snapshot(name, domain=name)
    await world.ready(*names)
    for uuid in uuids:
        host.guest_write(uuid, "vda", 1, 1)
    host.auto = False
    for name in names:
        world.delete(name)
    for left in range(7, 0, -1):
        running = min(left, 2)
        await world.until(lambda: len(host.jobs()) == running)  # noqa: B023 - used up in this round
        await asyncio.sleep(3)
        assert len(host.jobs()) == running
        reasons = [world.condition(name)[1] for name in names if world.object(name)]
        assert reasons.count("Queued") == left - running
        ended = host.jobs()[0][0].uuid
        host.finish_jobs(ended)
        await world.until(lambda: not host.jobs(ended), 1)  # noqa: B023 - as above
        await world.until(lambda: sum(map(bool, map(world.object, names))) == left - 1)  # noqa: B023


# What is never written to -------------------------------------------------------------------------------


async def test_a_base_that_another_machine_uses_is_never_written_to(world: World) -> None:
    host = world.host()
    world.policy()
    golden = Source.file("/golden/base.qcow2")
    host.storage.create(golden, capacity=64 << 20, content={7: 7})
    uuid = host.add_domain("web-1", {"vda": golden})
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    host.guest_write(uuid, "vda", 1, 1)
    world.snapshot("b")
    await world.ready("b")
    host.storage.create(
        Source.file("/images/other.qcow2"), capacity=64 << 20, backing=host.storage.images[golden.key]
    )
    other = host.add_domain("other", {"vda": Source.file("/images/other.qcow2")})
    world.delete("a")  # below: only a commit into the base could remove it
    await world.says("a", "ImageProtected", "disk vda of other", "/golden/base.qcow2", stalled=True)
    world.delete("b")  # now the range reaches the active layer: a pull writes to nobody else's image
    await world.gone("a", "b")
    assert host.storage.images[golden.key].clusters == {7: 7}
    assert host.visible(uuid, "vda") == {1: 1, 7: 7}
    assert host.visible(other, "vda") == {7: 7}


async def test_a_base_that_the_class_protects_is_never_written_to(world: World) -> None:
    host = world.host()
    world.policy(protectedImages=["/golden/*"])
    golden = Source.file("/golden/base.qcow2")
    uuid = host.add_domain("web-1", {"vda": golden})
    await world.start()
    world.snapshot("a", overlay={"directory": "/images"})
    await world.ready("a")
    host.guest_write(uuid, "vda", 1, 1)
    world.snapshot("b", overlay={"directory": "/images"})
    await world.ready("b")
    world.delete("a")
    await world.says("a", "ImageProtected", "protectedImages: /golden/*", stalled=True)
    assert world.is_ready("b")
    world.delete("b")
    await world.gone("a", "b")
    assert host.storage.images[golden.key].clusters == {}
    assert host.visible(uuid, "vda") == {1: 1}


async def test_a_base_that_is_only_named_by_an_image_beside_it_is_never_written_to(world: World) -> None:
    host, uuid = await with_points(world, "a", "b", merge={"direction": "Commit"})
    base = host.storage.images[base_image("web-1").key]
    host.storage.create(Source.file("/images/clone.qcow2"), capacity=64 << 20, backing=base)
    before = dict(base.clusters)
    world.delete("a")
    await world.says("a", "ImageProtected", "/images/clone.qcow2", "remove that image", stalled=True)
    assert base.clusters == before
    host.storage.images.pop("file:/images/clone.qcow2")
    await world.until(lambda: world.object("a") is None, 120)
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}
