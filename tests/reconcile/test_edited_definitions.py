"""A1: while the machine runs, somebody makes its stored definition name another image, or the same one in
other words, so that libvirt does not let it follow what is done to the running machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from lxml import etree

from controller.chain.source import Host, Source
from controller.hypervisor.simulated import DiskDefinition, Link, SimulatedHost
from tests.reconcile.scenes import status
from tests.reconcile.world import World

HOSTS = [Host("storage-1"), Host("storage-2")]
GLUSTER = Source.network("gluster", "gv0/web-1.qcow2", HOSTS)
LOCAL = Source.file("/images/web-1.qcow2")

VARIANTS = {
    "another image": (LOCAL, Source.file("/images/reinstalled.qcow2")),
    "another spelling": (LOCAL, Source.file("/images/./web-1.qcow2")),
    "another order of hosts": (GLUSTER, Source.network("gluster", "gv0/web-1.qcow2", HOSTS[::-1])),
    "another address": (GLUSTER, Source.network("gluster", "gv0/web-1.qcow2", [Host("10.0.0.1")])),
    "a volume": (
        LOCAL,
        Source.from_element("volume", etree.Element("source", pool="p", volume="web-1.qcow2")),
    ),
}
"""What runs, and what the definition is made to name."""

BETWEEN = ["nothing", "controller", "libvirtd", "machine"]
"""What is started anew before the definition is set back, or left."""


def machine(world: World, running: Source, edited: Source) -> tuple[SimulatedHost, str]:
    """A machine that runs on ``running``; ``edited`` can be opened as well."""
    host = world.host()
    world.policy()
    uuid = host.add_domain("web-1", {"vda": running})
    host.guest_write(uuid, "vda", 1, 1)
    if edited.type == "volume":
        host.storage.volumes[edited.key] = running
    elif edited.key not in host.storage.images:
        same = edited.footprint == running.footprint
        image = host.storage.create(edited, capacity=64 << 20)
        if same:  # one image that has two names
            host.storage.images[edited.key] = host.storage.open(running.key)
        else:
            image.clusters[5] = 5
    return host, uuid


def edit(host: SimulatedHost, uuid: str, source: Source) -> dict[str, DiskDefinition]:
    """virsh define; gives the definition before."""
    known = host.machine(uuid)
    assert known.definition is not None
    before = dict(known.definition)
    chain = (Link(source), *before["vda"].chain[1:])
    host.define(known.name, [replace(before["vda"], chain=chain)], uuid)
    return before


async def begin_anew(world: World, host: SimulatedHost, uuid: str, what: str) -> None:
    if what == "controller":
        await world.crash()
        await world.start()
    elif what == "libvirtd":
        host.restart_libvirtd()
    elif what == "machine":
        host.shutdown(uuid)
        host.start(uuid)
    await asyncio.sleep(60)
    await world.settled()


def clusters(host: SimulatedHost) -> Iterator[tuple[int, int]]:
    """All that is in any image."""
    for image in host.storage.images.values():
        yield from image.clusters.items()


def nothing_is_lost(host: SimulatedHost) -> None:
    """What the guest wrote is in some image. The last value of each cluster is enough."""
    assert {(1, 1), (2, 2), (3, 3)} <= set(clusters(host)), "what the guest wrote is in no image"


def moment_is_right(world: World, host: SimulatedHost, name: str, taken: dict[int, int]) -> None:
    """An object that is ready holds the moment that it was taken at, and no other."""
    if world.is_ready(name):
        held = Source.from_uri(status(world, name)["layer"]["source"]).footprint
        assert [
            host.content_of(i.key) for i in set(host.storage.images.values()) if i.source.footprint == held
        ] == [taken]


def differs(world: World, name: str) -> Callable[[], bool]:
    return lambda: world.condition(name)[1] == "DefinitionDiffers"


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("variant", VARIANTS)
async def test_edited_before_a_take(world: World, variant: str, between: str) -> None:
    """No take while the two differ, and the object says so. Set back, or once the machine was started from
    what is stored, the point is taken."""
    running, edited = VARIANTS[variant]
    host, uuid = machine(world, running, edited)
    await world.start()
    before = edit(host, uuid, edited)
    world.snapshot("a")
    await world.until(differs(world, "a"), 60)
    assert world.condition("a", "Stalled")[0] == "True", "only a person can mend it"
    assert not [call for call in host.faults.changes if call.name == "create_snapshot"]
    host.guest_write(uuid, "vda", 2, 2)
    if between == "machine":
        host.shutdown(uuid)
        host.start(uuid)
        if edited.type == "volume":  # which has no place beside it
            await world.until(lambda: world.condition("a")[1] == "OverlayRequired", 60)
            return
    else:
        await begin_anew(world, host, uuid, between)
        assert differs(world, "a")()
        host.define("web-1", list(before.values()), uuid)
    await world.until(lambda: world.is_ready("a"), 120)
    other = between == "machine" and variant == "another image"
    host.guest_write(uuid, "vda", 3, 3)
    moment_is_right(world, host, "a", {5: 5} if other else {1: 1, 2: 2})
    guest = host.visible(uuid, "vda")
    host.shutdown(uuid)
    host.start(uuid)
    assert host.visible(uuid, "vda") == guest
    nothing_is_lost(host)


@pytest.mark.parametrize("set_back", [False, True])
@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("variant", VARIANTS)
async def test_edited_in_the_very_moment_of_a_take(
    world: World, variant: str, between: str, set_back: bool
) -> None:
    """The overlay is in the live chain alone, and stays whatever comes: it has what the guest wrote since."""
    running, edited = VARIANTS[variant]
    host, uuid = machine(world, running, edited)
    await world.start()
    before: dict[str, DiskDefinition] = {}

    def edit_now() -> None:
        before.update(edit(host, uuid, edited))

    host.before_call("create_snapshot", edit_now)
    world.snapshot("a")
    await world.until(lambda: before, 20)
    host.guest_write(uuid, "vda", 2, 2)
    await begin_anew(world, host, uuid, "nothing")
    host.guest_write(uuid, "vda", 3, 3)
    await begin_anew(world, host, uuid, between)
    if set_back:
        host.define("web-1", list(before.values()), uuid)
    await begin_anew(world, host, uuid, "nothing")
    nothing_is_lost(host)
    moment_is_right(world, host, "a", {1: 1})
    host.shutdown(uuid)
    host.start(uuid)
    await begin_anew(world, host, uuid, "controller")
    nothing_is_lost(host)
    moment_is_right(world, host, "a", {1: 1})
    names = world.condition("a")
    assert all(names), "the object says where it stands"
