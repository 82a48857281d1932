"""Storage servers that do not answer: QEMU is told nothing, everybody else is, and it goes on by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.chain.source import Host, Source
from controller.hypervisor.errors import StorageUnreachable
from controller.hypervisor.simulated import SimulatedHost
from tests.reconcile.scenes import ready_within, status
from tests.reconcile.world import World, base_image

SERVER = "gluster://storage-1:24007/"
WITHIN = 60.0
"""Seconds in which it goes on after the server came back, which has no event (samples, README.md)."""


def on_gluster(name: str) -> Source:
    """An image whose overlays go beside it."""
    return Source.network("gluster", f"gv0/{name}.qcow2", [Host("storage-1")])


async def scene(world: World, *, written: int = 1, **merge: Any) -> tuple[SimulatedHost, str]:
    """A machine with the points a and b of its gluster disk vda, and a file disk vdb. ``written``: how many
    clusters of vda the guest wrote before each point, and so how many steps a merge has."""
    host = world.host()
    world.policy(merge=merge)
    uuid = host.add_domain("web-1", {"vda": on_gluster("web-1"), "vdb": base_image("b")})
    await world.start()
    for number, name in enumerate(("a", "b"), 1):
        for cluster in range(written):
            host.guest_write(uuid, "vda", number + 10 * cluster, number)
        world.snapshot(name)
        await world.ready(name)
    await world.settled()
    host.faults.forget()
    world.kube.forget_calls()
    return host, uuid


def point(host: SimulatedHost, uuid: str, world: World, name: str) -> dict[int, int]:
    """What reads through the layer that the object names."""
    process = host.machine(uuid).process
    assert process is not None
    uri = status(world, name)["layer"]["source"]
    [node] = [node for node in process.disks["vda"].nodes if node.source.uri == uri]
    return host.point(uuid, "vda", node.source)


async def test_a_point_waits_for_its_server(world: World) -> None:
    host, uuid = await scene(world)
    host.storage.silent.add(SERVER)
    world.snapshot("c")
    await world.says("c", "StorageUnreachable", "gluster://storage-1:24007/gv0/")
    await asyncio.sleep(300)
    assert not host.faults.changes, "while the server is away nothing is begun, and nothing is undone"
    assert sum(world.kube.writes.values()) <= 4
    assert len([call for call in host.faults.calls if call.name == "reach"]) <= 40
    assert world.is_ready("a")
    host.storage.silent.clear()
    await ready_within(world, WITHIN, "c")
    assert point(host, uuid, world, "c") == {1: 1, 2: 2}


@pytest.mark.parametrize(("unwanted", "direction"), [("a", "Cheapest"), ("b", "Commit"), ("b", "Pull")])
async def test_a_merge_waits_for_its_server(world: World, unwanted: str, direction: str) -> None:
    host, uuid = await scene(world, direction=direction)
    host.storage.silent.add(SERVER)
    world.delete(unwanted)
    await world.says(unwanted, "StorageUnreachable", "storage-1")
    await asyncio.sleep(300)
    assert not host.faults.changes
    assert sum(world.kube.writes.values()) <= 6
    assert not host.jobs()
    host.storage.silent.clear()
    await world.until(lambda: world.object(unwanted) is None, WITHIN)
    kept = {"a": "b", "b": "a"}[unwanted]
    await world.ready(kept)
    assert point(host, uuid, world, kept) == {"a": {1: 1}, "b": {1: 1, 2: 2}}[kept]


@pytest.mark.parametrize("direction", ["Commit", "Pull"])
async def test_a_server_that_goes_while_the_job_runs(world: World, direction: str) -> None:
    """The pivot and the flush wait as well: QEMU would wait in them for I/O that does not come back."""
    host, uuid = await scene(world, direction=direction)
    host.auto = False
    world.delete("b")
    await world.until(host.jobs)
    host.storage.silent.add(SERVER)
    host.faults.forget()
    host.finish_jobs()
    await world.says("b", "StorageUnreachable", "storage-1")
    await asyncio.sleep(120)
    assert not [call for call in host.faults.changes if call.name in {"pivot", "flush", "remove_image"}]
    host.storage.silent.clear()
    await world.until(lambda: world.object("b") is None, WITHIN)
    await world.ready("a")
    assert point(host, uuid, world, "a") == {1: 1}
    assert host.visible(uuid, "vda") == {1: 1, 2: 2}


async def test_an_image_is_not_removed_from_a_server_that_does_not_answer(world: World) -> None:
    host, _ = await scene(world)
    images = len(host.storage.images)
    for number in range(2, 6):  # the first question is for the commit
        host.fail_before(number, StorageUnreachable("gluster server storage-1 refuses"), on="reach")
    world.delete("a")
    await world.says("a", "Removing", "the layer is merged", "cannot be removed yet", "storage-1 refuses")
    assert len(host.storage.images) == images
    await world.until(lambda: world.object("a") is None, WITHIN)
    assert len(host.storage.images) == images - 1


async def test_the_other_disk_waits_too_because_qemu_drains_them_all(world: World) -> None:
    host, _ = await scene(world)
    host.storage.silent.add(SERVER)
    world.snapshot("c", disk="vdb")
    await world.says("c", "StorageUnreachable", "storage-1")
    assert not host.faults.changes
    host.storage.silent.clear()
    await ready_within(world, WITHIN, "c")


async def test_a_machine_of_files_is_not_asked_about(world: World) -> None:
    host = world.host()
    world.policy()
    host.add_domain("web-1", {"vda": base_image("a")})
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    world.delete("a")
    await world.gone("a")
    assert not [call for call in host.faults.calls if call.name == "reach"]


async def test_the_others_of_the_hypervisor_go_on(world: World) -> None:
    host, _ = await scene(world)
    host.add_domain("web-2", {"vda": base_image("2")})
    host.storage.silent.add(SERVER)
    world.snapshot("c")
    world.snapshot("d", domain="web-2")
    await world.says("c", "StorageUnreachable")
    await world.ready("d")


@pytest.mark.parametrize("unwanted", ["a", "b"])
async def test_a_job_that_stands_still_says_what_it_waits_for(world: World, unwanted: str) -> None:
    host, uuid = await scene(world, written=3, direction="Commit")
    for cluster in (40, 50):
        host.guest_write(uuid, "vda", cluster, 4)
    host.auto = False
    world.delete(unwanted)
    await world.until(host.jobs)
    host.storage.silent.add(SERVER)
    message = await world.says(unwanted, "StorageUnreachable", "stands still", "storage-1")
    await asyncio.sleep(60)
    assert world.condition(unwanted)[2] == message, "written once"
    host.storage.silent.clear()
    host.advance(1)
    await world.until(lambda: world.condition(unwanted)[1] == "Committing", WITHIN)
    host.auto = True
    host.finish_jobs()
    await world.until(lambda: world.object(unwanted) is None, WITHIN)


@pytest.mark.parametrize(("limit", "patience"), [(0, 30), (1 << 20, 30), (32 << 10, 64)])
async def test_a_job_that_copies_nothing_though_its_servers_answer(
    world: World, limit: int, patience: int
) -> None:
    """As when an OSD hangs, which nobody can ask."""
    host, _ = await scene(world, written=3, direction="Commit", bandwidthBytesPerSecond=limit)
    host.auto = False
    world.delete("a")
    await world.until(host.jobs)
    await asyncio.sleep(patience - 5)
    assert world.condition("a")[1] == "Committing"
    await world.until(lambda: world.condition("a")[1] == "StorageUnreachable", 15)
    message = await world.says("a", "StorageUnreachable", "copied nothing since", "ceph health")
    await asyncio.sleep(60)
    assert world.condition("a")[2] == message, "written once"
    host.advance(1)
    await world.until(lambda: world.condition("a")[1] == "Committing", WITHIN)
    host.auto = True
    host.finish_jobs()
    await world.gone("a")


async def test_what_the_guest_writes_is_no_progress_of_the_job(world: World) -> None:
    """It had caught up when its server fell silent: libvirt shows a byte less until the end moves."""
    host, uuid = await scene(world, direction="Commit")
    host.auto = False
    world.delete("b")
    await world.until(host.jobs)
    [(_, _, job)] = host.jobs()
    job.todo.clear()
    job.copied = 7
    assert job.info().end - job.info().current == 1
    host.storage.silent.add(SERVER)
    message = await world.says("b", "StorageUnreachable", "stands still", "storage-1")
    host.guest_write(uuid, "vda", 50, 9)
    for _ in range(8):
        await asyncio.sleep(1)
        assert world.condition("b")[2] == message


async def test_a_job_that_gets_on_is_not_asked_after(world: World) -> None:
    host, _ = await scene(world, direction="Commit")
    host.auto = False
    world.delete("a")
    await world.until(host.jobs)
    [(_, _, job)] = host.jobs()
    job.todo += range(50, 70)
    host.storage.silent.add(SERVER)
    for _ in range(10):
        host.advance(1)
        await asyncio.sleep(2)
    assert world.condition("a")[1] == "Committing"


async def test_a_machine_that_does_not_answer_says_which_server_it_waits_for(world: World) -> None:
    """Its QEMU waits for the server in its main loop, so it cannot even be read."""
    host, uuid = await scene(world)
    host.storage.silent.add(SERVER)
    host.machine(uuid).locked_by = "remoteDispatchDomainGetBlockJobInfo"
    world.delete("a")
    await world.says("a", "StorageUnreachable", "remoteDispatchDomainGetBlockJobInfo", "storage-1")
    host.storage.silent.clear()
    await world.says("a", "Failed", "remoteDispatchDomainGetBlockJobInfo")
    host.machine(uuid).locked_by = ""
    await world.until(lambda: world.object("a") is None, WITHIN)


async def test_a_machine_of_files_that_does_not_answer_is_not_asked_about(world: World) -> None:
    host = world.host()
    world.policy()
    uuid = host.add_domain("web-1", {"vda": base_image("a")})
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    host.machine(uuid).locked_by = "remoteDispatchDomainGetBlockJobInfo"
    world.delete("a")
    await world.says("a", "Failed")
    assert not [call for call in host.faults.calls if call.name == "reach"]
