"""B14: what is worth a write. An idle fleet writes nothing, however its guests fill their disks."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import Any

import pytest

from controller.hypervisor.simulated.image import CLUSTER_BYTES
from controller.reconcile.fleet import COUNTS_SECONDS
from controller.reconcile.news import is_news
from tests.reconcile.scenes import web, with_points
from tests.reconcile.test_space import HOME
from tests.reconcile.world import World

MIB = 1 << 20
GIB = 1 << 30

STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "depth": 2,
    "totalBytes": 300 * MIB,
    "layers": [
        {"source": "/i/top", "index": 1, "capacityBytes": GIB, "allocatedBytes": 100 * MIB},
        {"source": "/i/base", "index": 2, "capacityBytes": GIB, "allocatedBytes": 200 * MIB},
    ],
    "plan": {"hash": "aa", "steps": [{"kind": "Commit", "bytes": 100 * MIB}]},
    "conditions": [{"type": "Ready", "status": "False", "reason": "Queued", "message": "1 of 4 run"}],
}


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    found = deepcopy(STATUS)
    node: Any = found
    for name in path[:-1]:
        node = node[name]
    if to is None:
        del node[path[-1]]
    else:
        node[path[-1]] = to
    return found


TOP = ("layers", 0, "allocatedBytes")


@pytest.mark.parametrize(
    ("after", "news"),
    [
        (STATUS, False),
        (changed(*TOP, to=100 * MIB + 4096), False),
        (changed(*TOP, to=199 * MIB), False),
        (changed(*TOP, to=200 * MIB), True),
        (changed(*TOP, to=51 * MIB), False),
        (changed(*TOP, to=50 * MIB), True),
        (changed(*TOP, to=None), True),
        (changed("totalBytes", to=599 * MIB), False),
        (changed("totalBytes", to=600 * MIB), True),
        (changed("plan", "steps", 0, "bytes", to=150 * MIB), False),
        (changed("plan", "steps", 0, "bytes", to=200 * MIB), True),
        (changed("plan", "steps", 0, "kind", to="Pull"), True),
        (changed("plan", "hash", to="ab"), True),
        (changed("plan", to=None), True),
        (changed("depth", to=3), True),
        (changed("layers", 0, "index", to=7), True),
        (changed("layers", to=STATUS["layers"][:1]), True),
        (changed("conditions", 0, "message", to="2 of 4 run"), True),
        (changed("observedGeneration", to=2), True),
    ],
)
def test_what_is_news(after: dict[str, Any], news: bool) -> None:
    assert is_news(STATUS, after) is news
    assert is_news(after, STATUS) is news


def test_a_small_image_that_doubles_is_no_news() -> None:
    assert not is_news({"allocatedBytes": 196608}, {"allocatedBytes": 15 * MIB})
    assert is_news({"allocatedBytes": 196608}, {"allocatedBytes": 16 * MIB})
    assert not is_news({}, {"allocatedBytes": MIB})


def test_an_image_that_comes_near_its_capacity_is_news() -> None:
    def image(allocated: int) -> dict[str, int]:
        return {"capacityBytes": GIB, "allocatedBytes": allocated}

    assert not is_news(image(800 * MIB), image(890 * MIB))
    assert is_news(image(890 * MIB), image(900 * MIB))
    assert not is_news(image(900 * MIB), image(1000 * MIB))


@pytest.mark.parametrize(("reason", "news"), [("InsufficientSpace", False), ("ChainTooLong", True)])
def test_what_is_measured_at_each_look_is_no_news(reason: str, news: bool) -> None:
    """Free bytes are another number at each look. Whatever else a message counts is meant."""

    def told(number: int) -> dict[str, Any]:
        return {"conditions": [{"type": "Ready", "reason": reason, "message": f"{number} bytes free"}]}

    assert is_news(told(1000), told(1001)) is news


# The whole engine ----------------------------------------------------------------------------------------


async def resyncs(world: World, count: int) -> None:
    """Each in its full length: a period of 3600 s, and the half of it in which its work is spread."""
    await asyncio.sleep(3600 * 1.65 * count)
    await world.settled()


async def test_guests_that_fill_their_disks_cost_no_writes(world: World) -> None:
    """B14: an active layer that grows all the time, looked at at each of many resyncs."""
    host, uuid = await with_points(world, "a", "b")
    host.guest_write(uuid, "vda", 0, 1)
    await world.told()
    world.kube.forget_calls()
    host.faults.forget()
    for cluster in range(30):
        host.guest_write(uuid, "vda", 100 + cluster, 1)
        await resyncs(world, 1)
    assert len([call for call in host.faults.calls if call.name == "read"]) >= 30
    assert not world.kube.writes, [call for call in world.kube.calls if call.writes]


async def test_what_a_guest_wrote_is_told_when_it_has_doubled_and_with_what_else_is_written(
    world: World,
) -> None:
    host, uuid = await with_points(world, "a")
    await world.told()

    def told() -> int:
        raw = world.chain_object("web-1-vda")
        assert raw is not None
        return int(raw["status"]["layers"][0]["allocatedBytes"])

    world.kube.forget_calls()
    before = told()
    for cluster in range(16 * MIB // CLUSTER_BYTES):
        host.guest_write(uuid, "vda", cluster, 1)
    await resyncs(world, 1)
    assert world.kube.writes == {"status": 1}
    assert told() >= 16 * MIB > 2 * before
    world.kube.forget_calls()
    host.guest_write(uuid, "vda", 10_000, 1)
    await resyncs(world, 3)
    assert not world.kube.writes
    at_rest = told()
    world.snapshot("b", disk="vda")
    await world.ready("b")
    await world.told()
    raw = world.chain_object("web-1-vda")
    assert raw is not None
    assert raw["status"]["layers"][1]["allocatedBytes"] > at_rest


async def test_machines_that_come_and_go_are_counted_once_in_a_while(world: World) -> None:
    """B14: who starts a machine does not ask for a write to the cluster."""
    host, _ = await with_points(world, "a")
    others = [web(host, f"other-{number}", running=False) for number in range(10)]
    await asyncio.sleep(COUNTS_SECONDS + 1)
    await world.told()
    assert world.hypervisor("host-a")["status"]["domains"] == {"total": 11, "running": 1}
    world.kube.forget_calls()
    for uuid in others:
        host.start(uuid)
        await asyncio.sleep(10)
    assert len(world.kube.writes) <= 1
    await asyncio.sleep(COUNTS_SECONDS)
    assert world.kube.writes == {"status": 1}
    assert world.hypervisor("host-a")["status"]["domains"] == {"total": 11, "running": 11}


async def test_too_little_space_is_told_once(world: World) -> None:
    """B14: how much is missing is another number at each look."""
    host, _ = await with_points(world, "a", minFreeBytes=GIB, merge={"direction": "Commit"})
    host.free[HOME] = GIB - 1
    await asyncio.sleep(31)
    world.delete("a")
    await world.says("a", "InsufficientSpace", str(GIB - 1))
    await world.told()
    world.kube.forget_calls()
    host.faults.forget()
    for number in range(20):
        host.free[HOME] -= 1000 + number
        await asyncio.sleep(61)
    assert [call for call in host.faults.calls if call.name == "surroundings"]
    assert not world.kube.writes
