"""B1: a class in use goes last; and one that is gone all the same stops no deletion and spoils no image."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from controller.api import FINALIZER
from controller.hypervisor.simulated import Killed
from controller.kube.fake import Call, Phase
from controller.kube.kinds import VOLUME_SNAPSHOT_CLASS, Raw
from controller.reconcile.classes import LINGER_SECONDS
from tests.reconcile.scenes import journal, web, with_points
from tests.reconcile.world import World


def the_class(world: World, name: str = "standard") -> Raw | None:
    return world.kube.object(VOLUME_SNAPSHOT_CLASS, None, name)


def held(world: World, name: str = "standard") -> bool:
    raw = the_class(world, name)
    assert raw is not None
    return FINALIZER in raw["metadata"].get("finalizers", [])


def delete_class(world: World, name: str = "standard", *, force: bool = False) -> None:
    world.kube.delete(VOLUME_SNAPSHOT_CLASS, None, name, force=force)


async def a_point(world: World, name: str = "a", **spec: Any) -> Any:
    """A machine, the class `gold` beside the default one, and a point; everything at rest."""
    host = world.host()
    world.policy()
    world.policy("gold", default=False, protectedImages=["/golden/*"])
    uuid = web(host)
    await world.start()
    world.snapshot(name, **spec)
    await world.ready(name)
    await world.told()
    world.kube.forget_calls()
    return host, uuid


@pytest.mark.parametrize("order", [*permutations(("class", "a", "b"))])
@pytest.mark.parametrize("named", [True, False], ids=["named", "default"])
async def test_all_deleted_together_in_any_order(world: World, order: tuple[str, ...], named: bool) -> None:
    """B1: what Flux and Argo CD prune in one go is gone in the end, the class last."""
    spec = {"volumeSnapshotClassName": "gold"} if named else {}
    host, uuid = await a_point(world, **spec)
    world.snapshot("b", **spec)
    await world.ready("b")
    name = "gold" if named else "standard"
    assert held(world, name)
    for what in order:
        if what == "class":
            delete_class(world, name)
        else:
            world.delete(what)
    await world.until(lambda: world.object("a") is None and world.object("b") is None)
    await world.until(lambda: the_class(world, name) is None, 2)
    assert len(world.chain(host, uuid)) == 1
    assert not world.events("ClassNotFound")


async def test_a_class_in_use_stays_and_says_why(world: World) -> None:
    """B1: kubectl delete of a class alone waits; an event names who uses it."""
    await a_point(world, volumeSnapshotClassName="gold")
    delete_class(world, "gold")
    await asyncio.sleep(600)
    assert held(world, "gold")
    assert ["shop/a" in note for note in world.events("ClassInUse")] == [True]
    assert world.is_ready("a")
    world.delete("a")
    await world.gone("a")
    await world.until(lambda: the_class(world, "gold") is None, 2)


async def test_a_class_goes_when_the_last_names_another(world: World) -> None:
    await a_point(world, volumeSnapshotClassName="gold")
    delete_class(world, "gold")
    await world.settled()
    world.edit("a", volumeSnapshotClassName="standard")
    await world.until(lambda: the_class(world, "gold") is None, 2)
    assert held(world)


async def test_a_default_class_goes_as_soon_as_there_is_another(world: World) -> None:
    """B1: its objects have a policy again, so nothing must wait for them."""
    await a_point(world)
    delete_class(world)
    await world.settled()
    assert held(world)
    world.policy("next")
    await world.until(lambda: the_class(world) is None, 2)
    await world.until(lambda: held(world, "next"), 2)
    assert world.is_ready("a")


async def test_a_class_is_held_only_while_it_is_used(world: World) -> None:
    """One write when the first object comes, one some time after the last has gone; none in between."""
    await a_point(world)
    assert held(world)
    assert not held(world, "gold")
    for name in ("b", "c"):
        world.snapshot(name)
        await world.ready(name)
    world.delete("a")
    world.delete("b")
    world.delete("c")
    await world.gone("a", "b", "c")
    world.snapshot("d")
    await world.ready("d")
    world.delete("d")
    await world.gone("d")
    assert not [one for one in world.kube.calls if one.kind == VOLUME_SNAPSHOT_CLASS]
    await asyncio.sleep(LINGER_SECONDS + 1)
    assert not held(world)
    assert [one.verb for one in world.kube.calls if one.kind == VOLUME_SNAPSHOT_CLASS] == ["finalizer"]


async def test_holding_a_class_wakes_nobody(world: World) -> None:
    """A finalizer is no change of policy: with thousands of objects a look at each would cost."""
    host, _ = await a_point(world)
    host.faults.forget()
    world.kube.edit(
        VOLUME_SNAPSHOT_CLASS, None, "standard", lambda raw: raw["metadata"].update(labels={"a": "b"})
    )
    await world.settled()
    assert not host.faults.calls


async def test_a_finalizer_that_a_replacing_tool_took_off_is_put_back(world: World) -> None:
    await a_point(world)
    world.kube.edit(VOLUME_SNAPSHOT_CLASS, None, "standard", lambda raw: raw["metadata"].pop("finalizers"))
    await world.until(lambda: held(world), 2)


async def test_a_class_that_was_deleted_while_no_controller_ran(world: World) -> None:
    await a_point(world)
    await world.stop()
    delete_class(world)
    world.delete("a")
    await world.start()
    await world.gone("a")
    await world.until(lambda: the_class(world) is None, 2)


async def test_an_unused_class_goes_at_once(world: World) -> None:
    await a_point(world)
    delete_class(world, "gold")
    assert the_class(world, "gold") is None
    world.delete("a")
    await world.gone("a")
    delete_class(world)
    await world.until(lambda: the_class(world) is None, 1)


# Gone all the same --------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False], ids=["named", "default"])
async def test_what_a_class_said_last_holds_when_its_finalizer_is_stripped(world: World, named: bool) -> None:
    """B1: the deletion ends, and protected images stay protected."""
    host = world.host()
    world.policy(default=not named, protectedImages=["/images/web-1.qcow2"], merge={"direction": "Commit"})
    uuid = web(host)
    await world.start()
    world.snapshot("a", **({"volumeSnapshotClassName": "standard"} if named else {}))
    await world.ready("a")
    delete_class(world, force=True)
    await world.settled()
    assert the_class(world) is None
    world.delete("a")
    await world.says("a", "ImageProtected", stalled=True)
    assert len(world.chain(host, uuid)) == 2


async def test_a_class_that_is_gone_for_good_stops_no_deletion(world: World) -> None:
    """B1: no process knows any more what it protected, so nothing is written to: the layer stays."""
    host, uuid = await with_points(world)
    world.policy("gold", default=False, protectedImages=["/images/*"])
    world.snapshot("a", volumeSnapshotClassName="gold")
    world.snapshot("b", volumeSnapshotClassName="gold", deletionPolicy="Delete")
    await world.ready("a", "b")
    await world.settled()
    await world.stop()
    delete_class(world, "gold", force=True)
    host.faults.forget()
    await world.start()
    await world.settled()
    assert world.is_ready("a"), "a point that is held needs no policy"
    world.delete("a")
    world.delete("b")
    await world.gone("a", "b")
    assert len(world.chain(host, uuid)) == 2, "they shared a layer, which stays"
    assert {call.name for call in host.faults.changes} <= {"set_metadata"}
    assert not journal(host, uuid).disk("vda").points
    await world.settled()
    notes = world.events("LayerRetained")
    assert len(notes) == 2
    assert all("VolumeSnapshotClass gold is gone" in note and "adopts" in note for note in notes)


async def test_a_deletion_waits_for_nobody_when_the_class_was_never_there(world: World) -> None:
    web(world.host())
    await world.start()
    world.snapshot("a", volumeSnapshotClassName="gold")
    await world.says("a", "ClassNotFound")
    world.delete("a")
    await world.gone("a")


async def test_a_take_waits_for_its_class_whatever_an_older_one_said(world: World) -> None:
    """Remembered policies are for points that are there; a new point is taken by a class that is."""
    host, uuid = await a_point(world, volumeSnapshotClassName="gold")
    delete_class(world, "gold", force=True)
    await world.settled()
    world.snapshot("b", volumeSnapshotClassName="gold")
    await world.says("b", "ClassNotFound", "gold")
    assert len(world.chain(host, uuid)) == 2


# Killed ----------------------------------------------------------------------------------------------------


async def prune(kill_at: int, phase: Phase) -> int:
    """Take a point, then delete the class and it together; the controller is killed at one of its writes and
    started again. Returns how many writes there were. All must be gone in the end."""
    world, seen = World(), 0

    def hook(call: Call, when: Phase) -> None:
        nonlocal seen
        if call.writes and call.verb != "event" and when == phase:
            seen += 1
            if seen == kill_at:
                raise Killed

    world.kube.hook = hook
    host = world.host()
    world.policy()
    uuid = web(host)
    await world.start()

    async def until(holds: Callable[[], object]) -> None:
        await world.until(lambda: holds() or (world.mortal is not None and world.mortal.dead))
        if not holds():
            await world.crash()
            await world.start()
            await world.until(holds)

    world.snapshot("a")
    await until(lambda: world.is_ready("a") and held(world))
    delete_class(world)
    world.delete("a")
    await until(lambda: world.object("a") is None and the_class(world) is None)
    assert len(world.chain(host, uuid)) == 1
    await world.stop()
    return seen


@pytest.mark.parametrize("phase", ["before", "after"])
async def test_a_prune_ends_wherever_the_controller_is_killed(phase: Phase) -> None:
    """B1: the class and the point, before and after every write to Kubernetes. How many there are depends on
    which of two reports comes first."""
    number = 1
    while await prune(number, phase) >= number:
        number += 1
    assert number > 6, "finalizers of both come and go, and the object tells that it is ready"
