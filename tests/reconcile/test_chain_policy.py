"""VolumeChains: approval, drift, and layers that were there before."""

from __future__ import annotations

import asyncio

import pytest

from controller.kube.kinds import VOLUME_SNAPSHOT, Raw
from tests.reconcile.chain_scenes import (
    NAME,
    by_hand,
    commit_by_hand,
    label,
    look_again,
    says,
    told,
)
from tests.reconcile.scenes import content, journal, status, web, with_points
from tests.reconcile.world import World

# Approval ----------------------------------------------------------------------------------------------


async def test_nothing_merges_before_it_is_approved(world: World) -> None:
    host, uuid = await with_points(world, "a", "b", "c")
    world.policy_of_chain(NAME, approval="Manual", approvedPlan="")
    await world.told()
    world.delete("a")
    world.delete("c")
    message = await world.says("a", "AwaitingApproval", "approvedPlan", stalled=True)
    await world.told()
    plan = told(world)["plan"]
    assert plan["hash"] in message
    assert says(world) == ("AwaitingApproval", "True")
    assert told(world)["blockedBy"]["reason"] == "AwaitingApproval"
    await asyncio.sleep(400)
    assert not host.faults.changes
    world.edit_chain(NAME, approvedPlan="0123456789abcdef")
    await asyncio.sleep(400)
    assert not host.faults.changes
    world.snapshot("d")  # a point is taken without approval, and makes another chain of it
    await world.ready("d")
    world.edit_chain(NAME, approvedPlan=plan["hash"])
    await asyncio.sleep(400)
    assert not [call for call in host.faults.changes if call.name in ("commit", "pull")]
    await world.told()
    after = told(world)["plan"]
    assert after["hash"] != plan["hash"]
    world.edit_chain(NAME, approvedPlan=after["hash"])
    await world.gone("a", "c")
    assert {name: content(world, host, uuid, name) for name in "bd"} == {
        "b": {1: 1, 2: 2},
        "d": {1: 1, 2: 2, 3: 3, 99: 99},
    }
    await world.told()
    assert says(world) == ("InSync", "False")
    assert journal(host, uuid).disk("vda").approved is None


async def test_a_manual_chain_is_heard_of_before_anything_begins(world: World) -> None:
    host, _ = await with_points(world, "a")
    await world.stop()
    world.policy_of_chain(NAME, approval="Manual")
    world.delete("a")
    await world.start(first=VOLUME_SNAPSHOT)
    await world.says("a", "AwaitingApproval", stalled=True)
    assert not [call for call in host.faults.changes if call.name in ("commit", "pull")]


