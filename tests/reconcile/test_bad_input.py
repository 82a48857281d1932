"""Wrong or impossible wishes: each ends in a condition that says what is wrong and what to do, changes
nothing on the host, and heals by itself when the cause goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.chain.source import Source
from controller.hypervisor.driver import Pool
from controller.hypervisor.errors import Unreachable
from controller.hypervisor.simulated import DiskDefinition, SimulatedHost
from controller.kube.kinds import HYPERVISOR, VOLUME_SNAPSHOT_CLASS
from tests.reconcile.world import NAMESPACE, World, base_image

EVERYBODY = [{"namespaces": ["*"], "domains": ["*"]}]


def web(host: SimulatedHost, name: str = "web-1", **options: Any) -> str:
    return host.add_domain(name, {"vda": base_image(f"{host.hostname}-{name}")}, **options)


async def ready_within(world: World, seconds: float, *names: str) -> None:
    await world.until(lambda: all(world.is_ready(name) for name in names), seconds)


def unchanged(*hosts: SimulatedHost) -> None:
    for host in hosts:
        assert not host.faults.changes


# What is not there -------------------------------------------------------------------------------------


async def test_a_domain_that_does_not_exist(world: World) -> None:
    host = world.host()
    world.policy()
    await world.start()
    world.snapshot("a")
    await world.says("a", "DomainNotFound", "a domain named web-1", "host-a", "define the domain")
    assert world.condition("a", "Resolved")[:2] == ("False", "DomainNotFound")
    unchanged(host)
    web(host)
    await ready_within(world, 1, "a")


async def test_a_disk_that_does_not_exist(world: World) -> None:
    host = world.host()
    world.policy()
    uuid = web(host)
    await world.start()
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
    host = world.host()
    world.policy()
    web(host)
    await world.start()
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
    host = world.host()
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
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


# Access ------------------------------------------------------------------------------------------------


async def test_a_namespace_without_access(world: World) -> None:
    host = world.host(access=[{"namespaces": ["other"], "domains": ["*"]}])
    world.policy()
    web(host)
    await world.start()
    world.snapshot("a")
    await world.says("a", "AccessDenied", f"namespace {NAMESPACE}", "spec.access", stalled=True)
    unchanged(host)
    world.edit_hypervisor("host-a", access=EVERYBODY)
    await ready_within(world, 1, "a")


@pytest.mark.parametrize("by_uuid", [False, True])
@pytest.mark.parametrize("rules", [[], [{"namespaces": ["*"], "domains": ["mine-*"]}]])
async def test_a_refusal_does_not_tell_whether_the_domain_exists(
    world: World, rules: list[Any], by_uuid: bool
) -> None:
    host = world.host(access=rules)
    world.policy()
    uuid = web(host)
    absent = uuid[:-1] + ("0" if uuid[-1] != "0" else "1")
    await world.start()
    told = []
    for name, there, key in (("a", "web-1", uuid), ("b", "web-2", absent)):
        world.snapshot(name, source={"disk": "vda"} | ({"domainUUID": key} if by_uuid else {"domain": there}))
        await world.until(lambda name=name: world.condition(name)[0] == "False", 15)
        told.append([text.replace(there, "X").replace(key, "X") for text in world.condition(name)])
    assert told[0] == told[1]
    unchanged(host)


async def test_access_that_is_taken_away(world: World) -> None:
    """The point stays as it is, and the object says why nobody looks after it."""
    host = world.host()
    world.policy()
    web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    host.faults.forget()
    world.edit_hypervisor("host-a", access=[])
    await world.says("a", "AccessDenied", "spec.access", stalled=True)
    unchanged(host)
    world.edit_hypervisor("host-a", access=EVERYBODY)
    await ready_within(world, 1, "a")


# Hypervisors -------------------------------------------------------------------------------------------


async def test_a_hypervisor_that_refuses_connections(world: World) -> None:
    host = world.host()
    world.policy()
    web(host)
    host.stop_libvirtd()
    await world.start()
    world.snapshot("a")
    await world.says("a", "HypervisorUnreachable", "host-a", "kubectl get hypervisors")
    ready = world.hypervisor("host-a")["status"]["conditions"][0]
    assert (ready["status"], ready["reason"]) == ("False", "HypervisorUnreachable")
    assert "Connection refused" in ready["message"]
    unchanged(host)
    host.start_libvirtd()
    await ready_within(world, 30, "a")


async def test_a_hypervisor_that_hangs(world: World) -> None:
    """It accepts and never answers. Others go on, and it goes on itself when it answers again."""
    hung, other = world.host("host-a"), world.host("host-b")
    world.policy()
    web(hung, "web-1")
    web(other, "web-2")
    connect, answers = hung.connect, False

    async def hang(sink: Any) -> Any:
        if answers:
            return await connect(sink)
        await asyncio.sleep(10)  # the deadline of a connection
        raise Unreachable("no answer within 10 s: the daemon hangs, or something drops its packets")

    hung.connect = hang  # type: ignore[method-assign]
    await world.start()
    world.snapshot("a")
    world.snapshot("b", domain="web-2")
    await ready_within(world, 1, "b")
    await world.until(lambda: world.condition("a")[1] == "HypervisorUnreachable", 15)
    ready = world.hypervisor("host-a")["status"]["conditions"][0]
    assert "no answer within 10 s" in ready["message"]
    unchanged(hung)
    answers = True
    await ready_within(world, 60, "a")


async def test_domains_of_a_hung_hypervisor_do_not_use_up_the_workers(world: World) -> None:
    hung, other = world.host("host-a"), world.host("host-b")
    world.policy()
    names = [f"web-{number}" for number in range(12)]
    for name in names:
        web(hung, name)
    web(other, "db")
    await world.start()
    for name in names:
        world.snapshot(name, domain=name)
    world.snapshot("db", domain="db")
    await world.ready(*names, "db")
    world.delete("db")
    await world.gone("db")
    [driver] = hung._drivers
    answered = asyncio.Event()
    read = driver.read

    async def hang(*args: Any) -> Any:
        await answered.wait()
        return await read(*args)

    driver.read = hang  # type: ignore[method-assign]
    for name in names:
        world.edit(name, deletionPolicy="Retain")
    await asyncio.sleep(0.1)
    world.snapshot("db-2", domain="db")
    await ready_within(world, 1, "db-2")
    answered.set()


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ext:///system?command=/bin/sh",
        "qemu+ssh://root@host/system?netcat=/tmp/x",
        "qemu+ssh://root@host/system?command=%2fbin%2fsh",
        "qemu+libssh2://root@host/system",
        "test:///default",
        "qemu+tcp://host/system",
    ],
)
async def test_a_uri_that_would_run_a_program(world: World, uri: str) -> None:
    asked: list[str] = []
    world.make_connector = asked.append
    world.kube.create_object(
        HYPERVISOR, {"metadata": {"name": "host-a"}, "spec": {"uri": uri, "access": EVERYBODY}}
    )
    world.policy()
    await world.start()
    world.snapshot("a")
    await world.until(lambda: world.hypervisor("host-a")["status"].get("conditions"))
    conditions = {one["type"]: one for one in world.hypervisor("host-a")["status"]["conditions"]}
    assert conditions["Stalled"]["status"] == "True"
    assert conditions["Ready"]["reason"] == "InvalidURI"
    assert "write" in conditions["Ready"]["message"] or "leave" in conditions["Ready"]["message"]
    await world.says("a", "HypervisorUnreachable", "host-a", "kubectl get hypervisors")
    assert not asked
    world.make_connector = None
    host = world.add_host("host-a")
    web(host)
    world.edit_hypervisor("host-a", uri="qemu+unix:///system?socket=/run/host-a")
    await ready_within(world, 1, "a")


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
    host = world.host()
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("a")
    world.snapshot("b")
    await world.ready("a", "b")
    world.delete("a")
    world.delete("b")
    await world.gone("a", "b")
    assert len(world.chain(host, uuid)) == 1
    assert len(host.storage.images) == 1


async def test_a_domain_that_is_undefined_below_a_point(world: World) -> None:
    host = world.host()
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    host.shutdown(uuid)
    host.undefine(uuid)
    await world.until(lambda: world.condition("a")[1] == "DomainNotFound", 1)
    assert world.object("a")["status"]["readyToUse"] is not None


async def test_deleting_an_object_whose_machine_is_gone(world: World) -> None:
    host = world.host()
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
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
    host = world.host()
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
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
    await world.says("a", "HypervisorUnreachable", "host-b", "cannot be asked")
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
    await world.says("b", "ChainTooLong", "2 layers", "maxLayers")
    assert world.is_ready("a")
    unchanged(host)
    world.kube.edit(VOLUME_SNAPSHOT_CLASS, None, "standard", lambda raw: raw["spec"].update(maxLayers=3))
    await ready_within(world, 1, "b")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"quiesce": "Required"}, "write Preferred or Never"),
        ({"adopt": {"layer": "/images/x"}}, "leave adopt out"),
        ({"overlay": {"source": {"protocol": "nbd", "name": "x"}}}, "write overlay.directory"),
    ],
)
async def test_a_field_of_a_later_version_is_refused_not_ignored(
    world: World, spec: dict[str, Any], words: str
) -> None:
    host = world.host()
    world.policy()
    web(host)
    await world.start()
    world.snapshot("a", **spec)
    await world.says("a", "InvalidSpec", words, stalled=True)
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
