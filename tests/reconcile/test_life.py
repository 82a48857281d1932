"""The user's day on the simulated hypervisor: apply, ready, delete, gone."""

from __future__ import annotations

import pytest

from tests.reconcile.world import World, base_image


async def test_a_point_is_taken_and_merged_away(world: World) -> None:
    host = world.host()
    world.policy()
    uuid = host.add_domain("web-1", {"vda": base_image("web-1")})
    host.guest_write(uuid, "vda", 1, 11)
    await world.start()
    world.snapshot("before")
    await world.ready("before")
    assert len(world.chain(host, uuid)) == 2
    host.guest_write(uuid, "vda", 1, 12)
    world.delete("before")
    await world.gone("before")
    assert world.chain(host, uuid) == ["web-1.qcow2"]
    assert host.visible(uuid, "vda") == {1: 12}
    assert list(host.storage.images) == ["file:/images/web-1.qcow2"]


@pytest.mark.parametrize(
    "order", [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b"), ("c", "b", "a"), ("b", "a", "c")]
)
async def test_points_go_in_any_order(world: World, order: tuple[str, ...]) -> None:
    host = world.host()
    world.policy()
    uuid = host.add_domain("web-1", {"vda": base_image("web-1")})
    await world.start()
    wanted = {}
    for number, name in enumerate(("a", "b", "c")):
        host.guest_write(uuid, "vda", number, number + 10)
        world.snapshot(name)
        await world.ready(name)
        wanted[name] = host.visible(uuid, "vda")
        host.guest_write(uuid, "vda", 0, number + 100)
    content = host.visible(uuid, "vda")
    for name in order:
        world.delete(name)
        await world.gone(name)
        del wanted[name]
        for kept, expected in wanted.items():
            status = world.object(kept)["status"]
            assert status["readyToUse"]
            assert host.point(uuid, "vda", "file:" + status["layer"]["source"]) == expected
        assert host.visible(uuid, "vda") == content
    assert len(world.chain(host, uuid)) == 1


async def test_one_life_costs_few_writes(world: World) -> None:
    host = world.host()
    world.policy()
    host.add_domain("web-1", {"vda": base_image("web-1")})
    await world.start()
    await world.settled()
    world.kube.forget_calls()
    world.snapshot("before")
    await world.ready("before")
    world.delete("before")
    await world.gone("before")
    await world.settled()
    assert sum(world.kube.writes.values()) <= 8, [str(c.verb) for c in world.kube.calls if c.writes]


async def test_nothing_to_do_writes_nothing(world: World) -> None:
    host = world.host()
    world.policy()
    host.add_domain("web-1", {"vda": base_image("web-1")})
    await world.start()
    world.snapshot("before")
    await world.ready("before")
    await world.settled()
    world.kube.forget_calls()
    host.faults.forget()
    for key in [*world.engine._context.store.snapshots, *world.engine._context.store.domains()]:
        world.engine._queue.add(key)
    await world.settled()
    assert host.faults.calls, "the pass did not look"
    assert not host.faults.changes
    assert not world.kube.writes


async def test_a_point_of_an_nvme_disk(world: World) -> None:
    """B15: a target such as libvirt 11.5 has them."""
    host = world.host()
    world.policy()
    uuid = host.add_domain("web-1", {"nvme0n1": base_image("web-1")})
    host.guest_write(uuid, "nvme0n1", 1, 11)
    await world.start()
    world.snapshot("before", disk="nvme0n1")
    await world.ready("before")
    overlay, base = world.chain(host, uuid, "nvme0n1")
    assert overlay.startswith("web-1.nvme0n1.varve-")
    assert base == "web-1.qcow2"
    world.delete("before")
    await world.gone("before")
    assert world.chain(host, uuid, "nvme0n1") == ["web-1.qcow2"]