async def test_somebody_elses_layer_voids_an_approval(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    world.policy_of_chain(NAME, approval="Manual")
    world.delete("a")
    await world.says("a", "AwaitingApproval", stalled=True)
    await world.told()
    name = told(world)["plan"]["hash"]
    await by_hand(host, uuid, "by-hand.qcow2")
    world.edit_chain(NAME, approvedPlan=name)
    await asyncio.sleep(400)
    assert not [call for call in host.faults.changes if call.name in ("commit", "pull")]
    await world.says("a", "AwaitingApproval", "is not this one any more", stalled=True)
    await world.told()
    world.edit_chain(NAME, approvedPlan=told(world)["plan"]["hash"])
    await world.gone("a")


async def test_an_approved_plan_goes_on_after_a_restart(world: World) -> None:
    host, _ = await with_points(world, "a", "b", "c")
    world.policy_of_chain(NAME, approval="Manual")
    world.delete("a")
    world.delete("c")
    await world.says("a", "AwaitingApproval", stalled=True)
    await world.told()
    host.auto = False
    name = told(world)["plan"]["hash"]
    world.edit_chain(NAME, approvedPlan=name)
    await world.until(host.jobs)
    await world.crash()
    host.auto = True
    host.finish_jobs()
    await world.start()
    await world.gone("a", "c")


async def test_an_approved_merge_waits_for_space_and_needs_no_other_approval(world: World) -> None:
    """B20: space that is short for a moment is no part of the plan, and nobody is called."""
    host, _ = await with_points(world, "a", "b", minFreeBytes=1 << 30, merge={"direction": "Commit"})
    host.free["/images"] = 9 << 30
    world.policy_of_chain(NAME, approval="Manual")
    world.delete("a")
    await world.says("a", "AwaitingApproval", stalled=True)
    await world.told()
    name = told(world)["plan"]["hash"]
    host.free["/images"] = 1 << 30
    await asyncio.sleep(31)
    world.edit_chain(NAME, approvedPlan=name)
    await world.says("a", "InsufficientSpace", "minFreeBytes")
    await world.told()
    assert told(world)["plan"]["hash"] == name
    assert says(world) == ("InsufficientSpace", "False")
    host.free["/images"] = 9 << 30
    await world.until(lambda: world.object("a") is None, 60)


# Drift -------------------------------------------------------------------------------------------------


async def test_a_snapshot_by_hand_is_told_once_and_kept(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    await world.told()
    await by_hand(host, uuid, "by-hand.qcow2")
    await look_again(world)
    assert told(world)["drift"]["what"] == "+ /images/by-hand.qcow2"
    assert says(world) == ("Drifted", "True")
    assert told(world)["layers"][0]["origin"] == "Other"
    assert told(world)["layers"][1]["boundary"]["state"] == "Unmanaged"
    (note,) = world.events("ChainDrifted")
    assert "+ /images/by-hand.qcow2" in note
    assert world.is_ready("a")
    assert world.is_ready("b")
    world.kube.forget_calls()
    host.faults.forget()
    await look_again(world)
    assert not world.kube.writes
    assert not host.faults.changes
    for name in "ab":
        world.delete(name)
    await world.gone("a", "b")
    assert "by-hand.qcow2" in world.chain(host, uuid)
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 99: 99}


async def test_adopting_takes_the_chain_as_it_is(world: World) -> None:
    host, uuid = await with_points(world, "a")
    world.policy_of_chain(NAME)
    await by_hand(host, uuid, "by-hand.qcow2")
    await look_again(world)
    assert says(world)[0] == "Drifted"
    world.edit_chain(NAME, onDrift="Adopt")
    await world.told()
    assert says(world) == ("InSync", "False")
    assert "drift" not in told(world)
    await by_hand(host, uuid, "another.qcow2")
    await look_again(world)
    assert says(world) == ("InSync", "False")
    assert [layer["boundary"]["state"] for layer in told(world)["layers"][1:]] == [
        "Unmanaged",
        "Unmanaged",
        "Held",
    ]


async def test_a_commit_by_hand_takes_one_point_and_leaves_the_other(world: World) -> None:
    host, uuid = await with_points(world, "a", "b", "c")
    await world.told()
    await commit_by_hand(host, uuid, top=2, base=3)
    await world.says("a", "Lost", stalled=True)
    assert world.is_ready("b")
    assert world.is_ready("c")
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}
    await world.told()
    assert told(world)["drift"]["what"].startswith("- /images/web-1.vda.varve-")


async def test_a_pull_by_hand_leaves_the_lower_point_and_takes_the_upper(world: World) -> None:
    host, uuid = await with_points(world, "a", "b", merge={"direction": "Commit"})
    await world.told()
    await host.by_hand().pull(uuid, "vda", base=label(host, uuid, 2), relative=False, bandwidth=0)
    await world.says("b", "Lost", stalled=True)
    assert world.is_ready("a")
    assert content(world, host, uuid, "a") == {1: 1}
    assert journal(host, uuid).disk("vda").points[-1].overlay
    world.delete("b")
    await world.gone("b")
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 99: 99}
    world.delete("a")
    await world.gone("a")  # what was pulled away is left lying, and stops nothing


