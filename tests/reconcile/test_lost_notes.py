"""libvirtd is killed in the middle of active commits, and comes back with less than QEMU knows: without the
mirror, with one that stands for no job, with a pivot that never was, or without the machine."""

from __future__ import annotations

import asyncio

import pytest

from controller.hypervisor.driver import JobStatus
from controller.hypervisor.simulated import Moment, SimulatedHost
from tests.reconcile.scenes import content, journal, status, with_points
from tests.reconcile.world import World, base_image

LIMITS = {"noProgressSeconds": 30, "deadlineSeconds": 600}


async def merging(world: World) -> tuple[SimulatedHost, str]:
    """Points a and b. b is being merged away by an active commit that copies nothing by itself."""
    host, uuid = await with_points(world, "a", "b", merge={"direction": "Commit", "convergence": {**LIMITS}})
    host.revives_after = 1.0
    host.auto = False
    return host, uuid


def stop_and_start(host: SimulatedHost, uuid: str) -> None:
    """The guest finds what it had."""
    before = host.visible(uuid, "vda")
    host.shutdown(uuid)
    host.start(uuid)
    assert host.visible(uuid, "vda") == before


async def told(world: World, name: str) -> None:
    """Wait as long as the controller has something to do; the object is gone, or says what it waits for."""
    await asyncio.sleep(120)
    await world.settled()
    if world.object(name) is not None:
        status, reason, message = world.condition(name)
        assert status in {"True", "False"}
        assert reason
        assert message


@pytest.mark.parametrize("moment", [Moment.BEFORE, Moment.UNNOTED, Moment.CANCELED, Moment.AFTER])
async def test_killed_as_a_commit_is_given_up(world: World, moment: Moment) -> None:
    host, uuid = await merging(world)
    world.delete("b")
    await world.until(lambda: host.jobs(uuid))
    host.libvirtd_dies(1, moment, on="abort")
    await world.until(lambda: host.faults.deaths, 120)
    host.guest_write(uuid, "vda", 98, 98)
    host.auto = True
    host.finish_jobs(uuid)
    await told(world, "b")
    stop_and_start(host, uuid)
    await world.until(lambda: world.object("b") is None, 600)
    assert content(world, host, uuid, "a") == {1: 1}
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 98: 98, 99: 99}


async def test_an_active_commit_whose_mirror_was_not_noted_is_finished(world: World) -> None:
    """No stop of the machine is needed: a pivot works, and an abort would end libvirtd."""
    host, uuid = await merging(world)
    host.libvirtd_dies(1, Moment.UNNOTED, on="commit")
    world.delete("b")
    await world.until(lambda: host.faults.deaths)
    host.auto = True
    host.finish_jobs(uuid)
    await world.until(lambda: world.object("b") is None, 120)
    assert host.faults.deaths == [Moment.UNNOTED], "libvirtd was brought down once more"
    assert content(world, host, uuid, "a") == {1: 1}


async def test_an_active_commit_whose_mirror_was_not_noted_is_not_given_up(world: World) -> None:
    host, uuid = await merging(world)
    host.libvirtd_dies(1, Moment.UNNOTED, on="commit")
    world.delete("b")
    await world.until(lambda: host.faults.deaths)
    await told(world, "b")
    assert host.faults.deaths == [Moment.UNNOTED], "libvirtd was brought down once more"
    stop_and_start(host, uuid)
    host.auto = True
    await world.until(lambda: world.object("b") is None, 600)


async def test_what_was_canceled_when_ready_and_counts_as_pivoted_removes_nothing(world: World) -> None:
    """Somebody aborts the job as it becomes ready, and libvirtd is killed: it shows the merge as done, while
    the guest goes on writing to the old top."""
    host, uuid = await merging(world)
    world.delete("b")
    await world.until(lambda: host.jobs(uuid))
    host.finish_jobs(uuid)
    noted = host.notes()
    ((machine, disk, job),) = host.jobs(uuid)
    host.end_job(machine, disk, job, JobStatus.CANCELED)
    host.die(Moment.UNNOTED, noted)
    host.guest_write(uuid, "vda", 98, 98)
    await told(world, "b")
    assert {node.key for node in disk.nodes} <= set(host.storage.images)
    host.guest_write(uuid, "vda", 97, 97)
    stop_and_start(host, uuid)
    host.auto = True
    await world.until(lambda: world.object("b") is None, 600)
    assert content(world, host, uuid, "a") == {1: 1}
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 97: 97, 98: 98, 99: 99}


