"""What QEMU opened at a place that was lent is not what was verified there: it is undone, and the place is
not tried again for that object."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.hypervisor.errors import Unsupported
from controller.hypervisor.simulated import SimulatedHost
from controller.hypervisor.simulated.faults import Side
from tests.reconcile.test_lent_places import DISK, PREPARED, at, export, exports, journal, on_nbd
from tests.reconcile.world import World

VICTIM = "/images/somebody-else.qcow2"
FACES: list[dict[str, Any]] = [
    {"data_file": VICTIM},
    {"capacity": DISK // 2},
    {"flaws": ("it holds internal snapshots",)},
    {"name": "nbd://127.0.0.1:10809/another"},
]


def spare(host: SimulatedHost, name: str = "spare") -> None:
    host.storage.create(export(name), capacity=DISK, backing=host.storage.open(export("base").key))


def takes(host: SimulatedHost) -> int:
    return sum(call.name == "create_snapshot" for call in host.faults.calls)


async def scene(world: World, **face: Any) -> tuple[SimulatedHost, str]:
    """A machine on an export, and a place whose second face is another."""
    host = world.host()
    world.policy()
    uuid = on_nbd(host)
    spare(host)
    host.faces[export("spare").key] = face
    await world.start()
    host.guest_write(uuid, "vda", 0, 1)
    return host, uuid


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("overlay", [PREPARED, at("spare")])
async def test_a_stranger_is_undone_and_not_tried_again(
    world: World, face: dict[str, Any], overlay: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    host, uuid = await scene(world, **face)
    world.snapshot("a", overlay=overlay)
    message = await world.says("a", "OverlayNotAsVerified", "nbd://127.0.0.1:10809/spare", stalled=True)
    await world.until(lambda: world.chain(host, uuid) == ["base"], 60)
    assert VICTIM not in message
    await asyncio.sleep(600)
    assert takes(host) == 1
    assert host.visible(uuid, "vda") == {0: 1}
    assert await journal(host, uuid) == ""
    assert any("merged away" in record.message for record in caplog.records if record.levelname == "ERROR")


async def test_what_the_guest_wrote_meanwhile_is_kept(world: World) -> None:
    host, uuid = await scene(world, data_file=VICTIM)
    host.auto = False
    world.snapshot("a", overlay=PREPARED)
    await world.until(lambda: bool(host.jobs(uuid)), 60)
    assert world.chain(host, uuid) == ["spare", "base"]
    host.guest_write(uuid, "vda", 1, 2)
    host.auto = True
    host.finish_jobs(uuid)
    await world.until(lambda: world.chain(host, uuid) == ["base"], 60)
    assert host.visible(uuid, "vda") == {0: 1, 1: 2}


async def test_a_restarted_controller_does_not_try_it_again(world: World) -> None:
    host, uuid = await scene(world, data_file=VICTIM)
    world.snapshot("a", overlay=PREPARED)
    await world.says("a", "OverlayNotAsVerified", stalled=True)
    await world.until(lambda: world.chain(host, uuid) == ["base"], 60)
    await world.crash()
    await world.start()
    await asyncio.sleep(120)
    assert takes(host) == 1
    await world.says("a", "OverlayNotAsVerified", stalled=True)


async def test_another_place_and_another_object_are_tried(world: World) -> None:
    host, uuid = await scene(world, data_file=VICTIM)
    exports(host, "good")
    world.snapshot("a", overlay=PREPARED)
    await world.says("a", "OverlayNotAsVerified", stalled=True)
    world.snapshot("b")
    world.edit("a", overlay=at("good"))
    await world.until(lambda: world.is_ready("a"), 120)
    assert world.chain(host, uuid) == ["good", "base"]


async def test_neither_approval_nor_a_class_that_pulls_keeps_it(world: World) -> None:
    """The namespace may make VolumeChains: a plan that waits for it would keep what it should not have."""
    host = world.host()
    world.policy(merge={"direction": "Pull", "settleSeconds": 3000, "bandwidthBytesPerSecond": 1})
    uuid = on_nbd(host)
    spare(host)
    host.faces[export("spare").key] = {"data_file": VICTIM}
    await world.start()
    world.policy_of_chain("policy", approval="Manual", approvedPlan="")
    world.snapshot("a", overlay=PREPARED)
    await world.says("a", "OverlayNotAsVerified", stalled=True)
    await world.until(lambda: world.chain(host, uuid) == ["base"], 60)


async def test_what_qemu_does_not_tell_is_not_trusted(world: World) -> None:
    host, uuid = await scene(world)
    host.faults.add(1, Side.BEFORE, Unsupported("no monitor here"), on="opened", lasting=True)
    world.snapshot("a", overlay=PREPARED)
    await world.says("a", "OverlayNotAsVerified", stalled=True)
    await world.until(lambda: world.chain(host, uuid) == ["base"], 60)


async def test_a_machine_that_is_stopped_at_once_is_asked_when_it_runs(world: World) -> None:
    """Or a guest that powers itself off would get by."""
    host, uuid = await scene(world, data_file=VICTIM)
    host.faults.meanwhile.append(("opened", lambda: host.shutdown(uuid)))
    world.snapshot("a", overlay=PREPARED)
    await world.says("a", "WaitingForDomain")
    assert not world.is_ready("a")
    host.start(uuid)
    await world.says("a", "OverlayNotAsVerified", stalled=True)
    await world.until(lambda: world.chain(host, uuid) == ["base"], 60)


async def test_what_is_as_verified_is_used(world: World) -> None:
    host, uuid = await scene(world)
    world.snapshot("a", overlay=PREPARED)
    await world.ready("a")
    assert world.chain(host, uuid) == ["spare", "base"]
    assert sum(call.name == "opened" for call in host.faults.calls) == 1
