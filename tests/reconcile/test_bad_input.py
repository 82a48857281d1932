"""Wrong or impossible wishes: each ends in a condition that says what is wrong and what to do, changes
nothing on the host, and heals by itself when the cause goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.chain.source import Source
from controller.hypervisor.driver import Pool
from controller.hypervisor.simulated import DiskDefinition
from controller.kube.kinds import VOLUME_SNAPSHOT_CLASS
from tests.reconcile.scenes import (
    ready_within,
    unchanged,
    web,
    with_points,
)
from tests.reconcile.world import World, base_image

# What is not there -------------------------------------------------------------------------------------


async def test_a_domain_that_does_not_exist(world: World) -> None:
    host = world.host()
    world.policy()
    await world.start()
    world.snapshot("a")
    await world.says("a", "DomainNotFound", "a domain named web-1", "define the domain")
    assert world.condition("a", "Resolved")[:2] == ("False", "DomainNotFound")
    unchanged(host)
    web(host)
    await ready_within(world, 1, "a")


async def test_a_disk_that_does_not_exist(world: World) -> None:
    host, uuid = await with_points(world)
    world.snapshot("a", disk="vdb")
    await world.says("a", "DiskNotFound", "web-1 has no disk vdb", "virsh domblklist")
    unchanged(host)
    host.storage.create(Source.file("/images/second.qcow2"), capacity=1 << 20)
    host.attach(uuid, DiskDefinition.of("vdb", Source.file("/images/second.qcow2")))
    await ready_within(world, 60, "a")  # plugging a disk in has no event here


async def test_a_hypervisor_that_does_not_exist(world: World) -> None:
    world.policy()
    await world.start()
    world.snapshot("a", source={"domain": "web-1", "disk": "vda", "hypervisor": "host-a"})
    await world.says("a", "HypervisorNotFound", "no Hypervisor host-a", "kubectl get hypervisors")
    web(world.host())
    await ready_within(world, 1, "a")


async def test_no_hypervisor_at_all(world: World) -> None:
    await world.start()
    world.snapshot("a")
    await world.says("a", "HypervisorNotFound", "there is no Hypervisor", "administrator")
    web(world.host())
    await ready_within(world, 1, "a")


async def test_a_class_that_does_not_exist(world: World) -> None:
    host = world.host()
    web(host)
    await world.start()
    world.snapshot("a", volumeSnapshotClassName="gold")
    await world.says("a", "ClassNotFound", "no VolumeSnapshotClass gold", "make it")
    unchanged(host)
    world.policy("gold", default=False)
    await ready_within(world, 1, "a")


async def test_two_default_classes(world: World) -> None:
    host = world.host()
    web(host)
    world.policy("bronze")
    world.policy("gold")
    await world.start()
    world.snapshot("a")
    await world.says("a", "ClassNotFound", "bronze, gold", "leave one")
    unchanged(host)
    world.kube.delete(VOLUME_SNAPSHOT_CLASS, None, "bronze")
    await ready_within(world, 1, "a")


async def test_a_second_default_class_takes_nothing_away(world: World) -> None:
    """A point that is held needs no policy before it is deleted."""
    host = world.host()
    web(host)
    world.policy("bronze")
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    await world.settled()
    host.faults.forget()
    world.policy("gold")
    await world.settled()
    assert world.is_ready("a")
    world.delete("a")
    await world.says("a", "ClassNotFound", "bronze, gold", "leave one")
    unchanged(host)
    world.kube.delete(VOLUME_SNAPSHOT_CLASS, None, "bronze")
    await world.gone("a")


async def test_no_class_at_all_means_the_built_in_values(world: World) -> None:
    web(world.host())
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    world.delete("a")
    await world.gone("a")


# What is not one ---------------------------------------------------------------------------------------


async def test_a_name_that_two_domains_have(world: World) -> None:
    here, there = world.host("host-a"), world.host("host-b")
    world.policy()
    here_uuid, there_uuid = web(here), web(there)
    await world.start()
    world.snapshot("a")
    await world.says("a", "DomainAmbiguous", here_uuid, there_uuid, "spec.source.hypervisor", stalled=True)
    unchanged(here, there)
    there.shutdown(there_uuid)
    there.undefine(there_uuid)
    await ready_within(world, 1, "a")
    unchanged(there)


async def test_naming_the_hypervisor_or_the_uuid_decides(world: World) -> None:
    here, there = world.host("host-a"), world.host("host-b")
    world.policy()
    web(here)
    uuid = web(there)
    await world.start()
    world.snapshot("a", source={"domain": "web-1", "disk": "vda", "hypervisor": "host-b"})
    world.snapshot("b", source={"domainUUID": uuid, "disk": "vda"})
    await world.ready("a", "b")
    unchanged(here)


# Disks that cannot have points -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (DiskDefinition("sda", (), device="cdrom", readonly=True), "no medium"),
        (DiskDefinition.of("sda", Source.file("/images/extra.qcow2")), "read-only"),
        (DiskDefinition.of("sda", Source.file("/images/extra.qcow2")), "shareable"),
        (replace(DiskDefinition.of("sda", Source.file("/images/extra.qcow2")), device="cdrom"), "cdrom"),
    ],
    ids=["empty drive", "read-only", "shareable", "CD-ROM"],
)
async def test_a_disk_that_cannot_have_points(world: World, bad: DiskDefinition, words: str) -> None:
    host = world.host()
    world.policy()
    bad = replace(bad, readonly=bad.readonly or words == "read-only", shareable=words == "shareable")
    uuid = host.add_domain("web-1", [DiskDefinition.of("vda", base_image("web-1")), bad])
    await world.start()
    world.snapshot("a", disk="sda")
    await world.says("a", "DiskUnsupported", "disk sda", words, "name another disk", stalled=True)
    unchanged(host)
    host.detach(uuid, "sda")
    host.storage.create(Source.file("/images/good.qcow2"), capacity=1 << 20)
    host.attach(uuid, DiskDefinition.of("sda", Source.file("/images/good.qcow2")))
    await ready_within(world, 60, "a")


async def test_a_disk_with_no_place_beside_it(world: World) -> None:
    host = world.host()
    host.pools["fast"] = Pool("fast", "dir", path="/pool")
    world.policy()
    export = Source.network("nbd", "export")
    host.add_domain("web-1", [DiskDefinition.of("vda", export, "raw")])
    await world.start()
    world.snapshot("a")
    await world.says("a", "OverlayRequired", "nbd", "spec.overlay.directory", "the class", stalled=True)
    unchanged(host)
    world.kube.edit(
        VOLUME_SNAPSHOT_CLASS, None, "standard", lambda raw: raw["spec"].update(overlay={"pool": "fast"})
    )
    await ready_within(world, 1, "a")
    assert any(key.startswith("file:/pool/web-1.vda.varve-") for key in host.storage.images)


async def test_a_pool_that_does_not_exist(world: World) -> None:
    host, _ = await with_points(world)
    world.snapshot("a", overlay={"pool": "fast"})
    await world.says("a", "OverlayRequired", "overlay.pool fast", stalled=True)
    unchanged(host)
    host.pools["fast"] = Pool("fast", "dir", path="/pool")
    await ready_within(world, 60, "a")


# The machine -------------------------------------------------------------------------------------------


async def test_a_machine_that_is_shut_off(world: World) -> None:
    host = world.host()
    world.policy()
    uuid = web(host, running=False)
    await world.start()
    world.snapshot("a")
    await world.says("a", "WaitingForDomain", "web-1 is shut off", "virsh start web-1")
    unchanged(host)
    host.start(uuid)
    await ready_within(world, 1, "a")


async def test_a_point_of_a_machine_that_was_shut_off_since_is_deleted_when_it_runs(world: World) -> None:
    host, uuid = await with_points(world, "a")
    host.shutdown(uuid)
    await world.settled()
    assert world.is_ready("a")
    host.faults.forget()
    world.delete("a")
    await world.says("a", "WaitingForDomain", "virsh start web-1")
    unchanged(host)
    host.start(uuid)
    await world.until(lambda: world.object("a") is None, 1)
    assert len(world.chain(host, uuid)) == 1


# Names -------------------------------------------------------------------------------------------------


async def test_names_of_253_characters(world: World) -> None:
    long = "x" * 253
    host = world.host(long)
    world.policy(long)
    uuid = host.add_domain(long, {"vda": base_image("web-1")})
    await world.start()
    world.snapshot(long, domain=long)
    await world.ready(long)
    assert all(len(name) <= 255 for name in world.chain(host, uuid))
    world.delete(long)
    await world.gone(long)
    assert len(world.chain(host, uuid)) == 1


async def test_long_names_in_a_refusal(world: World) -> None:
    long = "ü" * 253
    world.host("x" * 253)
    world.policy()
    await world.start()
    world.snapshot("y" * 253, domain=long)
    message = await world.says("y" * 253, "DomainNotFound")
    assert len(message) <= 1024


async def test_a_domain_name_of_253_wide_characters(world: World) -> None:
    long = "名" * 253
    host = world.host()
    world.policy()
    uuid = host.add_domain(long, {"vda": base_image("web-1")})
    await world.start()
    world.snapshot("a", domain=long)
    await world.ready("a")
    assert all(len(name.encode()) <= 255 for name in world.chain(host, uuid))
