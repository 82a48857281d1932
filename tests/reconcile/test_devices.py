"""Disks that come and go while an object waits."""

from __future__ import annotations

from controller.hypervisor.simulated import DiskDefinition
from tests.reconcile.scenes import ready_within, web
from tests.reconcile.world import World, base_image


async def test_b12_a_disk_that_is_waited_for_is_found_when_it_is_plugged_in(world: World) -> None:
    """B12: by its event; without it the next look would be half a minute later."""
    host = world.host()
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("of-vdb", disk="vdb")
    await world.says("of-vdb", "DiskNotFound", "vdb")
    await world.settled()
    host.storage.create(base_image("data"), capacity=1 << 20)
    host.attach(uuid, DiskDefinition.of("vdb", base_image("data")))
    await ready_within(world, 1, "of-vdb")


async def test_b12_a_disk_that_is_unplugged_lets_go_of_its_image(world: World) -> None:
    """B12: a merge that waits for another machine's disk goes on within seconds of its end."""
    host = world.host()
    world.policy(merge={"direction": "Commit"})
    web(host)
    other = host.add_domain("other", {"vda": base_image("other"), "vdb": base_image("web-1")})
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    world.delete("a")
    await world.says("a", "ImageProtected", "vdb of other", stalled=True)
    await world.settled()
    host.detach(other, "vdb")
    await world.until(lambda: world.object("a") is None, 5)
