"""B10: a storage server gets another address while the machine is off, and everything goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from controller.chain.access import at_servers_of
from controller.chain.source import Host, Source
from controller.hypervisor.simulated import DiskDefinition, Link, SimulatedHost
from tests.reconcile.test_lent_places import at, journal
from tests.reconcile.world import World

OLD, NEW = "10.0.0.1", "10.0.0.2"
BASES = {
    "gluster": Source.network("gluster", "gv0/web-1.qcow2", [Host(OLD, "24007")]),
    "rbd": Source.network("rbd", "pool/web-1", [Host(OLD, "6789")]),
    "nbd": Source.network("nbd", "web-1", [Host(OLD, "10809")]),
}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.stop()


def move_server(host: SimulatedHost, uuid: str, old: str = OLD, new: str = NEW) -> None:
    """The server has another address, and so has every image of it in the machine's definition."""

    def there(source: Source) -> Source:
        if not any(one.name == old for one in source.hosts):
            return source
        servers = [replace(one, name=new) for one in source.hosts]
        return at_servers_of(source, Source.network(source.protocol, "model", servers))

    images = list(host.storage.images.values())
    host.storage.images.clear()
    for image in images:
        image.source = there(image.source)
        if image.backing is not None:
            image.backing = replace(image.backing, source=there(image.backing.source))
        host.storage.images[image.key] = image
    machine = host.machine(uuid)
    assert machine.definition is not None
    disks = [
        replace(disk, chain=tuple(Link(there(link.source), link.format) for link in disk.chain))
        for disk in machine.definition.values()
    ]
    host.define(machine.name, disks, uuid)


def on(world: World, protocol: str) -> tuple[SimulatedHost, str]:
    host = world.host()
    world.policy(merge={"direction": "Commit"})
    base = BASES[protocol]
    host.storage.create(base, capacity=1 << 20, format="raw")
    return host, host.add_domain("web-1", [DiskDefinition.of("vda", base, "raw")])


def place(protocol: str, name: str) -> dict[str, object]:
    if protocol != "nbd":
        return {}
    return {"overlay": at(name, hosts=[{"name": OLD, "port": 10809}])}


@pytest.mark.parametrize("protocol", BASES)
@pytest.mark.parametrize("running", [True, False], ids=["started again", "still off"])
async def test_the_record_follows(world: World, protocol: str, *, running: bool) -> None:
    host, uuid = on(world, protocol)
    if protocol == "nbd":
        for name in ("spare-1", "spare-2"):
            host.storage.create(
                Source.network("nbd", name, [Host(OLD, "10809")]), capacity=2 << 20, format="raw"
            )
    await world.start()
    host.guest_write(uuid, "vda", 0, 1)
    for number, name in enumerate(("a", "b")):
        world.snapshot(name, **place(protocol, f"spare-{number + 1}"))
        await world.ready(name)
        host.guest_write(uuid, "vda", number + 1, 1)
    content = host.visible(uuid, "vda")
    host.shutdown(uuid)
    await world.settled()
    move_server(host, uuid)
    if running:
        host.start(uuid)
    await world.until(lambda: world.events("LayersMoved"))
    await world.ready("a", "b")
    assert any(f"://{OLD}" in text and f"://{NEW}" in text for text in world.events("LayersMoved"))
    assert world.object("a")["status"]["layer"]["source"].startswith(f"{protocol}://{NEW}")
    if not running:
        host.start(uuid)
    assert f"://{OLD}" not in await journal(host, uuid)
    world.delete("a")
    await world.gone("a")
    world.delete("b")
    await world.gone("b")
    assert len(world.chain(host, uuid)) == 1
    assert host.visible(uuid, "vda") == content
    if protocol != "nbd":
        assert len(host.storage.images) == 1, "what varve made is removed, at its new address"


async def test_it_moves_while_no_controller_runs(world: World) -> None:
    host, uuid = on(world, "gluster")
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    await world.stop()
    host.shutdown(uuid)
    move_server(host, uuid)
    host.start(uuid)
    await world.start()
    world.delete("a")
    await world.gone("a")
    assert len(host.storage.images) == 1


async def test_what_may_be_another_image_waits_for_a_person(world: World) -> None:
    """The overlay is a file; of the base below it only the name is known."""
    host, uuid = on(world, "nbd")
    world.policy_of_chain("mine", onDrift="Report")
    await world.start()
    world.snapshot("a", overlay={"directory": "/fast"})
    await world.ready("a")
    host.shutdown(uuid)
    await world.settled()
    move_server(host, uuid)
    host.start(uuid)
    await world.says("a", "ChainDiverged", f"nbd://{NEW}", "onDrift: Adopt", stalled=True)
    world.delete("a")
    await world.says("a", "ChainDiverged", stalled=True)
    assert len(world.chain(host, uuid)) == 2
    world.edit_chain("mine", onDrift="Adopt")
    await world.gone("a")
    assert len(world.chain(host, uuid)) == 1


async def test_set_back_it_goes_on_as_before(world: World) -> None:
    host, uuid = on(world, "nbd")
    await world.start()
    world.snapshot("a", overlay={"directory": "/fast"})
    await world.ready("a")
    host.shutdown(uuid)
    await world.settled()
    move_server(host, uuid)
    await world.says("a", "ChainDiverged", stalled=True)
    move_server(host, uuid, NEW, OLD)
    await world.ready("a")
