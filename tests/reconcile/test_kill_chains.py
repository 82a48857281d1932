"""Killed before or after any write to a VolumeChain, the next controller leaves one that is true, or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from controller.hypervisor.simulated import Killed
from controller.kube.fake import Call
from controller.kube.kinds import VOLUME_CHAIN
from controller.reconcile.chains import LINGER_SECONDS
from tests.reconcile.chain_scenes import NAME, names, says
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
