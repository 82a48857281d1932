"""Who else uses an image is not known: nothing is written to it, and the objects say what cannot be read."""

from __future__ import annotations

import pytest

from controller.chain.source import Source
from controller.hypervisor.errors import NotListable
from controller.hypervisor.simulated import DiskDefinition, SimulatedHost
from tests.reconcile.scenes import web, with_points
from tests.reconcile.world import World

DENIED = NotListable("directory /images cannot be listed: cannot open directory '/images': Permission denied")


def merges(host: SimulatedHost) -> list[str]:
    return [call.name for call in host.faults.changes if call.name in {"commit", "pull"}]


async def test_b16_a_merge_waits_while_the_place_of_its_image_cannot_be_listed(world: World) -> None:
    """B16: an image beside the one that would be written to may stand on it."""
    host, _ = await with_points(world, "a")
    host.storage.unlistable["file:/images/"] = DENIED
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
    host.storage.unlistable["file:/images/"] = DENIED
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


async def test_b9_a_machine_that_hangs_holds_up_no_other_whose_images_are_its_own(world: World) -> None:
    """B9: libvirt 11.0 to 11.4. What it last said counts; its own objects name it."""
    host, _ = await with_points(world, "a")
    hung = web(host, "hung-1")
    world.snapshot("of-hung", "hung-1")
    await world.ready("of-hung")
    world.snapshot("b")
    await world.ready("b")
    world.delete("b")
    await world.until(lambda: world.object("b") is None, 130)
    host.hang(hung)
    world.delete("a")
    world.snapshot("c")
    await world.until(lambda: world.object("a") is None and world.is_ready("c"), 60)
    world.delete("of-hung")
    await world.says("of-hung", "Failed", "has not answered")
    host.unhang(hung)
    await world.until(lambda: world.object("of-hung") is None, 130)


async def test_b9_a_machine_of_which_nothing_is_known_is_named_by_those_who_wait_for_it(world: World) -> None:
    """B9: it may use any image here; points are taken all the while."""
    host, _ = await with_points(world, "a")
    hung = web(host, "hung-1")
    host.hang(hung)
    world.delete("a")
    await world.says("a", "UsersUnknown", "machine hung-1", "web-1.qcow2", "this waits for it")
    world.snapshot("b")
    await world.ready("b")
    assert not merges(host)
    host.unhang(hung)
    await world.until(lambda: world.object("a") is None, 10)


async def test_who_uses_an_image_beside_device_nodes_is_unknown(world: World) -> None:
    """Its directory is never listed: points are taken, and their merge waits."""
    host = world.host()
    world.policy()
    base = Source.file("/run/images/web-1.qcow2")
    uuid = host.add_domain("web-1", [DiskDefinition.of("vda", base)])
    await world.start()
    for name in ("a", "b"):
        world.snapshot(name)
        await world.ready(name)
    world.delete("a")
    await world.says("a", "UsersUnknown", "/run may hold device nodes", "move")
    assert len(world.chain(host, uuid)) == 3
