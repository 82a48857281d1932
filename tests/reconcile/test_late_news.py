"""Watch events that come late: after the answers to our own writes, and after what they tell of is over.

Everywhere else in these tests an event is there before the write that caused it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controller.kube.kinds import VOLUME_SNAPSHOT
from tests.reconcile.scenes import web, with_points
from tests.reconcile.world import NAMESPACE, World


@pytest.fixture(params=[0.0001, 0.02, 3.0])
async def late(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(watch_lag=request.param)
    yield world
    await world.stop()
    world.check_writes()


async def test_a_whole_life(late: World) -> None:
    host = late.host()
    late.policy()
    uuid = web(host)
    await late.start()
    for number, name in enumerate("abc", 1):
        host.guest_write(uuid, "vda", number, number)
        late.snapshot(name)
        await late.until(lambda name=name: late.is_ready(name), 30)
    await late.told()
    late.kube.forget_calls()
    await asyncio.sleep(20)
    assert not late.kube.writes, "echoes are no news"
    for name in "bca":
        late.delete(name)
    await late.until(lambda: not any(map(late.object, "abc")), 60)
    assert late.chain(host, uuid) == ["web-1.qcow2"]
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 3: 3}
    assert len(host.storage.images) == 1
    await asyncio.sleep(20)
    assert late.engine is not None
    assert not late.engine._context.store.snapshots


async def test_an_object_that_is_made_anew_again_and_again(late: World) -> None:
    host = late.host()
    late.policy()
    uuid = web(host)
    await late.start()
    for _ in range(4):
        late.snapshot("a")
        await late.until(lambda: late.is_ready("a"), 30)
        late.delete("a")
        await late.until(lambda: late.object("a") is None, 30)
    late.snapshot("a")
    await late.until(lambda: late.is_ready("a"), 30)
    await asyncio.sleep(20)
    assert late.is_ready("a")
    assert len(late.chain(host, uuid)) == 2


async def test_an_object_that_is_deleted_before_anybody_heard_of_it(late: World) -> None:
    host = late.host()
    late.policy()
    uuid = web(host)
    await late.start()
    for wait in (0.0, 0.001, late.watch_lag, late.watch_lag + 0.001):
        late.snapshot("a")
        await asyncio.sleep(wait)
        late.delete("a")
        await late.until(lambda: late.object("a") is None, 30)
    await asyncio.sleep(20)
    assert late.chain(host, uuid) == ["web-1.qcow2"]
    assert len(host.storage.images) == 1


async def test_what_happens_while_the_first_status_is_written(late: World) -> None:
    """The domain appears between the look for it and the report that it is not there."""
    host = late.host()
    late.policy()
    await late.start()

    def hook(call: Any, phase: str) -> None:
        if call.verb == "status" and call.kind == VOLUME_SNAPSHOT and phase == "before":
            late.kube.hook = None
            web(host)

    late.kube.hook = hook
    late.snapshot("a")
    await late.until(lambda: late.kube.hook is None, 10)
    await late.until(lambda: late.is_ready("a"), 1)


async def test_what_somebody_changes_while_we_write(late: World) -> None:
    """Our write's answer holds the change; the watch's event of it is older, and looks like an echo."""
    host = late.host()
    late.policy()
    uuid = web(host)
    await late.start()

    def hook(call: Any, phase: str) -> None:
        if call.verb == "status" and call.name == "b" and phase == "before":
            late.kube.hook = None
            late.delete("b")

    for name in "ab":
        late.kube.hook = hook
        late.snapshot(name)
    await late.until(lambda: late.is_ready("a") and late.object("b") is None, late.watch_lag + 1)
    assert len(late.chain(host, uuid)) == 2
    late.kube.hook = lambda call, phase: (
        late.edit("c", suspend=True) if call.verb == "status" and phase == "before" else None
    )
    late.snapshot("c")
    await late.until(lambda: late.condition("c", "Ready")[0])
    late.kube.hook = None
    await late.until(lambda: _generation_seen(late, "c"), late.watch_lag + 1)


def _generation_seen(world: World, name: str) -> bool:
    raw = world.object(name)
    return raw is not None and raw["status"]["observedGeneration"] == raw["metadata"]["generation"]


async def test_an_event_that_is_doubled_or_old(world: World) -> None:
    host, uuid = await with_points(world)
    seen: list[Any] = []
    world.kube.subscribe(lambda kind, event, raw: seen.append((kind, event, raw)))
    world.snapshot("a")
    await world.ready("a")
    world.snapshot("b")
    await world.ready("b")
    world.delete("b")
    await world.gone("b")
    await world.told()
    host.faults.forget()
    world.kube.forget_calls()
    assert world.engine is not None
    for news in (*seen, *reversed(seen)):
        if news[2]["metadata"]["name"] != "b":
            world.engine.on_object(*news)
    await asyncio.sleep(60)
    assert not host.faults.changes
    assert not world.kube.writes
    assert world.is_ready("a")
    assert len(world.chain(host, uuid)) == 2


async def test_an_object_that_is_only_thought_to_be_there_is_not_taken(world: World) -> None:
    """The watch broke before it told of the deletion."""
    host, uuid = await with_points(world)
    assert world.engine is not None
    world._unsubscribe()
    world._unsubscribe = None
    raw = world.snapshot("a")
    world.kube.delete(VOLUME_SNAPSHOT, NAMESPACE, "a")
    world.engine.on_object(VOLUME_SNAPSHOT, None, raw)
    await asyncio.sleep(60)
    assert len(world.chain(host, uuid)) == 1
    assert not host.faults.changes
