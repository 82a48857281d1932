"""B17: a commit that fails on a device of fixed size is not tried for ever as it is."""

from __future__ import annotations

import asyncio

from lxml import etree

from controller.chain.source import Source
from controller.hypervisor.simulated import DiskDefinition, SimulatedHost
from tests.reconcile.world import World

BASE = Source.from_element("block", etree.Element("source", dev="/dev/vg/web-1"))
CLUSTER = 65536


async def on_a_device(world: World, room: int) -> tuple[SimulatedHost, str]:
    """Point a on a device of ``room`` bytes; what was written since is in files."""
    host = world.host()
    world.policy(merge={"direction": "Commit"}, overlay={"directory": "/images"})
    uuid = host.add_domain("web-1", [DiskDefinition.of("vda", BASE)])
    host.storage.open(BASE.key).room = room
    host.storage.pooled.add(BASE.key)
    await world.start()
    for name in "ab":
        world.snapshot(name)
        await world.ready(name)
        for cluster in range(20):
            host.guest_write(uuid, "vda", cluster, 1)
    await world.settled()
    host.faults.forget()
    return host, uuid


def begun(host: SimulatedHost) -> int:
    """Jobs; libvirt refuses to keep names relative that are absolute, so each begins with a second call."""
    return sum(call.name == "commit" and not call.arguments["relative"] for call in host.faults.calls)


async def test_one_that_is_too_small_is_not_begun(world: World) -> None:
    host, uuid = await on_a_device(world, 10 * CLUSTER)
    world.delete("a")
    await world.says("a", "UnsupportedTopology", "/dev/vg/web-1", "enlarge", stalled=True)
    assert not begun(host)
    host.storage.open(BASE.key).room = 100 * CLUSTER
    await world.until(lambda: world.object("a") is None, 60)
    assert host.visible(uuid, "vda") == dict.fromkeys(range(20), 1)


async def test_one_that_fails_is_tried_less_and_less_and_a_person_is_called(world: World) -> None:
    host, uuid = await on_a_device(world, 0)
    host.auto = False

    async def fail() -> None:
        while True:
            if host.jobs(uuid):
                host.fail_job(uuid, "vda")
            await asyncio.sleep(0.05)

    failing = asyncio.ensure_future(fail())
    world.delete("a")
    await world.until(lambda: world.condition("a")[1] == "UnsupportedTopology", 120)
    await world.says("a", "UnsupportedTopology", "3 times", "No space left", "lvextend", stalled=True)
    assert begun(host) == 3
    await asyncio.sleep(1800)
    assert 4 <= begun(host) <= 8
    world.snapshot("c")
    await world.ready("c")  # it holds up nothing else
    failing.cancel()
    host.auto = True
    host.storage.open(BASE.key).room = 1 << 40
    await world.until(lambda: world.object("a") is None, 60)
