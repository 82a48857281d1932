"""Several objects for one disk, machines that are gone, and specs and classes that change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from controller.kube.kinds import VOLUME_SNAPSHOT_CLASS
from tests.reconcile.scenes import (
    ready_within,
    unchanged,
    web,
    with_points,
)
from tests.reconcile.world import World

# Several objects, and changed ones ----------------------------------------------------------------------


@pytest.mark.parametrize("first", ["a", "b"])
async def test_two_objects_for_one_disk_at_once(world: World, first: str) -> None:
    host = world.host()
    world.policy()
    uuid = web(host)
    host.guest_write(uuid, "vda", 1, 1)
    await world.start()
    world.snapshot("a")
    world.snapshot("b")
    await world.ready("a", "b")
    assert 2 <= len(world.chain(host, uuid)) <= 3
    host.guest_write(uuid, "vda", 1, 2)
    kept = {"a": "b", "b": "a"}[first]
    world.delete(first)
    await world.gone(first)
    await world.settled()
    assert world.is_ready(kept)
    layer = world.object(kept)["status"]["layer"]["source"]
    assert host.point(uuid, "vda", f"file:{layer}") == {1: 1}
    world.delete(kept)
    await world.gone(kept)
    assert len(world.chain(host, uuid)) == 1
    assert host.visible(uuid, "vda") == {1: 2}
    assert len(host.storage.images) == 1


async def test_two_objects_for_one_disk_deleted_at_once(world: World) -> None:
    host, uuid = await with_points(world)
    world.snapshot("a")
    world.snapshot("b")
    await world.ready("a", "b")
    world.delete("a")
    world.delete("b")
    await world.gone("a", "b")
    assert len(world.chain(host, uuid)) == 1
    assert len(host.storage.images) == 1


async def test_a_domain_that_is_undefined_below_a_point(world: World) -> None:
    host, uuid = await with_points(world, "a")
    host.shutdown(uuid)
    host.undefine(uuid)
    await world.until(lambda: world.condition("a")[1] == "DomainNotFound", 1)
    assert world.object("a")["status"]["readyToUse"] is not None


async def test_deleting_an_object_whose_machine_is_gone(world: World) -> None:
    host, uuid = await with_points(world, "a")
    image = world.object("a")["status"]["layer"]["source"]
    host.shutdown(uuid)
    host.undefine(uuid)
    host.faults.forget()
    world.delete("a")
    await world.says("a", "DomainNotFound", "a domain named web-1")
    await asyncio.sleep(55)
    assert world.object("a") is not None
    await world.until(lambda: world.object("a") is None, 10)
    unchanged(host)
    await world.settled()
    assert any(image in note for note in world.events("DomainNotFound"))


async def test_a_machine_that_is_gone_for_less_than_60_seconds(world: World) -> None:
    host, uuid = await with_points(world, "a")
    definition = list(host.machine(uuid).definition.values())
    journal = dict(host.machine(uuid).config_metadata)
    host.shutdown(uuid)
    host.undefine(uuid)
    world.delete("a")
    await asyncio.sleep(50)
    assert world.object("a") is not None
    host.define("web-1", definition, uuid)
    host.machine(uuid).config_metadata = journal
    host.start(uuid)
    await world.until(lambda: world.object("a") is None, 1)
    assert len(world.chain(host, uuid)) == 1


async def test_a_machine_that_is_gone_and_a_hypervisor_that_is_away(world: World) -> None:
    host, away = world.host("host-a"), world.host("host-b")
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    away.stop_libvirtd()
    host.shutdown(uuid)
    host.undefine(uuid)
    world.delete("a")
    await asyncio.sleep(300)
    assert world.object("a") is not None
    await world.says("a", "HypervisorUnreachable", "one more cannot be asked")
    away.start_libvirtd()
    await world.until(lambda: world.object("a") is None, 95)


async def test_an_object_that_took_nothing_goes_at_once(world: World) -> None:
    world.host()
    world.policy()
    await world.start()
    world.snapshot("a")
    await world.says("a", "DomainNotFound")
    world.delete("a")
    assert world.object("a") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.edit("a", volumeSnapshotClassName="other"),
        lambda world: world.edit("a", deletionPolicy="Delete"),
        lambda world: world.edit("a", quiesce="Never"),
    ],
    ids=["class", "deletionPolicy", "quiesce"],
)
async def test_a_spec_that_is_changed(world: World, change: Callable[[World], None]) -> None:
    """The new generation is observed; the point stays what it is; deletion follows the new spec."""
    host = world.host()
    world.policy(deletionPolicy="Retain")
    world.policy("other", default=False)
    uuid = web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    created = world.object("a")["status"]["creationTime"]
    host.faults.forget()
    change(world)
    await world.ready("a")
    unchanged(host)
    assert world.object("a")["status"]["creationTime"] == created
    merges = world.object("a")["spec"].get("quiesce") is None
    world.delete("a")
    await world.gone("a")
    assert len(world.chain(host, uuid)) == (1 if merges else 2)


async def test_a_class_that_changes(world: World) -> None:
    host = world.host()
    world.policy(maxLayers=2)
    web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    host.faults.forget()
    world.snapshot("b")
    await world.says("b", "ChainTooLong", "2 layers", "maxLayers", stalled=True)
    assert world.is_ready("a")
    unchanged(host)
    world.kube.edit(VOLUME_SNAPSHOT_CLASS, None, "standard", lambda raw: raw["spec"].update(maxLayers=3))
    await ready_within(world, 1, "b")


async def test_a_field_of_a_later_version_is_refused_not_ignored(world: World) -> None:
    host, _ = await with_points(world)
    world.snapshot("a", quiesce="Required")
    await world.says("a", "InvalidSpec", "write Preferred or Never", stalled=True)
    unchanged(host)


async def test_a_class_that_asks_for_a_field_of_a_later_version(world: World) -> None:
    host = world.host()
    world.policy(quiesce="Required")
    web(host)
    await world.start()
    world.snapshot("a")
    await world.says("a", "InvalidSpec", "write Preferred or Never", stalled=True)
    unchanged(host)
    world.kube.edit(VOLUME_SNAPSHOT_CLASS, None, "standard", lambda raw: raw["spec"].update(quiesce="Never"))
    await ready_within(world, 1, "a")
