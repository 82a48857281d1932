"""B21: what comes to nothing is tried again with growing pauses, and the object says what it waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.hypervisor.errors import NotReady
from controller.hypervisor.simulated import driver
from controller.hypervisor.simulated.driver import SimulatedDriver
from tests.reconcile.scenes import status, with_points
from tests.reconcile.test_explicit import define_short
from tests.reconcile.test_explicit import with_points as on_rbd
from tests.reconcile.test_lent_places import DISK, PREPARED, export, on_nbd
from tests.reconcile.world import World

MINUTES = 600.0
FEW = 300
"""Calls in that time: each look takes some, and a pause grows to a minute."""


async def test_a_disk_without_a_size_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was prepared must have the very size of the disk, which libvirt does not tell."""
    host = world.host()
    world.policy()
    uuid = on_nbd(host)
    host.storage.create(export("spare"), capacity=DISK, backing=host.storage.open(export("base").key))
    await world.start()
    with monkeypatch.context() as patch:
        patch.setattr(driver, "_stats", lambda machine, gate: ())
        world.snapshot("a", overlay=PREPARED)
        await world.says("a", "SizeUnknown", "how large", "domblkinfo")
        host.faults.forget()
        await asyncio.sleep(MINUTES)
        assert len(host.faults.calls) < FEW
        assert not host.faults.changes
    await world.until(lambda: world.is_ready("a"), 60)
    assert status(world, "a")["layer"]["source"] == export("base").uri
    assert host.machine(uuid).live_disk("vda").active.image.key == export("spare").key


async def test_a_look_that_always_says_no_is_paced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason: here the mirror is ready to all who look, and not to who pivots."""
    pivot, mended = SimulatedDriver.pivot, asyncio.Event()

    async def refused(self: SimulatedDriver, uuid: str, target: str) -> None:
        if mended.is_set():
            return await pivot(self, uuid, target)
        async with self._call("pivot", changing=True, uuid=uuid, target=target):
            raise NotReady("block copy is not active", code=83)

    monkeypatch.setattr(SimulatedDriver, "pivot", refused)
    host, _ = await with_points(world, "a", merge={"direction": "Commit"})
    world.delete("a")
    await world.says("a", "Failed", "block copy is not active")
    host.faults.forget()
    await asyncio.sleep(MINUTES)
    assert 5 < sum(call.name == "pivot" for call in host.faults.calls) < FEW // 4
    assert len(host.faults.calls) < 2 * FEW
    mended.set()
    await world.until(lambda: world.object("a") is None, 120)


async def test_what_is_done_and_changes_nothing_is_paced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, uuid = await on_rbd(world, "a")

    async def accepted(self: SimulatedDriver, uuid: str, xml: str, **rest: Any) -> None:
        async with self._call("define", changing=True, uuid=uuid, xml=xml):
            pass  # and forgotten

    monkeypatch.setattr(SimulatedDriver, "define", accepted)
    define_short(host, uuid, journal_too=False)
    await asyncio.sleep(1)
    host.faults.forget()
    await asyncio.sleep(MINUTES)
    assert 3 < sum(call.name == "define" for call in host.faults.calls) < FEW // 4
    assert world.is_ready("a")
