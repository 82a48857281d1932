"""B27: objects that this controller cannot parse, because the CRD is newer. They say so, nothing is concluded
from them, and what they hold is neither lost nor let go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.api import FINALIZER
from controller.kube.kinds import HYPERVISOR, VOLUME_CHAIN, VOLUME_SNAPSHOT, VOLUME_SNAPSHOT_CLASS, Kind, Raw
from tests.api.kstatus import evaluate
from tests.reconcile.scenes import content, unchanged, web, with_points
from tests.reconcile.world import NAMESPACE, World


def rewrite(world: World, kind: Kind, name: str, **spec: Any) -> None:
    """What only a newer API server lets through."""
    namespace = NAMESPACE if kind.namespaced else None
    world.kube.edit(kind, namespace, name, lambda raw: raw["spec"].update(spec))


def take_away(world: World, kind: Kind, name: str, field: str) -> None:
    namespace = NAMESPACE if kind.namespaced else None
    world.kube.edit(kind, namespace, name, lambda raw: raw["spec"].pop(field))


def condition(raw: Raw | None, kind: str) -> tuple[str, str, str]:
    assert raw is not None
    (found,) = (one for one in raw["status"]["conditions"] if one["type"] == kind)
    return found["status"], found["reason"], found["message"]


async def test_a_new_object_that_is_not_understood_says_so(world: World) -> None:
    """B27: today a line in the log, and observedGeneration -1 for ever."""
    host = world.host()
    web(host)
    await world.start()
    world.snapshot("a", lock={"until": "2027-01-31T00:00:00Z"})
    await world.says("a", "NotUnderstood", "spec.lock", "upgrade the controller", stalled=True)
    raw = world.object("a")
    assert raw is not None
    assert evaluate(raw) == "Failed"
    assert len(world.events("NotUnderstood")) == 1
    unchanged(host)
    world.kube.forget_calls()
    await asyncio.sleep(3600 * 4)
    assert not world.kube.writes
    take_away(world, VOLUME_SNAPSHOT, "a", "lock")
    await world.ready("a")


async def test_a_point_whose_object_is_not_understood_any_more_stays(world: World) -> None:
    """B27: nothing of what its status knows is lost, and its owner is not taken for gone."""
    host, uuid = await with_points(world, "a", "b")
    before = world.object("a")
    assert before is not None
    host.faults.forget()
    rewrite(world, VOLUME_SNAPSHOT, "a", lock={"until": "2027-01-31T00:00:00Z"})
    await world.says("a", "NotUnderstood", stalled=True)
    after = world.object("a")
    assert after is not None
    kept = {"conditions", "observedGeneration"}
    assert {name: value for name, value in after["status"].items() if name not in kept} == {
        name: value for name, value in before["status"].items() if name not in kept
    }
    assert FINALIZER in after["metadata"]["finalizers"]
    await world.told()
    chain = world.chain_object("web-1-vda")
    assert chain is not None
    assert [layer["boundary"]["state"] for layer in chain["status"]["layers"][1:]] == ["Held", "Held"]
    unchanged(host)
    take_away(world, VOLUME_SNAPSHOT, "a", "lock")
    await world.ready("a")
    assert content(world, host, uuid, "a") == {1: 1}


@pytest.mark.parametrize("first", ["deleted", "rewritten"])
async def test_a_deletion_of_what_is_not_understood_waits(world: World, first: str) -> None:
    """B27: it is neither let go nor merged, and after the upgrade it is."""
    host, uuid = await with_points(world, "a", "b")
    host.faults.forget()
    if first == "deleted":
        world.edit("a", suspend=True)
        await world.settled()
        world.delete("a")
    rewrite(world, VOLUME_SNAPSHOT, "a", lock={"until": "2027-01-31T00:00:00Z"})
    if first == "rewritten":
        world.delete("a")
    await asyncio.sleep(300)
    await world.says("a", "NotUnderstood", stalled=True)
    await world.stop()
    await world.start()
    await asyncio.sleep(300)
    assert world.object("a") is not None
    assert len(world.chain(host, uuid)) == 3
    assert not host.faults.changes
    take_away(world, VOLUME_SNAPSHOT, "a", "lock")
    if first == "deleted":
        world.edit("a", suspend=False)
    await world.gone("a")
    assert len(world.chain(host, uuid)) == 2
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}


async def test_conditions_of_other_controllers_are_not_taken_over(world: World) -> None:
    web(world.host())
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    raw = world.object("a")
    assert raw is not None
    foreign = {**raw["status"]["conditions"][0], "type": "Backup"}
    status = {**raw["status"], "conditions": [*raw["status"]["conditions"], foreign]}
    world.kube.edit_status(VOLUME_SNAPSHOT, NAMESPACE, "a", status)
    world.written.clear()
    rewrite(world, VOLUME_SNAPSHOT, "a", lock={})
    await world.says("a", "NotUnderstood", stalled=True)
    assert "Backup" not in {one["type"] for write in world.written for one in write.status["conditions"]}


@pytest.mark.parametrize(
    "source",
    [
        {"domain": "web-1", "disk": "vda"},
        {"domain": "web-1", "serial": "4711"},
        {"domainUUID": "", "disk": "vda"},
        {"selector": {"app": "web"}},
    ],
    ids=["this disk", "some disk", "by UUID", "anything"],
)
async def test_a_chain_that_is_not_understood_holds_merges_back(world: World, source: dict[str, Any]) -> None:
    """B27: it may ask for approval in words of a newer version. Points are taken as ever."""
    host, uuid = await with_points(world, "a")
    if "domainUUID" in source:
        source = {**source, "domainUUID": uuid}
    world.policy_of_chain("theirs", source=source, approval="Manual", approvers=["somebody"])
    await world.until(lambda: (world.chain_object("theirs") or {})["status"]["observedGeneration"] == 1)
    theirs = world.chain_object("theirs")
    assert theirs is not None
    assert evaluate(theirs) == "Failed"
    assert condition(theirs, "Stalled")[1] == "NotUnderstood"
    host.faults.forget()
    world.delete("a")
    await world.says("a", "NotUnderstood", "shop/theirs", "upgrade the controller", stalled=True)
    await asyncio.sleep(120)
    assert len(world.chain(host, uuid)) == 2
    world.snapshot("b")
    await world.ready("b")
    world.kube.delete(VOLUME_CHAIN, NAMESPACE, "theirs")
    await world.gone("a")


async def test_a_chain_of_another_disk_holds_nothing_back(world: World) -> None:
    await with_points(world, "a")
    world.policy_of_chain("theirs", disk="vdb", approvers=["somebody"])
    world.policy_of_chain("others", domain="web-2", approvers=["somebody"])
    world.policy_of_chain("elsewhere", source={"domain": "web-1", "disk": "vda", "hypervisor": "h"}, more=1)
    await world.settled()
    world.delete("a")
    await world.gone("a")


async def test_a_hypervisor_that_is_not_understood_is_not_absent(world: World) -> None:
    """B27: a deleted object whose machine may be there must not be let go after 60 s."""
    host, uuid = await with_points(world, "a")
    host.faults.forget()
    rewrite(world, HYPERVISOR, "host-a", merges="Paused")
    await world.until(lambda: condition(world.hypervisor("host-a"), "Stalled")[0] == "True")
    assert condition(world.hypervisor("host-a"), "Ready")[1] == "NotUnderstood"
    assert "spec.merges" in condition(world.hypervisor("host-a"), "Ready")[2]
    await world.says("a", "NotUnderstood", "a Hypervisor may have", "upgrade", stalled=True)
    world.delete("a")
    await asyncio.sleep(300)
    await world.says("a", "NotUnderstood", stalled=True)
    unchanged(host)
    take_away(world, HYPERVISOR, "host-a", "merges")
    await world.until(lambda: world.object("a") is None, 40)
    assert len(world.chain(host, uuid)) == 1


@pytest.mark.parametrize("default", [True, False])
async def test_a_class_that_is_not_understood_is_not_absent(world: World, default: bool) -> None:
    """B27: what it protects is not known, so nothing is taken or merged by it; points that are there stay."""
    host = world.host()
    world.policy(default=default)
    uuid = web(host)
    await world.start()
    spec = {} if default else {"volumeSnapshotClassName": "standard"}
    world.snapshot("a", **spec)
    await world.ready("a")
    rewrite(world, VOLUME_SNAPSHOT_CLASS, "standard", windows=["nights"])
    await world.settled()
    assert world.is_ready("a")
    assert len(world.events("NotUnderstood")) == 1
    world.snapshot("b", **spec)
    await world.says("b", "NotUnderstood", "VolumeSnapshotClass standard", "spec.windows", stalled=True)
    world.delete("a")
    await world.says("a", "NotUnderstood", "VolumeSnapshotClass standard", stalled=True)
    assert len(world.chain(host, uuid)) == 2
    take_away(world, VOLUME_SNAPSHOT_CLASS, "standard", "windows")
    await world.gone("a")
    await world.ready("b")