@pytest.mark.parametrize("names", [("a", "b"), ("a",)])
async def test_a_record_that_was_noted_live_alone_is_written_again(
    world: World, names: tuple[str, ...]
) -> None:
    """The next start would bring the old one back: owners that are gone, images that wait for removal."""
    host, uuid = await with_points(world, *names, deletionPolicy="Retain")
    host.revives_after = 1.0
    host.libvirtd_dies(1, Moment.LIVE, on="set_metadata")
    world.delete(names[-1])
    await world.gone(names[-1])
    await world.until(lambda: host.faults.deaths)
    await told(world, names[0])
    stop_and_start(host, uuid)
    owned = {owner.name for point in journal(host, uuid).disk("vda").points for owner in point.owners}
    assert owned == set(names[:-1])


async def test_a_machine_that_libvirt_loses_in_a_pivot_is_told_of_and_keeps_all_its_images(
    world: World,
) -> None:
    """It takes the machine for shut off, and its QEMU goes on below. Which of two images is the newer, only
    somebody who looks on the hypervisor can say."""
    host, uuid = await merging(world)
    host.auto = True
    host.libvirtd_dies(1, Moment.CLEANED, on="pivot")
    world.delete("b")
    await world.until(lambda: host.faults.deaths)
    images = set(host.storage.images)
    host.guest_write(uuid, "vda", 98, 98)
    await told(world, "b")
    assert "pgrep" in world.condition("b")[2]
    assert world.condition("b", "Stalled")[0] == "True"
    assert set(host.storage.images) == images
    wrote = host.visible(uuid, "vda")
    host.end_lost(uuid)
    known = host.machine(uuid).definition
    assert known is not None
    lower = known["vda"].without([known["vda"].keys[0]])  # what the guest was on
    host.define("web-1", [lower], uuid)
    host.start(uuid)
    assert host.visible(uuid, "vda") == wrote
    await world.until(lambda: world.object("b") is None, 600)
    assert content(world, host, uuid, "a") == {1: 1}
    assert host.visible(uuid, "vda") == wrote


@pytest.mark.parametrize("moment", [Moment.STARTED, Moment.UNNOTED, Moment.LIVE])
async def test_killed_in_a_take_of_two_disks_at_once(world: World, moment: Moment) -> None:
    host = world.host()
    host.revives_after = 1.0
    world.policy()
    disks = ("vda", "vdb")
    uuid = host.add_domain("web-1", {disk: base_image(f"web-1-{disk}") for disk in disks})
    for disk in disks:
        host.guest_write(uuid, disk, 1, 1)
        world.snapshot(f"of-{disk}", disk=disk)
    host.libvirtd_dies(1, moment, on="create_snapshot")
    await world.start()
    await world.until(lambda: host.faults.deaths, 60)
    assert len([call for call in host.faults.changes if call.name == "create_snapshot"]) == 1
    for disk in disks:
        host.guest_write(uuid, disk, 2, 2)
    for disk in disks:
        await told(world, f"of-{disk}")
    wrote = {disk: host.visible(uuid, disk) for disk in disks}
    host.shutdown(uuid)
    host.start(uuid)
    assert {disk: host.visible(uuid, disk) for disk in disks} == wrote
    await world.until(lambda: all(world.is_ready(f"of-{disk}") for disk in disks), 600)
    for disk in disks:
        found = host.point(uuid, disk, f"file:{status(world, f'of-{disk}')['layer']['source']}")
        assert found in ([{1: 1}, {1: 1, 2: 2}] if moment is Moment.STARTED else [{1: 1}])
