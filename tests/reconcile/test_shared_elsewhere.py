"""A base on the network that machines of several hypervisors read through is written to by none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from controller.chain.source import Host, Source
from controller.hypervisor.errors import OutcomeUnknown
from controller.hypervisor.simulated import DiskDefinition, Link, SimulatedHost
from controller.hypervisor.simulated.faults import Side
from tests.reconcile.scenes import EVERYBODY
from tests.reconcile.world import World, base_image

SIZE = 1 << 20
GOLDEN = {
    "gluster": Source.network("gluster", "gv0/golden.qcow2", [Host("g1", "24007"), Host("g2", "24007")]),
    "rbd": Source.network("rbd", "images/golden", [Host("ceph-1", "6789")]),
    "nbd": Source.network("nbd", "golden", [Host("10.0.0.5", "10809")]),
}
LOCAL = {"directory": "/images"}


def golden_on(host: SimulatedHost, golden: Source) -> str:
    """A machine whose disk is the golden image itself; its points become layers over it."""
    host.storage.create(golden, capacity=SIZE, content={7: 7}, format="raw")
    return host.add_domain("web-1", [DiskDefinition.of("vda", golden, "raw")], capacity=SIZE)


def reader_on(host: SimulatedHost, golden: Source, *, running: bool = True, name: str = "reader") -> str:
    """A machine that reads through the golden image and writes to a layer of its own."""
    below = host.storage.create(golden, capacity=SIZE, content={7: 7}, format="raw")
    top = base_image(name)
    host.storage.create(top, capacity=SIZE, backing=below)
    chain = (Link(top, "qcow2"), Link(golden, "raw"))
    return host.add_domain(name, [DiskDefinition("vda", chain)], running=running, capacity=SIZE)


async def two_points(world: World, host: SimulatedHost, uuid: str) -> None:
    for number, name in enumerate(("a", "b"), 1):
        world.snapshot(name, overlay=LOCAL)
        await world.ready(name)
        host.guest_write(uuid, "vda", number, number)


async def gone_in_time(world: World, *names: str) -> None:
    """What waited for another hypervisor is looked at again without an event."""
    await world.until(lambda: not any(world.object(name) for name in names), 120)


def sweeps(hosts: Iterable[SimulatedHost]) -> int:
    """How often all definitions of these hosts were read."""
    return sum(call.name == "definitions" for host in hosts for call in host.faults.calls)


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("protocol", GOLDEN)
async def test_a_reader_elsewhere_holds_up_every_write(world: World, protocol: str, running: bool) -> None:
    host, other = world.host("host-a"), world.host("host-b")
    world.policy()
    golden = GOLDEN[protocol]
    uuid = golden_on(host, golden)
    by_any_host = Source.network(golden.protocol, golden.name, golden.hosts[-1:])
    reader_on(other, by_any_host, running=running)
    await world.start()
    await two_points(world, host, uuid)
    world.delete("a")  # only a commit into the golden image could remove it
    words = "disk vda of reader on Hypervisor host-b"
    await world.says("a", "ImageProtected", words, golden.uri, stalled=True)
    assert not [call for call in host.faults.calls if call.name == "commit"]
    world.delete("b")  # a pull writes to nobody else's image
    await world.gone("a", "b")
    assert host.storage.images[golden.key].clusters == {7: 7}
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 7: 7}


async def test_it_goes_on_when_the_reader_is_gone(world: World) -> None:
    host, other = world.host("host-a"), world.host("host-b")
    world.policy()
    uuid = golden_on(host, GOLDEN["gluster"])
    reader = reader_on(other, GOLDEN["gluster"])
    await world.start()
    await two_points(world, host, uuid)
    world.delete("a")
    await world.says("a", "ImageProtected", "host-b", stalled=True)
    other.shutdown(reader)
    other.undefine(reader)
    await world.gone("a")  # the event of that is heard: sooner than the next look that is due
    assert world.is_ready("b")
    assert host.storage.images[GOLDEN["gluster"].key].clusters == {1: 1, 7: 7}


async def test_what_happens_elsewhere_is_looked_at_once_for_a_burst(world: World) -> None:
    host, other = world.host("host-a"), world.host("host-b")
    world.policy()
    uuid = golden_on(host, GOLDEN["gluster"])
    reader_on(other, GOLDEN["gluster"])
    await world.start()
    await two_points(world, host, uuid)
    world.delete("a")
    await world.says("a", "ImageProtected", "host-b", stalled=True)
    for each in (host, other):
        each.faults.forget()
    for number in range(20):
        base = base_image(f"busy-{number}")
        other.storage.create(base, capacity=SIZE)
        busy = other.add_domain(f"busy-{number}", [DiskDefinition.of("vda", base, "raw")], capacity=SIZE)
        other.shutdown(busy)
    await asyncio.sleep(10)
    assert sweeps([other]) == 1
    assert world.condition("a")[1] == "ImageProtected"


async def test_unknown_is_not_absent(world: World) -> None:
    """It waits for a hypervisor that does not answer, and takes no dearer way meanwhile."""
    host, other = world.host("host-a"), world.host("host-b")
    world.policy(merge={"direction": "Commit"})
    uuid = golden_on(host, GOLDEN["rbd"])
    other.stop_libvirtd()
    await world.start()
    await two_points(world, host, uuid)
    world.delete("b")
    world.delete("a")
    for name in ("a", "b"):
        await world.says(name, "HypervisorUnreachable", "host-b", "delete its Hypervisor object")
    assert not [call for call in host.faults.calls if call.name in {"commit", "pull"}]
    other.start_libvirtd()
    await world.gone("a", "b")


async def test_what_is_gone_for_good_is_waited_for_until_its_object_goes(world: World) -> None:
    host, other = world.host("host-a"), world.host("host-b")
    world.policy()
    uuid = golden_on(host, GOLDEN["gluster"])
    other.stop_libvirtd()
    await world.start()
    await two_points(world, host, uuid)
    world.delete("a")
    await world.says("a", "HypervisorUnreachable", "host-b")
    world.delete_hypervisor("host-b")
    await gone_in_time(world, "a")


async def test_one_that_cannot_even_be_tried_is_not_absent_either(world: World) -> None:
    host = world.host("host-a")
    world.policy()
    world.create_hypervisor("host-b", {"uri": "qemu+tcp://somewhere/system", "access": EVERYBODY})
    uuid = golden_on(host, GOLDEN["gluster"])
    await world.start()
    await two_points(world, host, uuid)
    world.delete("a")
    await world.says("a", "HypervisorUnreachable", "host-b")


async def test_an_answer_that_does_not_come_is_no_answer(world: World) -> None:
    host, other = world.host("host-a"), world.host("host-b")
    world.policy()
    uuid = golden_on(host, GOLDEN["gluster"])
    await world.start()
    await two_points(world, host, uuid)
    other.faults.add(1, Side.BEFORE, OutcomeUnknown("no answer within 60 s"), on="definitions")
    world.delete("a")
    await world.until(lambda: world.condition("a")[1] == "HypervisorUnreachable")
    await gone_in_time(world, "a")


async def test_a_local_file_is_compared_on_its_own_hypervisor_and_costs_nothing(world: World) -> None:
    host, other = world.host("host-a"), world.host("host-b")
    world.policy()
    golden = Source.file("/golden/base.qcow2")
    uuid = golden_on(host, golden)
    reader_on(other, golden)
    await world.start()
    await two_points(world, host, uuid)
    other.faults.forget()
    world.delete("a")
    await world.gone("a")
    assert sweeps([other]) == 0
    assert host.storage.images[golden.key].clusters == {1: 1, 7: 7}


async def test_a_machine_that_moved_is_not_in_its_own_way(world: World) -> None:
    """A migration may leave the definition behind: the same machine, with nothing that it does not know."""
    host, other = world.host("host-a"), world.host("host-b")
    world.policy()
    golden = GOLDEN["gluster"]
    uuid = golden_on(host, golden)
    other.storage.create(golden, capacity=SIZE, content={7: 7}, format="raw")
    disk = DiskDefinition.of("vda", golden, "raw")
    other.add_domain("web-1", [disk], uuid=uuid, running=False, capacity=SIZE)
    await world.start()
    await two_points(world, host, uuid)
    world.delete("a")
    await world.gone("a")


async def test_another_machine_with_the_same_uuid_is_another_machine(world: World) -> None:
    host, other = world.host("host-a"), world.host("host-b")
    world.policy()
    golden = GOLDEN["gluster"]
    uuid = golden_on(host, golden)
    await world.start()
    await two_points(world, host, uuid)
    below = other.storage.create(golden, capacity=SIZE, content={7: 7}, format="raw")
    other.storage.create(base_image("copy"), capacity=SIZE, backing=below)
    chain = (Link(base_image("copy"), "qcow2"), Link(golden, "raw"))
    other.add_domain("copy", [DiskDefinition("vda", chain)], uuid=uuid, running=False, capacity=SIZE)
    world.delete("a")
    await world.says("a", "ImageProtected", "disk vda of copy on Hypervisor host-b", stalled=True)


async def test_an_image_on_the_network_is_not_removed_while_somebody_may_read_it(world: World) -> None:
    """A pull writes to nobody else's image, so it goes on; what it leaves over waits."""
    host, other = world.host("host-a"), world.host("host-b")
    world.policy(merge={"direction": "Pull"})
    golden = GOLDEN["gluster"]
    uuid = golden_on(host, golden)
    await world.start()
    for number, name in enumerate(("a", "b"), 1):
        world.snapshot(name)
        await world.ready(name)
        host.guest_write(uuid, "vda", number, number)
    other.stop_libvirtd()
    world.delete("b")
    words = "the layer is merged; its image gluster://"
    await world.until(lambda: words in world.condition("b")[2])
    await world.until(lambda: any("Hypervisor host-b" in note for note in world.details()))
    assert len(world.chain(host, uuid)) == 2
    assert not [call for call in host.faults.calls if call.name == "remove_image"]
    other.start_libvirtd()
    await gone_in_time(world, "b")
    assert [call for call in host.faults.calls if call.name == "remove_image"]
