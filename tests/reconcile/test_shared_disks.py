"""A disk with points of several namespaces: the strictest of all counts, and each is told what is its own."""

from __future__ import annotations

import asyncio
import json

import pytest

from controller.chain.source import Source
from controller.hypervisor.simulated import SimulatedHost
from controller.kube.kinds import VOLUME_CHAIN, VOLUME_SNAPSHOT, Raw
from tests.reconcile.chain_scenes import by_hand, look_again
from tests.reconcile.scenes import web
from tests.reconcile.world import World, base_image

THEIRS = "a-tenant"
MINE = "shop"


def theirs(world: World, name: str, **spec: object) -> Raw:
    source = {"domain": "web-1", "disk": "vda"}
    meta = {"name": name, "namespace": THEIRS}
    return world.kube.create_object(VOLUME_SNAPSHOT, {"metadata": meta, "spec": {"source": source, **spec}})


def is_ready(world: World, namespace: str, name: str) -> bool:
    raw = world.kube.object(VOLUME_SNAPSHOT, namespace, name) or {}
    conditions = raw.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def shared(world: World, **policy: object) -> tuple[SimulatedHost, str]:
    """Two points of ours, and one of theirs above them."""
    host = world.host()
    world.policy(**policy)
    uuid = web(host)
    await world.start()
    for name in ("mine-1", "mine-2"):
        world.snapshot(name)
        await world.ready(name)
    theirs(world, "their-secret-point")
    await world.until(lambda: is_ready(world, THEIRS, "their-secret-point"))
    await world.told()
    return host, uuid


def merges(host: SimulatedHost) -> list[str]:
    return [call.name for call in host.faults.changes if call.name in ("commit", "pull")]


def chain_of(world: World, namespace: str, name: str = "web-1-vda") -> Raw:
    raw = world.chain_object(name, namespace)
    assert raw is not None
    return raw


async def test_each_namespace_has_a_chain_that_names_its_own_points_alone(world: World) -> None:
    await shared(world)
    for namespace, hidden in ((MINE, "their-secret-point"), (THEIRS, "mine-")):
        raw = chain_of(world, namespace)
        text = json.dumps(raw)
        assert hidden not in text
        other = THEIRS if namespace == MINE else f'"{MINE}"'
        assert other not in json.dumps(raw["status"])
        assert raw["status"]["depth"] == 4
        owners = [layer["boundary"] for layer in raw["status"]["layers"] if layer.get("boundary")]
        assert [one["state"] for one in owners] == ["Held"] * 3
        assert sum(len(one.get("owners", [])) for one in owners) == (2 if namespace == MINE else 1)
        assert sum(one.get("ownerCount", 0) for one in owners) == (1 if namespace == MINE else 2)
    world.delete("mine-1")
    world.delete("mine-2")
    await world.gone("mine-1", "mine-2")
    await asyncio.sleep(70)
    await world.told()
    assert world.chain_object("web-1-vda") is None, "nothing of ours is left on the disk"
    assert world.chain_object("web-1-vda", THEIRS) is not None


@pytest.mark.parametrize("who", [MINE, THEIRS])
async def test_whoever_wants_to_be_asked_is_asked(world: World, who: str) -> None:
    host, _ = await shared(world)
    other = THEIRS if who == MINE else MINE
    world.policy_of_chain("strict", namespace=who, approval="Manual")
    world.policy_of_chain("loose", namespace=other, approval="Auto", approvedPlan="0123456789abcdef")
    await world.told()
    world.delete("mine-1")
    message = await world.says("mine-1", "AwaitingApproval", stalled=True)
    assert ("strict" in message) is (who == MINE), "a name of another namespace is not told"
    assert THEIRS not in message
    await world.told()
    name = chain_of(world, who, "strict")["status"]["plan"]["hash"]
    assert chain_of(world, other, "loose")["status"]["plan"]["hash"] == name
    world.kube.edit(VOLUME_CHAIN, other, "loose", lambda raw: raw["spec"].update(approvedPlan=name))
    await asyncio.sleep(200)
    assert not merges(host), "who is not asked cannot agree for who is"
    world.kube.edit(VOLUME_CHAIN, who, "strict", lambda raw: raw["spec"].update(approvedPlan=name))
    await world.gone("mine-1")


