"""Chains on the network, whose definition somebody shortens: mended from what runs, or said to be unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.source import Host, Source
from controller.hypervisor.errors import OperationFailed
from controller.hypervisor.simulated import SimulatedHost
from controller.hypervisor.simulated.faults import Side
from controller.hypervisor.simulated.machine import DiskDefinition, Link
from tests.reconcile.scenes import journal, web
from tests.reconcile.world import World, base_image

HOSTS = [Host("127.0.0.1", "6789")]


def rbd(name: str) -> Source:
    return Source.network("rbd", f"rbd/{name}", HOSTS)


async def with_points(world: World, *names: str) -> tuple[SimulatedHost, str]:
    """A machine on RBD, where libvirt does not look below a layer, with these points."""
    host = world.host()
    world.policy()
    uuid = host.add_domain("web-1", {"vda": rbd("base")})
    await world.start()
    for number, name in enumerate(names, 1):
        host.guest_write(uuid, "vda", number, number)
        world.snapshot(name)
        await world.ready(name)
    await world.settled()
    host.faults.forget()
    world.kube.forget_calls()
    return host, uuid


def defined(host: SimulatedHost, uuid: str) -> DiskDefinition:
    definition = host.machine(uuid).definition
    assert definition is not None
    return definition["vda"]


def define_short(host: SimulatedHost, uuid: str, *, journal_too: bool = True) -> None:
    """As a tool does that knows the disk and nothing of its layers."""
    now = defined(host, uuid)
    if journal_too:
        host.machine(uuid).config_metadata.pop(JOURNAL_NAMESPACE)
    host.define("web-1", [replace(now, chain=now.chain[:1])], uuid)


async def test_a_definition_that_was_shortened_is_whole_again_at_once(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    whole, record = defined(host, uuid), journal(host, uuid)
    define_short(host, uuid)
    await world.until(lambda: defined(host, uuid) == whole)
    await world.settled()
    assert journal(host, uuid) == record
    assert [call.name for call in host.faults.changes] == ["set_metadata", "define"]

    host.shutdown(uuid)
    host.start(uuid)
    world.delete("a")
    await world.gone("a")
    assert len(world.chain(host, uuid)) == 2


@pytest.mark.parametrize("call", ["define", "set_metadata"])
@pytest.mark.parametrize("side", [Side.BEFORE, Side.AFTER])
async def test_killed_as_a_definition_is_made_whole(world: World, call: str, side: Side) -> None:
    host, uuid = await with_points(world, "a", "b")
    whole, record = defined(host, uuid), journal(host, uuid)
    (host.kill_before if side is Side.BEFORE else host.kill_after)(1, on=call)
    define_short(host, uuid)
    await world.until(lambda: host.faults.struck)
    await world.crash()
    host.faults.forget()
    await world.start()
    await world.until(lambda: defined(host, uuid) == whole and journal(host, uuid) == record)
    host.shutdown(uuid)
    host.start(uuid)
    world.delete("a")
    await world.gone("a")
    assert len(world.chain(host, uuid)) == 2


async def test_another_image_in_the_definition_is_left_alone(world: World) -> None:
    host, uuid = await with_points(world, "a")
    other = DiskDefinition("vda", (Link(rbd("other")),))
    host.storage.create(rbd("other"), capacity=64 << 20)
    host.define("web-1", [other], uuid)
    await world.settled()
    assert defined(host, uuid) == other
    assert not host.faults.changes


async def test_started_short_everything_waits_for_one_more_start(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    whole = defined(host, uuid)
    await world.stop()
    define_short(host, uuid, journal_too=False)
    host.shutdown(uuid)
    host.start(uuid)
    await world.start()
    world.delete("a")
    await world.says("a", "ChainUnknown", "Layers out of sight")
    await world.says("b", "ChainUnknown", "Layers out of sight")
    assert not host.faults.changes
    assert len(world.chain(host, uuid)) == 1

    host.define("web-1", [whole], uuid)  # what the page of operations says
    await world.says("a", "ChainUnknown", "start it once")
    host.shutdown(uuid)
    host.start(uuid)
    await world.gone("a")
    await world.ready("b")
    assert len(world.chain(host, uuid)) == 2


async def test_without_the_journal_a_point_out_of_sight_is_not_lost(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    whole = defined(host, uuid)
    await world.stop()
    define_short(host, uuid)
    host.shutdown(uuid)
    host.start(uuid)
    await world.start()
    await world.says("a", "ChainUnknown")
    world.delete("a")
    await world.says("a", "ChainUnknown", "Layers out of sight")  # gone only when its layer is merged

    host.define("web-1", [whole], uuid)
    host.shutdown(uuid)
    host.start(uuid)
    await world.ready("b")
    await world.gone("a")
    assert len(world.chain(host, uuid)) == 2


async def test_a_definition_that_cannot_be_written_holds_up_nothing(world: World) -> None:
    host, uuid = await with_points(world, "a")
    host.faults.add(1, Side.BEFORE, OperationFailed("read-only storage of definitions"), on="define")
    define_short(host, uuid)
    world.snapshot("b")
    await world.ready("b")
    assert len(world.chain(host, uuid)) == 3


async def test_files_are_left_to_their_headers(world: World) -> None:
    host = world.host()
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    await world.settled()
    host.faults.forget()
    now = defined(host, uuid)
    host.define("web-1", [replace(now, chain=now.chain[:1])], uuid)
    await world.settled()
    assert not host.faults.changes
    assert base_image("web-1").key == now.chain[1].source.key
