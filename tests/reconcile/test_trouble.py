"""Calls that fail, answers that are lost, daemons and machines that die: the end is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from controller.hypervisor.driver import Answered, DomainReading, JobChanged
from controller.hypervisor.errors import (
    Busy,
    HypervisorError,
    NoSpace,
    OperationFailed,
    OutcomeUnknown,
)
from controller.hypervisor.simulated import SimulatedDriver, SimulatedHost
from controller.kube.errors import Conflict, KubeError, Unavailable
from controller.kube.kinds import VOLUME_SNAPSHOT_CLASS
from tests.reconcile.scenes import content, with_points
from tests.reconcile.world import World, base_image

Act = Callable[[World], None]
WAYS: dict[str, tuple[Act, dict[str, Any]]] = {
    "take": (lambda world: world.snapshot("c"), {}),
    "commit": (lambda world: world.delete("a"), {}),
    "active commit": (lambda world: world.delete("b"), {"direction": "Commit"}),
    "pull": (lambda world: world.delete("b"), {"direction": "Pull"}),
}


async def the_end(world: World, host: SimulatedHost, uuid: str, way: str) -> None:
    """Whatever happened, it is the end that was asked for, with every byte where it belongs."""
    match way:
        case "take":
            await world.ready("a", "b", "c")
        case "commit":
            await world.gone("a")
            await world.ready("b")
        case _:
            await world.gone("b")
            await world.ready("a")
    await world.settled()
    contents = {"a": {1: 1}, "b": {1: 1, 2: 2}, "c": {1: 1, 2: 2, 99: 99}}
    kept = {"take": "abc", "commit": "b", "active commit": "a", "pull": "a"}[way]
    for name in kept:
        assert content(world, host, uuid, name) == contents[name]
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 99: 99}
    assert len(world.chain(host, uuid)) == len(kept) + 1
    assert len(host.storage.images) == len(kept) + 1
    assert not host.jobs()


# Answers that are lost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", ["before", "after"])
async def test_each_answer_is_lost_once(way: str, side: str) -> None:
    """For each changing call of the way: it took effect, or did not, and nobody can tell."""
    act, merge = WAYS[way]
    number = struck = 0
    while True:
        number += 1
        world = World()
        try:
            host, uuid = await with_points(world, "a", "b", merge=merge)
            lose = host.fail_before if side == "before" else host.fail_after
            lose(number, OutcomeUnknown("no answer within 30 s"))
            act(world)
            await the_end(world, host, uuid, way)
            world.check_writes()
            struck += len(host.faults.struck)
            if number >= len(host.faults.changes):
                break
        finally:
            await world.stop()
    assert struck >= number - 1, "only a call that is refused for its relative names has no effect to hide"


@pytest.mark.parametrize("way", WAYS)
async def test_libvirtd_restarts_after_each_call(way: str) -> None:
    """Jobs go on in QEMU, and no event tells of their end."""
    act, merge = WAYS[way]
    for number in range(1, 8):
        world = World()
        try:
            host, uuid = await with_points(world, "a", "b", merge=merge)
            host.fail_after(number, OutcomeUnknown("the connection broke"))
            act(world)
            await world.until(lambda: host.faults.struck or not world._calls())  # noqa: B023 - used here
            host.stop_libvirtd()
            host.finish_jobs()
            await asyncio.sleep(3)
            host.start_libvirtd()
            await world.until(lambda: host._drivers, 60)  # noqa: B023 - used here
            await the_end(world, host, uuid, way)
            world.check_writes()
        finally:
            await world.stop()
        if number >= len(host.faults.changes):
            break


async def test_an_event_that_is_lost(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    emit = host.emit
    host.emit = lambda event: None if isinstance(event, JobChanged) else emit(event)  # type: ignore[method-assign]
    world.delete("b")
    await world.gone("b")
    await the_end(world, host, uuid, "pull")


# Calls that fail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["set_metadata", "pivot", "flush", "commit", "pull", "create_snapshot"])
@pytest.mark.parametrize(
    "error", [OperationFailed("internal error: no luck"), Busy("cannot acquire state change lock", code=68)]
)
async def test_a_call_that_always_fails_is_not_hammered(
    world: World, call: str, error: HypervisorError
) -> None:
    way = {"pivot": "active commit", "flush": "pull", "pull": "pull", "create_snapshot": "take"}.get(
        call, "commit"
    )
    act, merge = WAYS[way]
    host, uuid = await with_points(world, "a", "b", merge=merge)
    name = {"take": "c", "commit": "a"}.get(way, "b")
    for number in range(1, 400):
        host.fail_before(number, error, on=call)
    act(world)
    await world.until(lambda: world.condition(name)[1] == "Failed")
    assert error.message in world.condition(name)[2]
    assert world.object(name)["status"]["error"]["message"]
    await asyncio.sleep(60)
    assert 3 <= len(host.faults.struck) <= 30
    assert sum(world.kube.writes.values()) <= 60
    host.faults.forget()
    await world.until(lambda: world.object(name) is None or world.is_ready(name), 130)
    await the_end(world, host, uuid, way)


async def test_a_machine_that_answers_again_is_looked_at_then(world: World) -> None:
    """Not only when the pause after many failures ends, which is up to a minute later."""
    host, uuid = await with_points(world, "a", "b")
    busy = Busy("reading the domain has not answered since 05:19:41 UTC; nothing more is sent there")
    for number in range(1, 100):
        host.fail_before(number, busy, on="read")
    world.delete("a")
    await world.until(lambda: world.condition("b")[1] == "Failed", 30)
    await asyncio.sleep(60)
    host.faults.forget()
    host.emit(Answered(uuid))
    await world.until(lambda: world.is_ready("b") and world.object("a") is None, 4)


async def test_a_full_storage(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    host.storage.refuse("file:/images/web-1.vda", NoSpace("No space left on device"))
    world.snapshot("c")
    await world.says("c", "Failed", "No space left on device")
    assert world.is_ready("a")
    assert world.is_ready("b")
    assert len(world.chain(host, uuid)) == 3
    host.storage._refusals.clear()
    await world.until(lambda: world.is_ready("c"), 60)
    await the_end(world, host, uuid, "take")


async def test_a_job_that_fails(world: World) -> None:
    host, uuid = await with_points(world, "a", "b", merge={"direction": "Pull"})
    host.auto = False
    world.delete("b")
    await world.until(host.jobs)
    host.fail_job(uuid, "vda")
    await world.says("b", "Failed", "pull", "failed")
    assert not host.jobs()
    host.auto = True
    await world.until(lambda: world.object("b") is None, 60)
    await the_end(world, host, uuid, "pull")


async def test_one_disk_of_several_that_cannot_be_taken_stops_no_other(world: World) -> None:
    host = world.host()
    world.policy()
    disks = {"vda": base_image("a"), "vdb": base_image("b")}
    host.add_domain("web-1", disks)
    host.storage.refuse("file:/images/web-1.vdb", NoSpace("No space left on device"))
    await world.start()
    world.snapshot("a", disk="vda")
    world.snapshot("b", disk="vdb")
    await world.ready("a")
    await world.says("b", "Failed", "No space left on device")
    host.storage._refusals.clear()
    await world.until(lambda: world.is_ready("b"), 60)


async def test_several_disks_at_once_are_one_call(world: World) -> None:
    host = world.host()
    world.policy()
    host.add_domain("web-1", {"vda": base_image("a"), "vdb": base_image("b")})
    await world.start()
    world.snapshot("a", disk="vda")
    world.snapshot("b", disk="vdb")
    await world.ready("a", "b")
    assert len([call for call in host.faults.changes if call.name == "create_snapshot"]) == 1


# Machines that die -------------------------------------------------------------------------------------


@pytest.mark.parametrize("completing", [False, True])
@pytest.mark.parametrize("way", ["commit", "active commit", "pull"])
async def test_qemu_is_killed_in_the_middle_of_a_merge(world: World, way: str, completing: bool) -> None:
    act, merge = WAYS[way]
    host, uuid = await with_points(world, "a", "b", merge=merge)
    host.auto = False
    act(world)
    await world.until(host.jobs)
    [(_, _, job)] = host.jobs()
    job.todo += [50, 51]  # clusters that nobody allocates: they only take their time
    host.advance(1)
    host.kill_qemu(uuid, completing=completing)
    await world.settled()
    host.auto = True
    host.start(uuid)
    await the_end(world, host, uuid, way)


async def test_qemu_is_killed_between_a_pull_and_its_flush(world: World) -> None:
    """The header points past layers whose data never reached the disk: nothing may be removed."""
    host, uuid = await with_points(world, "a", "b", merge={"direction": "Pull"})
    images = set(host.storage.images)
    host.auto = False
    world.delete("b")
    await world.until(host.jobs)
    host.fail_before(1, OutcomeUnknown("no answer"), on="flush")
    host.finish_jobs()
    await world.until(lambda: host.faults.struck)
    host.kill_qemu(uuid)
    host.start(uuid)
    await world.says("b", "ChainDiverged", "docs/operations.md", stalled=True)
    await asyncio.sleep(400)
    assert set(host.storage.images) == images
    assert world.object("b") is not None
    await world.says("a", "ChainDiverged", stalled=True)
    assert world.object("a")["status"]["readyToUse"], "the pull has not touched the point below it"
    assert content(world, host, uuid, "a") == {1: 1}


async def test_a_machine_that_stops_in_the_middle_of_a_merge_goes_on_when_it_runs(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    host.auto = False
    world.delete("a")
    await world.until(host.jobs)
    host.shutdown(uuid)
    host.auto = True
    await world.says("a", "WaitingForDomain", "virsh start")
    host.start(uuid)
    await world.until(lambda: world.object("a") is None, 5)
    await the_end(world, host, uuid, "commit")


# Kubernetes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("verb", ["status", "finalizer", "get"])
@pytest.mark.parametrize("error", [Unavailable("503"), Conflict("409")], ids=["5xx", "409"])
async def test_kubernetes_fails_now_and_then(
    world: World, way: str, verb: str, phase: Any, error: KubeError
) -> None:
    act, merge = WAYS[way]
    host, uuid = await with_points(world, "a", "b", merge=merge)
    for nth in (1, 2, 3):
        world.kube.fail(verb, error, nth=nth, phase=phase)
    act(world)
    await world.until(lambda: way == "take" or world.object({"commit": "a"}.get(way, "b")) is None, 20)
    await the_end(world, host, uuid, way)


async def test_kubernetes_is_away_while_a_merge_runs(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    down = True

    def hook(call: Any, phase: str) -> None:
        if down and phase == "before":
            raise Unavailable("connection refused")

    world.kube.hook = hook
    world.delete("b")
    await asyncio.sleep(120)
    assert "b" in world.conditions()
    down = False
    await world.until(lambda: world.object("b") is None, 70)
    await the_end(world, host, uuid, "pull")


async def test_an_object_that_goes_while_its_point_is_being_taken(world: World) -> None:
    """Deleted between the finalizer and the call: nothing is taken, or it is merged away again."""
    host, uuid = await with_points(world)

    def hook(call: Any, phase: str) -> None:
        if call.verb == "finalizer" and phase == "after":
            world.kube.hook = None
            world.delete("c")

    world.kube.hook = hook
    world.snapshot("c")
    await world.gone("c")
    await world.settled()
    assert len(world.chain(host, uuid)) == 1
    assert len(host.storage.images) == 1


async def test_an_object_that_is_forced_away_before_its_point_is_taken(world: World) -> None:
    host, uuid = await with_points(world)

    def hook(call: Any, phase: str) -> None:
        if call.verb == "finalizer" and phase == "before":
            world.kube.hook = None
            world.delete("c", force=True)

    world.kube.hook = hook
    world.snapshot("c")
    await world.gone("c")
    await world.settled()
    assert len(world.chain(host, uuid)) == 1


async def test_a_class_that_comes_and_goes_ends_nothing(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    host.auto = False
    world.delete("a")
    await world.until(host.jobs)
    world.kube.delete(VOLUME_SNAPSHOT_CLASS, None, "standard")
    await world.settled()
    host.auto = True
    host.finish_jobs()
    await the_end(world, host, uuid, "commit")


async def test_a_pass_whose_wait_was_cancelled_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody ended the pass; unheard, its domain would never be looked at again."""
    read, due = SimulatedDriver.read, list[str]()

    async def cancelled_once(self: SimulatedDriver, uuid: str, *, sizes: bool = True) -> DomainReading:
        if due:
            raise asyncio.CancelledError(due.pop())
        return await read(self, uuid, sizes=sizes)

    monkeypatch.setattr(SimulatedDriver, "read", cancelled_once)
    world = World()
    try:
        host, uuid = await with_points(world, "a", "b")
        due.append("what it waited for has ended")
        world.delete("a")
        await the_end(world, host, uuid, "commit")
        assert not due
    finally:
        await world.stop()
