"""How much must remain free (minFreeBytes): for new layers, before a merge and while one runs."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.reconcile.scenes import content, journal, unchanged, web, with_points
from tests.reconcile.world import World

GIB = 1 << 30
HOME = "/images"


async def test_a_merge_waits_for_space_and_goes_on_by_itself(world: World) -> None:
    host, uuid = await with_points(world, "a", "b", minFreeBytes=GIB, merge={"direction": "Commit"})
    host.free[HOME] = GIB + 1
    await asyncio.sleep(31)
    world.delete("a")
    await world.says("a", "InsufficientSpace", HOME, str(GIB + 1), "minFreeBytes")
    unchanged(host)
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}
    host.free[HOME] = 2 * GIB
    await world.until(lambda: world.object("a") is None, 60)
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}


@pytest.mark.parametrize("free", [{}, {HOME: 0}])
async def test_what_is_unknown_or_not_asked_for_stops_nothing(world: World, free: dict[str, int]) -> None:
    host, _ = await with_points(world, "a", minFreeBytes=0 if free else GIB)
    host.free.update(free)
    world.delete("a")
    await world.gone("a")


@pytest.mark.parametrize(("least", "free", "read"), [(0, GIB, ""), (GIB, 4 * GIB, ""), (GIB, 2 * GIB, HOME)])
async def test_a_merge_waits_for_a_reading_unless_there_was_plenty_just_now(
    world: World, least: int, free: int, read: str
) -> None:
    host, _ = await with_points(world, "a", "b", minFreeBytes=least, merge={"direction": "Commit"})
    host.free[HOME] = free
    await asyncio.sleep(31)
    world.snapshot("c")
    await world.ready("c")
    await world.settled()
    host.faults.forget()
    world.delete("a")
    await world.gone("a")
    [before] = [
        call.arguments["homes"]
        for call in itertools.takewhile(lambda call: call.name != "commit", host.faults.calls)
        if call.name == "surroundings"
    ]
    assert before == read


async def test_a_merge_is_ended_when_others_fill_the_storage(world: World) -> None:
    host, uuid = await with_points(world, "a", "b", minFreeBytes=GIB, merge={"direction": "Commit"})
    host.free[HOME] = 5 * GIB
    host.auto = False
    world.delete("a")
    await world.until(lambda: host.jobs(uuid))
    host.free[HOME] = GIB - 1
    await world.until(lambda: not host.jobs(uuid), 60)
    await world.says("a", "InsufficientSpace", HOME, "minFreeBytes")
    assert journal(host, uuid).disk("vda").operation is None
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}
    await asyncio.sleep(120)
    assert not host.jobs(uuid)
    host.free[HOME] = 5 * GIB
    await world.until(lambda: host.jobs(uuid), 60)
    host.finish_jobs(uuid)
    await world.until(lambda: world.object("a") is None, 60)


async def test_a_new_layer_waits_for_space(world: World) -> None:
    host = world.host()
    world.policy(minFreeBytes=GIB)
    uuid = web(host)
    host.free[HOME] = 2 * GIB
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    await asyncio.sleep(60)
    host.free[HOME] = GIB - 1
    host.guest_write(uuid, "vda", 1, 1)
    world.snapshot("b")
    await world.ready("b")  # enough was free when it was last read: a take does not wait for a reading
    await asyncio.sleep(1)
    world.snapshot("c")
    await world.says("c", "InsufficientSpace", HOME, str(GIB - 1), str(GIB))
    host.free[HOME] = GIB
    await world.until(lambda: world.is_ready("c"), 60)


async def test_space_that_was_short_once_is_read_again_before_anybody_is_told(world: World) -> None:
    host = world.host()
    world.policy(minFreeBytes=GIB)
    web(host)
    host.free[HOME] = 1
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    await world.settled()
    await asyncio.sleep(600)
    host.free[HOME] = 2 * GIB
    world.snapshot("b")
    await world.ready("b")
    assert not [w for w in world.written if "InsufficientSpace" in str(w.status)]
