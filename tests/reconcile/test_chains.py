"""VolumeChains: what is there, what will happen, approval, drift, and layers that were there before."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from controller.chain.disk import Layer
from controller.chain.parse import parse_domain
from controller.hypervisor.simulated import SimulatedHost
from controller.hypervisor.snapshot_xml import snapshot_xml
from controller.kube.kinds import VOLUME_CHAIN, VOLUME_SNAPSHOT, Raw
from controller.reconcile.chains import LINGER_SECONDS, names_of
from tests.reconcile.scenes import content, journal, status, web, with_points
from tests.reconcile.world import NAMESPACE, World, base_image

NAME = "web-1-vda"


def told(world: World, name: str = NAME) -> dict[str, Any]:
    """The status of a VolumeChain that is there."""
    raw = world.chain_object(name)
    assert raw is not None
    found: dict[str, Any] = raw["status"]
    return found


def says(world: World, name: str = NAME) -> tuple[str, str]:
    """Reason of Ready, and whether a person is needed."""
    conditions = {
        one["type"]: one for one in (world.chain_object(name) or {}).get("status", {}).get("conditions", [])
    }
    if not conditions:
        return "", ""
    return conditions["Ready"]["reason"], conditions["Stalled"]["status"]


def names(world: World) -> set[str]:
    return {raw["metadata"]["name"] for kind, raw in world.kube._store.everything() if kind == VOLUME_CHAIN}


async def by_hand(host: SimulatedHost, uuid: str, leaf: str) -> None:
    """virsh snapshot-create-as."""
    driver = host.by_hand()
    definition = parse_domain((await driver.read(uuid)).live_xml or "")
    overlay = base_image("web-1").beside(leaf)
    assert overlay is not None
    await driver.create_snapshot(uuid, snapshot_xml(definition, {"vda": Layer(overlay, "qcow2")}))


def label(host: SimulatedHost, uuid: str, position: int) -> str:
    """How virsh names a layer."""
    process = host.machine(uuid).process
    assert process is not None
    return f"vda[{process.disks['vda'].nodes[position].index}]"


async def commit_by_hand(host: SimulatedHost, uuid: str, top: int, base: int) -> None:
    """virsh blockcommit."""
    await host.by_hand().commit(
        uuid, "vda", base=label(host, uuid, base), top=label(host, uuid, top), relative=False, bandwidth=0
    )


async def look_again(world: World) -> None:
    """A resync."""
    await asyncio.sleep(3600 * 1.65)
    await world.told()


# What is there -----------------------------------------------------------------------------------------


async def test_one_is_made_with_the_first_point_and_says_what_is_there(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    assert names(world) == set(), "not on the way of a take"
    await world.told()
    raw = world.chain_object(NAME)
    assert raw is not None
    assert raw["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "varve"}
    assert raw["spec"] == {"source": {"domain": "web-1", "disk": "vda"}}
    found = told(world)
    assert says(world) == ("InSync", "False")
    assert found["observedGeneration"] == 1
    assert found["resolved"]["domainUUID"] == uuid
    assert found["depth"] == 3
    assert found["totalBytes"] == sum(layer["allocatedBytes"] for layer in found["layers"])
    assert "plan" not in found
    assert "drift" not in found
    assert [layer["source"].rsplit("/", 1)[1] for layer in found["layers"]] == world.chain(host, uuid)
    assert [layer["origin"] for layer in found["layers"]] == ["Varve", "Varve", "Other"]
    assert [layer.get("boundary") for layer in found["layers"]] == [
        None,
        {"state": "Held", "owners": [{"namespace": NAMESPACE, "name": "b"}]},
        {"state": "Held", "owners": [{"namespace": NAMESPACE, "name": "a"}]},
    ]


async def test_a_burst_is_told_in_few_writes_and_what_the_guest_writes_in_none(world: World) -> None:
    host, uuid = await with_points(world, "a", "b", "c", "d")
    await world.told()
    world.kube.forget_calls()
    for name in "abcd":
        world.delete(name)
        await world.gone(name)
    await world.told()
    writes = [call for call in world.kube.calls if call.writes and call.kind == VOLUME_CHAIN]
    assert len(writes) <= 2
    world.snapshot("e")
    await world.ready("e")
    await world.told()
    world.kube.forget_calls()
    for sector in range(40, 60):
        host.guest_write(uuid, "vda", sector, 1)
    await look_again(world)
    assert not world.kube.writes


async def test_one_life_stays_within_the_budget_of_writes(world: World) -> None:
    host, _ = await with_points(world, "before")
    await world.told()
    world.kube.forget_calls()
    world.snapshot("a")
    await world.ready("a")
    world.delete("a")
    await world.gone("a")
    await world.told()
    assert sum(world.kube.writes.values()) <= 8
    assert host.faults.calls


async def test_one_of_ours_goes_some_time_after_the_last_point(world: World) -> None:
    await with_points(world, "a")
    await world.told()
    world.delete("a")
    await world.gone("a")
    await asyncio.sleep(LINGER_SECONDS / 2)
    assert names(world) == {NAME}
    await asyncio.sleep(LINGER_SECONDS)
    assert names(world) == set()
    world.snapshot("b")
    await world.ready("b")
    await world.told()
    assert names(world) == {NAME}


async def test_one_stays_while_another_point_comes(world: World) -> None:
    await with_points(world, "a")
    await world.told()
    raw = world.chain_object(NAME)
    assert raw is not None
    world.delete("a")
    await world.gone("a")
    world.snapshot("b")
    await world.ready("b")
    await asyncio.sleep(3 * LINGER_SECONDS)
    after = world.chain_object(NAME)
    assert after is not None
    assert after["metadata"]["uid"] == raw["metadata"]["uid"]


async def test_a_persons_counts_whatever_its_name_and_is_never_touched(world: World) -> None:
    host = world.host()
    world.policy()
    web(host)
    await world.start()
    made = world.policy_of_chain("mine")
    await world.told()
    assert says(world, "mine") == ("InSync", "False")
    assert told(world, "mine")["depth"] == 1, "before there is any point"
    world.snapshot("a")
    await world.ready("a")
    await world.told()
    assert names(world) == {"mine"}
    world.delete("a")
    await world.gone("a")
    await asyncio.sleep(3 * LINGER_SECONDS)
    after = world.chain_object("mine")
    assert after is not None
    assert after["spec"] == made["spec"]
    assert told(world, "mine")["depth"] == 1


async def test_one_of_ours_gives_way_to_a_persons(world: World) -> None:
    await with_points(world, "a")
    await world.told()
    world.policy_of_chain("mine")
    await world.told()
    assert names(world) == {"mine"}


async def test_one_of_ours_that_a_person_wrote_to_is_a_persons(world: World) -> None:
    await with_points(world, "a")
    await world.told()
    world.edit_chain(NAME, approval="Manual")
    await world.told()
    world.edit_chain(NAME, approval="Auto")
    await world.told()
    world.delete("a")
    await world.gone("a")
    await asyncio.sleep(3 * LINGER_SECONDS)
    assert names(world) == {NAME}


async def test_of_two_of_one_disk_the_older_counts_and_the_other_says_so(world: World) -> None:
    await with_points(world, "a")
    world.policy_of_chain("first", approval="Manual")
    await asyncio.sleep(2)
    world.policy_of_chain("second")
    await world.told()
    assert says(world, "first") == ("InSync", "False")
    assert says(world, "second") == ("Superseded", "True")
    world.delete("a")
    await world.says("a", "AwaitingApproval", "shop/first", stalled=True)
    world.kube.delete(VOLUME_CHAIN, NAMESPACE, "first")
    await world.gone("a")


async def test_one_that_means_nothing_says_why(world: World) -> None:
    world.host(access=[{"namespaces": [NAMESPACE], "domains": ["web-*"]}])
    await world.start()
    world.policy_of_chain("nowhere", domain="web-9")
    world.policy_of_chain("denied", domain="db-1")
    world.policy_of_chain("diskless", disk="vdz")
    web(world.hosts["host-a"])
    await world.told()
    assert says(world, "nowhere") == ("DomainNotFound", "False")
    assert says(world, "denied") == ("AccessDenied", "True")
    assert says(world, "diskless") == ("DiskNotFound", "False")


async def test_a_namespace_without_access_approves_nothing(world: World) -> None:
    host = world.host(access=[{"namespaces": [NAMESPACE], "domains": ["*"]}])
    world.policy()
    web(host)
    world.policy_of_chain("theirs", namespace="other", approval="Manual")
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    world.delete("a")
    await world.gone("a")


async def test_a_name_that_is_taken_or_cannot_be_one_is_replaced(world: World) -> None:
    host = world.host()
    world.policy()
    plain, odd = web(host), web(host, "Büro 1")
    world.policy_of_chain(NAME, disk="vdb")
    await world.start()
    world.snapshot("a")
    world.snapshot("b", domain="Büro 1")
    await world.ready("a", "b")
    await world.told()
    assert names(world) == {NAME, f"{plain}-vda", f"{odd}-vda"}


@pytest.mark.parametrize(
    ("domain", "expected"),
    [("web-1", ["web-1-vda", "u-vda"]), ("Web", ["u-vda"]), ("a" * 253, ["u-vda"]), ("-x", ["u-vda"])],
)
def test_names(domain: str, expected: list[str]) -> None:
    assert names_of(domain, "u", "vda") == expected


async def test_an_owner_that_vanished_is_told(world: World) -> None:
    await with_points(world, "a", "b")
    await world.told()
    world.delete("a", force=True)
    await world.told()
    states = [layer["boundary"]["state"] for layer in told(world)["layers"][1:]]
    assert states == ["Held", "OwnerMissing"]
    world.delete("b")
    await world.gone("b")
    await asyncio.sleep(3 * LINGER_SECONDS)
    assert names(world) == {NAME}, "a point of ours is still there"


async def test_a_hypervisor_that_is_away_is_told_and_what_was_known_stays(world: World) -> None:
    host, _ = await with_points(world, "a")
    await world.told()
    before = told(world)
    host.stop_libvirtd()
    await world.until(lambda: says(world)[0] == "HypervisorUnreachable", 60)
    assert told(world)["layers"] == before["layers"]
    host.start_libvirtd()
    await world.until(lambda: says(world)[0] == "InSync", 120)


async def test_an_object_stays_small_however_long_the_chain_and_its_names(world: World) -> None:
    host = world.host()
    world.policy(maxLayers=200)
    place = "/images/" + "x" * 200
    uuid = host.add_domain("web-1", {"vda": base_image("x" * 100)})
    await world.start()
    for number in range(150):
        world.snapshot(f"point-{number}-" + "y" * 100, overlay={"directory": place})
        await world.ready(f"point-{number}-" + "y" * 100)
    await world.told()
    found = told(world)
    assert found["depth"] == 151 == len(world.chain(host, uuid))
    assert 50 < len(found["layers"]) < 151
    assert len(json.dumps(world.chain_object(NAME))) < 100 << 10


# What will happen --------------------------------------------------------------------------------------


async def test_a_running_merge_and_what_follows_it(world: World) -> None:
    host, _ = await with_points(world, "a", "b", "c")
    host.auto = False
    world.delete("a")
    world.delete("c")
    await world.until(host.jobs)
    await world.told()
    found = told(world)
    assert says(world)[0] in {"Committing", "Pulling"}
    assert found["operation"]["kind"] in {"Commit", "Pull"}
    assert len([step for step in found["plan"]["steps"] if step["kind"] != "Remove"]) == 2
    assert found["plan"]["hash"]
    assert found["reclaimableBytes"] >= 0
    host.auto = True
    host.finish_jobs()
    await world.gone("a", "c")
    await world.told()
    assert "plan" not in told(world)
    assert says(world) == ("InSync", "False")


async def test_what_waits_says_for_what(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    host.shutdown(uuid)
    world.delete("a")
    await world.told()
    found = told(world)
    assert says(world) == ("WaitingForDomain", "False")
    assert found["blockedBy"]["reason"] == "WaitingForDomain"
    assert found["plan"]["steps"][0]["blocked"]["reason"] == "WaitingForDomain"


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
    await world.says("a", "ImageProtected", "is also the backing image", stalled=True)  # of what was pulled


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