async def test_of_two_in_a_namespace_whoever_says_manual_is_heard(world: World) -> None:
    """The older counts, and is what people approve; it cannot be used to silence the other."""
    host, _ = await shared(world)
    world.policy_of_chain("first", approval="Auto")
    await asyncio.sleep(1)
    world.policy_of_chain("second", approval="Manual")
    await world.told()
    world.delete("mine-1")
    assert "first" in await world.says("mine-1", "AwaitingApproval", stalled=True)
    await world.told()
    world.edit_chain("first", approvedPlan=chain_of(world, MINE, "first")["status"]["plan"]["hash"])
    await world.gone("mine-1")
    assert merges(host)


async def test_a_class_says_manual_and_no_chain_takes_it_back(world: World) -> None:
    host, _ = await shared(world, merge={"approval": "Manual"})
    world.delete("mine-1")
    await world.says("mine-1", "AwaitingApproval", stalled=True)
    world.kube.delete(VOLUME_CHAIN, MINE, "web-1-vda")
    await asyncio.sleep(100)
    await world.told()
    assert not merges(host)
    for namespace in (MINE, THEIRS):
        assert not merges(host), "both have points of this class"
        name = chain_of(world, namespace)["status"]["plan"]["hash"]
        world.kube.edit(
            VOLUME_CHAIN, namespace, "web-1-vda", lambda raw, name=name: raw["spec"].update(approvedPlan=name)
        )
        await asyncio.sleep(50)
        await world.told()
    await world.gone("mine-1")


async def test_a_chain_that_goes_takes_its_own_wish_along_and_no_other(world: World) -> None:
    host, _ = await shared(world)
    for namespace in (MINE, THEIRS):
        world.policy_of_chain("strict", namespace=namespace, approval="Manual")
    await world.told()
    world.delete("mine-1")
    await world.says("mine-1", "AwaitingApproval", stalled=True)
    world.kube.delete(VOLUME_CHAIN, MINE, "strict")
    await asyncio.sleep(100)
    await world.says("mine-1", "AwaitingApproval", "another namespace", stalled=True)
    assert not merges(host)
    world.kube.delete(VOLUME_CHAIN, THEIRS, "strict")
    await world.gone("mine-1")


async def test_an_image_is_unused_when_all_say_so(world: World) -> None:
    host, _ = await shared(world)
    stranger = "/images/clone-of-theirs.qcow2"
    base = host.storage.open(base_image("web-1").key)
    host.storage.create(Source.file(stranger), capacity=1 << 20, backing=base)
    world.policy_of_chain("ours", notInUse=[stranger])
    await world.told()
    world.delete("mine-1")
    await world.says("mine-1", "ImageProtected", stalled=True)
    await asyncio.sleep(100)
    assert not merges(host), "one namespace alone cannot say that nobody uses it"
    world.policy_of_chain("theirs", namespace=THEIRS, notInUse=["/images/other", stranger])
    await world.gone("mine-1")


async def test_drift_is_adopted_when_all_say_so(world: World) -> None:
    host, uuid = await shared(world)
    await by_hand(host, uuid, "by-hand.qcow2")
    await look_again(world)
    world.policy_of_chain("ours", onDrift="Adopt")
    await world.told()
    await look_again(world)
    for namespace, name in ((MINE, "ours"), (THEIRS, "web-1-vda")):
        assert "by-hand" in chain_of(world, namespace, name)["status"]["drift"]["what"]
    assert len(world.events("ChainDrifted")) == 2, "each namespace is told"
    world.kube.edit(VOLUME_CHAIN, THEIRS, "web-1-vda", lambda raw: raw["spec"].update(onDrift="Adopt"))
    await world.told()
    await look_again(world)
    for namespace, name in ((MINE, "ours"), (THEIRS, "web-1-vda")):
        assert "drift" not in chain_of(world, namespace, name)["status"]
