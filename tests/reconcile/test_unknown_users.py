"""Who else uses an image is not known: nothing is written to it, and the objects say what cannot be read."""

from __future__ import annotations

import pytest

from controller.hypervisor.simulated import SimulatedHost
from tests.reconcile.scenes import with_points
from tests.reconcile.world import World


def merges(host: SimulatedHost) -> list[str]:
    return [call.name for call in host.faults.changes if call.name in {"commit", "pull"}]


async def test_b16_a_merge_waits_while_the_place_of_its_image_cannot_be_listed(world: World) -> None:
    """B16: an image beside the one that would be written to may stand on it."""
    host, _ = await with_points(world, "a")
    host.storage.unlistable["file:/images/"] = "cannot open directory '/images': Permission denied"
    world.delete("a")
    await world.says("a", "UsersUnknown", "web-1.qcow2", "directory /images", "Permission denied")
    assert not merges(host)
    host.storage.unlistable.clear()
    await world.until(lambda: world.object("a") is None, 130)
    assert len(merges(host)) == 1


async def test_b16_a_place_that_goes_after_the_merge_leaves_the_image_and_lets_the_object_go(
    world: World,
) -> None:
    """B16: what cannot be listed cannot be removed either; the image is in the inventory."""
    host, _ = await with_points(world, "a")
    host.auto = False
    world.delete("a")
    await world.until(host.jobs)
    host.storage.unlistable["file:/images/"] = "Permission denied"
    host.auto = True
    host.finish_jobs()
    await world.until(lambda: world.object("a") is None, 130)
    await world.until(lambda: world.hypervisor("host-a")["status"].get("orphanImages"))
    left = world.hypervisor("host-a")["status"]["orphanImages"]
    assert left["count"] == 1
    assert "Permission denied" in left["images"][0]["reason"]


@pytest.mark.parametrize("drivers", [frozenset[str](), frozenset({"gluster"})], ids=["none", "not this one"])
async def test_b8_without_storage_drivers_all_works_but_what_needs_them(
    world: World, drivers: frozenset[str]
) -> None:
    """B8: virtqemud without virtstoraged. Points are taken; merges that would write to an image wait."""
    host, _ = await with_points(world, "a")
    host.storage.drivers = drivers
    host.restart_libvirtd()
    await world.until(lambda: "storage-dir" not in world.hypervisor("host-a")["status"]["capabilities"])
    status = world.hypervisor("host-a")["status"]
    assert [one["status"] for one in status["conditions"] if one["type"] == "Ready"] == ["True"]
    missing = {one["name"]: one["broughtBy"] for one in status["missing"]}
    assert "package" in missing["storage" if not drivers else "storage-dir"]
    world.snapshot("b")
    await world.ready("b")
    world.delete("a")
    await world.says("a", "CapabilityMissing", "directory /images", "storage driver", "package", stalled=True)
    assert not merges(host)
    host.storage.drivers = frozenset({"dir"})
    await world.until(lambda: world.object("a") is None, 130)
