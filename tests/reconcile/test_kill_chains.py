"""Killed before or after any write to a VolumeChain, the next controller leaves one that is true, or none. So
does the one that goes on when libvirtd was killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from controller.hypervisor.simulated import Killed, Moment
from controller.kube.fake import Call
from controller.kube.kinds import VOLUME_CHAIN
from controller.reconcile.chains import LINGER_SECONDS
from tests.reconcile.chain_scenes import NAME, names, says
from tests.reconcile.deaths import WHOLE, Death, deaths
from tests.reconcile.scenes import with_points
from tests.reconcile.world import World

LONGEST = 3 * LINGER_SECONDS


@dataclass(frozen=True)
class Act:
    """What is done to a machine with these points, and what the VolumeChain tells in the end."""

    points: tuple[str, ...]
    takes: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    depth: int | None = None
    """Layers; None: there is no VolumeChain."""


ACTS = {
    "appears": Act((), takes=("a", "b"), depth=3),
    "changes": Act(("a", "b"), deletes=("a",), depth=2),
    "goes": Act(("a", "b"), deletes=("a", "b")),
}


def depth(world: World) -> int | None:
    """How many layers our VolumeChain tells of."""
    raw = world.chain_object(NAME)
    return raw.get("status", {}).get("depth") if raw else None


async def lived(act: Act, hook: Callable[[Call, str], None]) -> tuple[set[str], int | None]:
    """The VolumeChains that are left once all is told, and how many layers ours tells of. The next controller
    starts when one was killed."""
    world = World()
    try:
        await with_points(world, *act.points, merge={"direction": "Commit"})
        await world.told()
        world.kube.hook = hook
        for name in act.takes:
            world.snapshot(name)
            await world.ready(name)
        for name in act.deletes:
            world.delete(name)
        wanted = {NAME} if act.depth else set()

        def over() -> bool:
            return names(world) == wanted and depth(world) == act.depth

        await world.until(lambda: over() or (world.mortal is not None and world.mortal.dead), LONGEST)
        if world.mortal is not None and world.mortal.dead:
            await world.crash()
            world.kube.hook = None
            await world.start()
        await world.until(over, LONGEST)
        await world.told()
        assert names(world) == set() or says(world) == ("InSync", "False")
        return names(world), depth(world)
    finally:
        await world.stop()


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("phase", ["before", "after"])
async def test_killed_at_every_write_to_a_volumechain(name: str, phase: str) -> None:
    act, writes = ACTS[name], list[str]()

    def count(call: Call, when: str) -> None:
        if call.kind is VOLUME_CHAIN and call.writes and when == phase:
            writes.append(call.verb)

    expected = await lived(act, count)
    assert writes
    for number in range(len(writes)):
        left = number

        def kill(call: Call, when: str) -> None:
            nonlocal left
            if call.kind is VOLUME_CHAIN and call.writes and when == phase:
                left -= 1
                if left == -1:
                    raise Killed

        assert await lived(act, kill) == expected, f"killed {phase} write {number + 1} of {writes}"
        assert left < 0, "it was not even killed"


async def after(act: Act, death: Death | None) -> tuple[set[str], int | None, list[Death]]:
    """The VolumeChains that are left once libvirtd died so, the machine was stopped and started, and all is
    told; how many layers ours tells of; and all deaths that there can be on the way."""
    world = World()
    try:
        host, uuid = await with_points(world, *act.points, merge={"direction": "Commit"})
        await world.told()
        host.faults.forget()
        host.revives_after, ends = 1.0, host.ends
        if death is not None:
            death.arm(host)
        for name in act.takes:
            world.snapshot(name)
        for name in act.deletes:
            world.delete(name)
        wanted = {NAME} if act.depth else set()
        if death is not None:
            await world.until(lambda: host.faults.deaths, 60)
            await asyncio.sleep(120)
            await world.told()
            reason, _ = says(world)
            assert reason or not names(world), "a VolumeChain says nothing of itself"
            host.shutdown(uuid)
            host.start(uuid)
        await world.until(lambda: names(world) == wanted and depth(world) == act.depth, LONGEST)
        await world.told()
        assert names(world) == set() or says(world) == ("InSync", "False")
        return names(world), depth(world), deaths(host.faults.changes, host.ends - ends)
    finally:
        await world.stop()


@pytest.mark.parametrize("name", ACTS)
async def test_libvirtd_is_killed_at_every_moment(name: str) -> None:
    act = replace(ACTS[name], takes=ACTS[name].takes[:1])  # a second one would share the repeated call
    if act.takes:
        act = replace(act, depth=2)
    *expected, ways = await after(act, None)
    assert {way.moment for way in ways} > {*WHOLE, Moment.LIVE}
    for way in ways:
        *found, _ = await after(act, way)
        assert found == expected, str(way)
