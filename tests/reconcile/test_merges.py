"""How merges are paced, and what they never write to."""

from __future__ import annotations

import asyncio

from controller.chain.source import Source
from tests.reconcile.scenes import (
    content,
    web,
    with_points,
)
from tests.reconcile.world import World, base_image

# Pace --------------------------------------------------------------------------------------------------


async def test_deletions_that_settle_share_one_job(world: World) -> None:
    host, uuid = await with_points(
        world, "a", "b", "c", "d", merge={"settleSeconds": 5, "direction": "Commit"}
    )
    world.delete("b")
    await world.says("b", "Settling", "5 s")
    await asyncio.sleep(2)
    world.delete("c")
    await asyncio.sleep(2)
    assert not host.jobs(uuid)
    await world.gone("b", "c")
    begun = [call for call in host.faults.changes if call.name in ("commit", "pull")]
    assert len([call for call in begun if not call.arguments["relative"]]) == 1
    assert content(world, host, uuid, "a") == {1: 1}
    assert content(world, host, uuid, "d") == {1: 1, 2: 2, 3: 3, 4: 4}


async def test_no_more_merges_at_once_than_the_class_allows(world: World) -> None:
    host = world.host()
    world.policy(merge={"maxConcurrentPerHypervisor": 2})
    names = [f"web-{number}" for number in range(7)]
    uuids = [web(host, name) for name in names]
    await world.start()
    for name in names:
        world.snapshot(name, domain=name)
    await world.ready(*names)
    for uuid in uuids:
        host.guest_write(uuid, "vda", 1, 1)
    host.auto = False
    for name in names:
        world.delete(name)
    for left in range(7, 0, -1):
        running = min(left, 2)
        await world.until(lambda: len(host.jobs()) == running)  # noqa: B023 - used up in this round
        await asyncio.sleep(3)
        assert len(host.jobs()) == running
        reasons = [world.condition(name)[1] for name in names if world.object(name)]
        assert reasons.count("Queued") == left - running
        ended = host.jobs()[0][0].uuid
        host.finish_jobs(ended)
        await world.until(lambda: not host.jobs(ended), 1)  # noqa: B023 - as above
        await world.until(lambda: sum(map(bool, map(world.object, names))) == left - 1)  # noqa: B023


# What is never written to -------------------------------------------------------------------------------


async def test_a_base_that_another_machine_uses_is_never_written_to(world: World) -> None:
    host = world.host()
    world.policy()
    golden = Source.file("/golden/base.qcow2")
    host.storage.create(golden, capacity=64 << 20, content={7: 7})
    uuid = host.add_domain("web-1", {"vda": golden})
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    host.guest_write(uuid, "vda", 1, 1)
    world.snapshot("b")
    await world.ready("b")
    host.storage.create(
        Source.file("/images/other.qcow2"), capacity=64 << 20, backing=host.storage.images[golden.key]
    )
    other = host.add_domain("other", {"vda": Source.file("/images/other.qcow2")})
    world.delete("a")  # below: only a commit into the base could remove it
    await world.says("a", "ImageProtected", "disk vda of other", "/golden/base.qcow2", stalled=True)
    world.delete("b")  # now the range reaches the active layer: a pull writes to nobody else's image
    await world.gone("a", "b")
    assert host.storage.images[golden.key].clusters == {7: 7}
    assert host.visible(uuid, "vda") == {1: 1, 7: 7}
    assert host.visible(other, "vda") == {7: 7}


async def test_a_base_that_the_class_protects_is_never_written_to(world: World) -> None:
    host = world.host()
    world.policy(protectedImages=["/golden/*"])
    golden = Source.file("/golden/base.qcow2")
    uuid = host.add_domain("web-1", {"vda": golden})
    await world.start()
    world.snapshot("a", overlay={"directory": "/images"})
    await world.ready("a")
    host.guest_write(uuid, "vda", 1, 1)
    world.snapshot("b", overlay={"directory": "/images"})
    await world.ready("b")
    world.delete("a")
    await world.says("a", "ImageProtected", "protectedImages: /golden/*", stalled=True)
    assert world.is_ready("b")
    world.delete("b")
    await world.gone("a", "b")
    assert host.storage.images[golden.key].clusters == {}
    assert host.visible(uuid, "vda") == {1: 1}


async def test_a_base_that_is_only_named_by_an_image_beside_it_is_never_written_to(world: World) -> None:
    host, uuid = await with_points(world, "a", "b", merge={"direction": "Commit"})
    base = host.storage.images[base_image("web-1").key]
    host.storage.create(Source.file("/images/clone.qcow2"), capacity=64 << 20, backing=base)
    before = dict(base.clusters)
    world.delete("a")
    await world.says("a", "ImageProtected", "/images/clone.qcow2", "remove each", stalled=True)
    assert base.clusters == before
    host.storage.images.pop("file:/images/clone.qcow2")
    await world.until(lambda: world.object("a") is None, 120)
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}
