"""A guest that writes faster than its layer is committed: the job is given up, waited for, tried again."""

from __future__ import annotations

import asyncio

import pytest

from controller.hypervisor.simulated import Side, SimulatedHost
from tests.reconcile.scenes import content, journal, with_points
from tests.reconcile.world import World

LIMITS = {"noProgressSeconds": 30, "deadlineSeconds": 600}


def calls(host: SimulatedHost, name: str) -> int:
    return sum(call.name == name for call in host.faults.changes)


async def given_up(world: World, *words: str) -> None:
    """Wait until b says so."""
    await world.until(lambda: (words or ("given up",))[-1] in world.condition("b")[2], 120)
    await world.says("b", "NotConverging", *words)


async def gone_within(world: World, seconds: float) -> None:
    await world.until(lambda: world.object("b") is None, seconds)


async def outrun(world: World, *, written: int = 1, **convergence: int) -> tuple[SimulatedHost, str]:
    """Points a and b; b is being merged away by an active commit that copies nothing, though the guest wrote
    so many clusters."""
    host, uuid = await with_points(
        world, "a", "b", merge={"direction": "Commit", "convergence": {**LIMITS, **convergence}}
    )
    for cluster in range(written):
        host.guest_write(uuid, "vda", 99 + cluster, 99)
    host.auto = False
    world.delete("b")
    await world.until(lambda: host.jobs(uuid))
    return host, uuid


async def test_a_commit_without_progress_is_given_up_and_tried_again_with_growing_patience(
    world: World,
) -> None:
    host, uuid = await outrun(world)
    before = host.visible(uuid, "vda")
    await given_up(world, "30 s without progress", "noProgressSeconds", "tried once")
    assert not host.jobs(uuid)
    assert host.visible(uuid, "vda") == before, "the guest sees a difference"
    assert journal(host, uuid).disk("vda").operation is None
    assert content(world, host, uuid, "a") == {1: 1}
    assert (calls(host, "commit"), calls(host, "abort"), calls(host, "pivot")) == (1, 1, 0)

    await world.until(lambda: calls(host, "commit") == 2, 60)
    await given_up(world, "tried 2 times")
    await asyncio.sleep(55)
    assert calls(host, "commit") == 2, "it does not wait longer after another try"
    await world.until(lambda: calls(host, "commit") == 3, 60)

    host.finish_jobs(uuid)  # the guest rests
    await gone_within(world, 30)
    assert content(world, host, uuid, "a") == {1: 1}
    assert host.visible(uuid, "vda") == before


async def test_the_deadline_ends_a_commit_that_comes_nearer_all_the_time(world: World) -> None:
    host, uuid = await outrun(world, written=200, deadlineSeconds=100, noProgressSeconds=50)
    for _ in range(8):
        await asyncio.sleep(10)
        host.advance(3, uuid)
    assert host.jobs(uuid)
    await given_up(world, "100 s", "deadlineSeconds")
    assert not host.jobs(uuid)


async def test_a_restart_forgets_the_patience_and_nothing_else(world: World) -> None:
    host, uuid = await outrun(world)
    await asyncio.sleep(20)
    await world.crash()
    await world.start()
    await asyncio.sleep(20)
    assert host.jobs(uuid), "the time before the restart was counted, though nobody saw its progress"
    await given_up(world, "30 s without progress")
    await world.crash()
    host.auto = True
    await world.start()
    await gone_within(world, 10)


@pytest.mark.parametrize("side", [Side.BEFORE, Side.AFTER])
async def test_killed_as_a_commit_is_given_up(world: World, side: Side) -> None:
    host, uuid = await outrun(world)
    before = host.visible(uuid, "vda")
    (host.kill_before if side is Side.BEFORE else host.kill_after)(1, on="abort")
    await world.until(lambda: host.faults.struck, 120)
    await world.crash()
    host.faults.forget()
    await world.start()
    if side is Side.BEFORE:
        await given_up(world)
    host.auto = True
    host.finish_jobs(uuid)
    await gone_within(world, 120)
    assert content(world, host, uuid, "a") == {1: 1}
    assert host.visible(uuid, "vda") == before
    assert journal(host, uuid).disk("vda").operation is None


async def test_points_are_taken_while_a_commit_that_was_given_up_waits(world: World) -> None:
    host, uuid = await outrun(world)
    await given_up(world)
    host.auto = True
    world.snapshot("c")
    await world.ready("c")
    await gone_within(world, 10)  # its range no longer reaches the layer that the guest writes to
    assert content(world, host, uuid, "a") == {1: 1}


async def test_a_job_that_was_given_up_is_told_of_in_an_event(world: World) -> None:
    await outrun(world)
    await given_up(world)
    await world.until(lambda: world.events("NotConverging"), 30)
    assert "30 s without progress" in world.events("NotConverging")[0]
