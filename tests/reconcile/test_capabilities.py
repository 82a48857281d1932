"""What a hypervisor can do and lacks, as its status and the objects that need it say."""

from __future__ import annotations

import pytest

from controller.hypervisor.errors import DriverMissing
from controller.hypervisor.simulated import Side
from controller.kube.kinds import HYPERVISOR, Raw
from tests.reconcile.scenes import web, with_points
from tests.reconcile.world import World


def hypervisor(world: World, name: str = "host-a") -> Raw:
    raw = world.kube.object(HYPERVISOR, None, name)
    assert raw is not None
    found: Raw = raw["status"]
    return found


async def test_what_a_hypervisor_lacks_is_told_with_its_cure_and_once(world: World) -> None:
    host = world.host()
    host.storage.drivers = frozenset({"dir"})
    world.policy()
    web(host)
    await world.start()
    await world.until(lambda: hypervisor(world).get("capabilities"))
    found = hypervisor(world)
    assert found["capabilities"] == sorted(found["capabilities"])
    lacks = {one["name"]: one for one in found["missing"]}
    assert sorted(lacks) == ["storage-gluster", "storage-rbd"]
    assert "libvirt-daemon-driver-storage-rbd" in lacks["storage-rbd"]["broughtBy"]
    await world.settled()
    await world.stop()
    world.kube.forget_calls()
    await world.start()
    await world.until(lambda: world.engine is not None and world.engine.ready() is None)
    await world.settled()
    assert not world.kube.writes, "the same is not written again"


@pytest.mark.parametrize("kind", ["take", "merge"])
async def test_a_disk_whose_driver_qemu_lacks_needs_a_person(world: World, kind: str) -> None:
    host, _ = await with_points(world, "a")
    cure = DriverMissing("Unknown driver 'rbd': install package qemu-block-extra", code=1)
    name = "b" if kind == "take" else "a"
    if kind == "take":
        host.storage.refuse("file:/images/web-1.vda", cure)
        world.snapshot("b")
    else:
        host.faults.add(1, Side.BEFORE, cure, on="commit")
        world.delete("a")
    await world.says(name, "CapabilityMissing", "qemu-block-extra", stalled=True)
    host.storage._refusals.clear()
    await world.until(lambda: world.object(name) is None or world.is_ready(name), 130)
