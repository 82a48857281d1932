"""Merged images in Ceph: removed, waited for while a client has them open, left when that does not end."""

from __future__ import annotations

import pytest

from controller.chain.source import Host, Source
from controller.hypervisor.simulated import SimulatedHost
from tests.reconcile.world import World


def web(host: SimulatedHost) -> str:
    return host.add_domain("web-1", {"vda": Source.network("rbd", "pool/web-1", [Host("mon", "6789")])})


async def taken(world: World) -> tuple[SimulatedHost, str, str]:
    """A point ``a``; gives the host, the machine and the identity of the overlay."""
    host = world.host()
    world.policy(merge={"direction": "Commit"})
    uuid = web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    return host, uuid, host.machine(uuid).live_disk("vda").active.key


async def test_a_merged_image_is_removed(world: World) -> None:
    host, _, overlay = await taken(world)
    assert overlay.startswith("rbd://mon/pool/web-1.vda.varve-")
    world.delete("a")
    await world.gone("a")
    assert overlay not in host.storage.images


async def test_one_that_a_killed_client_has_open_is_waited_for(world: World) -> None:
    host, _, overlay = await taken(world)
    host.storage.held.add(overlay)
    world.delete("a")
    await world.says("a", "Removing", "a client has it open")
    assert overlay in host.storage.images
    host.storage.held.clear()
    await world.until(lambda: world.object("a") is None, 120)
    assert overlay not in host.storage.images


@pytest.mark.parametrize("restart", [False, True])
async def test_one_that_is_never_let_go_is_left_and_named(world: World, restart: bool) -> None:
    host, uuid, overlay = await taken(world)
    host.storage.held.add(overlay)
    world.delete("a")
    await world.says("a", "Removing", "a client has it open")
    if restart:
        await world.crash()
        await world.start()
    await world.until(lambda: world.object("a") is None, 600)
    assert overlay in host.storage.images
    await world.until(lambda: any("web-1.vda.varve-" in note for note in world.events("ImageLeft")))
    live = (await host.by_hand().read(uuid)).live_xml
    assert live is not None
    assert "<removal left=" in live