async def test_what_nobody_saw_is_not_believed(world: World) -> None:
    """While no controller runs a layer goes: whether by commit or by pull, the chain does not say."""
    host, uuid = await with_points(world, "a", "b")
    await world.told()
    await world.stop()
    await commit_by_hand(host, uuid, top=1, base=2)
    await world.start()
    await world.says("a", "Lost", stalled=True)
    await world.says("b", "Lost", stalled=True)
    assert not [call for call in host.faults.changes if call.name == "create_snapshot"]


# Layers that were there before -------------------------------------------------------------------------


async def test_a_layer_from_before_is_adopted_and_merged_like_any_other(world: World) -> None:
    host = world.host()
    world.policy()
    uuid = web(host)
    host.guest_write(uuid, "vda", 1, 1)
    await by_hand(host, uuid, "old.qcow2")
    host.guest_write(uuid, "vda", 2, 2)
    await world.start()
    host.faults.forget()
    world.snapshot("a", adopt={"layer": "/images/web-1.qcow2"})
    await world.ready("a")
    assert [call.name for call in host.faults.changes] == ["set_metadata"]
    found = status(world, "a")
    assert found["readyToUse"] is True
    assert "creationTime" not in found
    assert "consistency" not in found
    assert "not known" in found["consistencyMessage"]
    assert found["layer"]["source"] == "/images/web-1.qcow2"
    assert content(world, host, uuid, "a") == {1: 1}
    raw = world.object("a")
    assert raw is not None
    assert raw["metadata"]["finalizers"] == ["varve.dev/chain-protection"]
    await world.told()
    assert world.events("LayerAdopted")
    assert [layer["origin"] for layer in told(world)["layers"]] == ["Other", "Other"]
    world.delete("a")
    await world.gone("a")
    assert len(world.chain(host, uuid)) == 1
    assert host.visible(uuid, "vda") == {1: 1, 2: 2}
    assert len(host.storage.images) == 2, "whose overlay it is, its image stays"
    await world.until(lambda: world.events("ImageLeft"))
    assert "varve did not make" in world.events("ImageLeft")[0]


async def test_a_layer_is_adopted_again_after_the_journal_was_wiped(world: World) -> None:
    host, uuid = await with_points(world)
    await by_hand(host, uuid, "old.qcow2")
    world.snapshot("a", adopt={"layer": "/images/web-1.qcow2"})
    await world.ready("a")
    await world.told()
    machine = host.machine(uuid)
    machine.live_metadata.clear()
    machine.config_metadata.clear()
    before: Raw = status(world, "a")
    await look_again(world)
    assert [o.name for p in journal(host, uuid).disk("vda").points for o in p.owners] == ["a"]
    assert status(world, "a") == before


@pytest.mark.parametrize(
    ("layer", "reason"),
    [("/images/none.qcow2", "LayerNotFound"), ("/images/old.qcow2", "LayerActive")],
)
async def test_what_cannot_be_adopted_says_why_and_is_not_taken(
    world: World, layer: str, reason: str
) -> None:
    host, uuid = await with_points(world)
    await by_hand(host, uuid, "old.qcow2")
    host.faults.forget()
    world.snapshot("a", adopt={"layer": layer})
    await world.says("a", reason, layer, stalled=True)
    assert not host.faults.changes
    if reason == "LayerActive":
        await by_hand(host, uuid, "newer.qcow2")
        await asyncio.sleep(60)
        assert world.is_ready("a")


async def test_an_adopted_layer_that_went_is_lost(world: World) -> None:
    host, uuid = await with_points(world)
    await by_hand(host, uuid, "old.qcow2")
    world.snapshot("a", adopt={"layer": "/images/web-1.qcow2"})
    await world.ready("a")
    await host.by_hand().pull(uuid, "vda", base=None, relative=False, bandwidth=0)
    await world.says("a", "Lost", stalled=True)
    world.delete("a")
    await world.gone("a")
