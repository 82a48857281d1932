"""What became pending while no controller ran is taken together, however slowly the watches tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from controller.kube.fake import Sink
from controller.kube.kinds import Kind, Raw
from tests.reconcile.world import World, base_image

DISKS = [f"vd{letter}" for letter in "abcdefghij"]


@dataclass
class Trickling(World):
    """Its watches tell of one object after the other."""

    heard: int = 0

    def _deliver(self, sink: Sink, kind: Kind, event: str | None, raw: Raw) -> None:
        self.heard += 1
        asyncio.get_running_loop().call_later(self.heard, sink, kind, event, raw)


@pytest.fixture
async def world() -> AsyncIterator[Trickling]:
    world = Trickling()
    yield world
    await world.stop()
    world.check_writes()


async def test_ten_disks_of_a_machine_are_one_call(world: Trickling) -> None:
    host = world.host()
    world.policy()
    host.add_domain("web-1", {disk: base_image(f"web-1-{disk}") for disk in DISKS})
    for disk in DISKS:
        world.snapshot(f"of-{disk}", disk=disk)
    await world.start()
    await world.ready(*(f"of-{disk}" for disk in DISKS))
    assert [call.name for call in host.faults.changes].count("create_snapshot") == 1


async def test_five_of_one_disk_share_a_layer(world: Trickling) -> None:
    host = world.host()
    world.policy()
    uuid = host.add_domain("web-1", {"vda": base_image("web-1")})
    names = [f"same-{number}" for number in range(5)]
    for name in names:
        world.snapshot(name)
    await world.start()
    await world.ready(*names)
    assert len(world.chain(host, uuid)) == 2
