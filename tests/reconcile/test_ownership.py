"""Whose a point is, and what deletion means: gone means gone, and only a deletion that was seen merges."""

from __future__ import annotations

import asyncio
from typing import Any

from controller.api import FINALIZER
from controller.chain.source import Host, Source
from controller.hypervisor.simulated import DiskDefinition
from controller.kube.kinds import VOLUME_SNAPSHOT
from tests.reconcile.scenes import (
    content,
    journal,
    status,
    web,
    with_points,
)
from tests.reconcile.world import NAMESPACE, World


def strip(world: World, name: str) -> None:
    """A tool that replaces the whole object, or a person who forces a deletion."""
    world.kube.edit(VOLUME_SNAPSHOT, NAMESPACE, name, lambda raw: raw["metadata"].pop("finalizers", None))


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
    host.storage.drivers = frozenset({"dir"})
    uuid = host.add_domain("web-1", [DiskDefinition.of("vda", source)])
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
    await world.until(lambda: "is in use" in world.condition("a")[2], 60)
    await world.until(lambda: any("thief" in note for note in world.details()))
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
