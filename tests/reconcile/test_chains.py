"""VolumeChains: what is there, and what will happen."""

from __future__ import annotations

import asyncio
import json

import pytest

from controller.kube.kinds import VOLUME_CHAIN
from controller.reconcile.chains import LINGER_SECONDS, names_of
from tests.reconcile.chain_scenes import (
    NAME,
    look_again,
    names,
    says,
    told,
)
from tests.reconcile.scenes import web, with_points
from tests.reconcile.world import NAMESPACE, World, base_image

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
    assert says(world, "nowhere") == ("DomainNotFound", "True")
    assert says(world, "denied") == ("AccessDenied", "True")
    assert says(world, "diskless") == ("DiskNotFound", "True")


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
