"""B11: merges by hand while no controller runs, told apart by when images were written to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from controller.hypervisor.simulated import SimulatedHost
from tests.reconcile.chain_scenes import commit_by_hand, label
from tests.reconcile.world import World, base_image

HOUR = timedelta(hours=1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.stop()


async def three_points(world: World) -> tuple[SimulatedHost, str, list[dict[int, int]]]:
    """A chain of four, the controller stopped; and what each point held, the oldest first."""
    host = world.host()
    world.policy()
    uuid = host.add_domain("web-1", {"vda": base_image("web-1")})
    await world.start()
    held = []
    for number, name in enumerate("abc"):
        host.guest_write(uuid, "vda", number, number + 1)
        world.snapshot(name)
        await world.ready(name)
        held.append(host.visible(uuid, "vda"))
    await world.stop()
    return host, uuid, held


def written(world: World, host: SimulatedHost, uuid: str, *offsets: timedelta | None) -> None:
    """When the images were written to last, the upper first; None: it cannot be told."""
    process = host.machine(uuid).process
    assert process is not None
    nodes = process.disks["vda"].nodes
    for node, offset in zip(nodes, offsets, strict=True):
        if offset is not None:
            host.storage.written[node.key] = world.now() + offset


def point(world: World, host: SimulatedHost, uuid: str, name: str) -> dict[int, int]:
    source = world.object(name)["status"]["layer"]["source"]
    return dict(host.point(uuid, "vda", f"file:{source}"))


async def test_it_went_down(world: World) -> None:
    host, uuid, held = await three_points(world)
    await commit_by_hand(host, uuid, 1, 2)
    host.finish_jobs()
    written(world, host, uuid, HOUR, HOUR, -HOUR)
    await world.start()
    await world.says("b", "Lost", stalled=True)
    await world.ready("a", "c")
    assert [point(world, host, uuid, name) for name in "ac"] == [held[0], held[2]]


async def test_it_went_up(world: World) -> None:
    host, uuid, held = await three_points(world)
    await host.by_hand().pull(uuid, "vda", base=label(host, uuid, 2), relative=False, bandwidth=0)
    host.finish_jobs()
    written(world, host, uuid, HOUR, -HOUR, -HOUR)
    await world.start()
    await world.says("c", "Lost", stalled=True)
    await world.ready("a", "b")
    assert [point(world, host, uuid, name) for name in "ab"] == held[:2]


@pytest.mark.parametrize("times", [(HOUR, HOUR, HOUR), (HOUR, None, -HOUR), (None, None, None)])
async def test_what_cannot_be_told_is_lost(world: World, times: tuple[timedelta | None, ...]) -> None:
    """A wrong point is worse than none."""
    host, uuid, held = await three_points(world)
    await commit_by_hand(host, uuid, 1, 2)
    host.finish_jobs()
    written(world, host, uuid, *times)
    await world.start()
    await world.says("b", "Lost", stalled=True)
    await world.says("c", "Lost", stalled=True)
    await world.ready("a")
    assert point(world, host, uuid, "a") == held[0]


async def test_nobody_asks_when_nothing_happened(world: World) -> None:
    host, _, _ = await three_points(world)
    await world.start()
    await world.ready("a", "b", "c")
    assert not [call for call in host.faults.calls if call.name == "written"]
