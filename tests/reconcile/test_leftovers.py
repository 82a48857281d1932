"""Images that merges by hand left beside a chain: ours stop nothing (B3), a stranger's are named with two
ways out (B4), and neither is believed to be unused once anybody uses it."""

from __future__ import annotations

import asyncio

from controller.chain.source import Source
from controller.chain.upkeep import SET_ASIDE, TAKEN_OUT
from controller.hypervisor.simulated import DiskDefinition, SimulatedHost
from tests.reconcile.chain_scenes import NAME, commit_by_hand, look_again
from tests.reconcile.scenes import content, journal, with_points
from tests.reconcile.world import World, base_image


def left(host: SimulatedHost, uuid: str) -> list[str]:
    """The leaves of the images that the journal lists as taken out by others."""
    record = journal(host, uuid).disk("vda")
    return [
        removal.layer.source.leaf for removal in record.removals if removal.left in (TAKEN_OUT, SET_ASIDE)
    ]


async def with_a_leftover(world: World) -> tuple[SimulatedHost, str, Source]:
    """Points a, b and c; the overlay of b was committed down by hand and left lying, on that of a."""
    host, uuid = await with_points(world, "a", "b", "c", merge={"direction": "Commit"})
    world.policy_of_chain(NAME, onDrift="Adopt")
    await world.told()
    leftover = host.machine(uuid).live_disk("vda").nodes[1].image.source
    await commit_by_hand(host, uuid, top=1, base=2)
    await world.told()
    return host, uuid, leftover


async def test_a_leftover_of_ours_is_an_orphan_and_stops_nothing(world: World) -> None:
    """B3: its header names the image that the next merge writes to."""
    host, uuid, leftover = await with_a_leftover(world)
    assert left(host, uuid) == [leftover.leaf]
    for name in "abc":
        world.delete(name)
    await world.gone("a", "b", "c")
    assert world.chain(host, uuid) == ["web-1.qcow2"]
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 3: 3, 99: 99}
    assert leftover.key in host.storage.images, "whoever took it out may want it"
    below = host.storage.open(leftover.key).backing
    assert below is not None
    assert below.source.key in host.storage.images, "nor is what it stands on taken away from under it"
    [why] = [one.left for one in journal(host, uuid).disk("vda").removals if one.left != TAKEN_OUT]
    assert leftover.leaf in why


async def test_a_leftover_that_a_machine_starts_from_is_a_user(world: World) -> None:
    host, uuid, leftover = await with_a_leftover(world)
    host.add_domain("clone", [DiskDefinition.of("vda", leftover)], running=False)
    world.delete("a")
    await world.says("a", "ImageProtected", leftover.uri, "disk vda of clone", stalled=True)
    assert not [call for call in host.faults.changes if call.name == "commit"]
    assert content(world, host, uuid, "c")


async def test_a_leftover_that_an_image_of_others_stands_on_is_a_user(world: World) -> None:
    """A machine that is shut off names its top image alone."""
    host, _, leftover = await with_a_leftover(world)
    clone = Source.file("/images/clone.qcow2")
    host.storage.create(clone, capacity=1 << 26, backing=host.storage.open(leftover.key))
    world.delete("a")
    await world.says("a", "ImageProtected", leftover.uri, stalled=True)
    world.edit_chain(NAME, notInUse=["/images/clone.qcow2"])
    await world.gone("a")


async def test_one_that_is_put_back_is_ours_again(world: World) -> None:
    host, uuid = await with_points(world, "a", merge={"direction": "Commit"})
    world.policy_of_chain(NAME, onDrift="Adopt")
    overlay = host.machine(uuid).live_disk("vda").nodes[0].image.source
    host.shutdown(uuid)
    host.define("web-1", [DiskDefinition.of("vda", base_image("web-1"))], uuid)
    host.start(uuid)
    await look_again(world)
    assert left(host, uuid) == [overlay.leaf]
    host.shutdown(uuid)
    host.define("web-1", [DiskDefinition.of("vda", overlay)], uuid)
    host.start(uuid)
    await look_again(world)
    assert not left(host, uuid)
    assert overlay.key in journal(host, uuid).disk("vda").images


async def test_one_that_left_unseen_is_a_user_until_somebody_says_otherwise(world: World) -> None:
    """The machine was started from another definition: what the guest wrote may be in that image alone."""
    host, uuid = await with_points(world, "a", merge={"direction": "Commit"})
    world.policy_of_chain(NAME, onDrift="Adopt")
    overlay = host.machine(uuid).live_disk("vda").nodes[0].image.source
    host.shutdown(uuid)
    host.define("web-1", [DiskDefinition.of("vda", base_image("web-1"))], uuid)
    host.start(uuid)
    await look_again(world)
    world.snapshot("b")
    await world.ready("b")
    world.delete("b")
    await world.says("b", "ImageProtected", overlay.uri, "spec.notInUse", stalled=True)
    world.edit_chain(NAME, notInUse=[overlay.uri])
    await world.gone("b")
    assert overlay.key in host.storage.images


async def test_the_record_of_leftovers_is_bounded(world: World) -> None:
    host, uuid = await with_points(world)
    world.policy_of_chain(NAME, onDrift="Adopt")
    world.snapshot("stays")
    await world.ready("stays")
    for number in range(40):
        world.snapshot(f"p-{number}")
        await world.ready(f"p-{number}")
        await commit_by_hand(host, uuid, top=1, base=2)
        await world.told()
    found = left(host, uuid)
    assert 1 < len(found) <= 32
    assert len(set(found)) == len(found)


async def test_a_strangers_image_is_named_with_two_ways_out(world: World) -> None:
    """B4: it may be anybody's."""
    host, uuid = await with_points(world, "a", "b", merge={"direction": "Commit"})
    base = host.storage.open(base_image("web-1").key)
    names = ["/images/by-hand-1.qcow2", "/images/by-hand-2.qcow2"]
    for name in names:
        host.storage.create(Source.file(name), capacity=1 << 26, backing=base)
    world.delete("a")
    await world.says("a", "ImageProtected", *names, "remove each", "spec.notInUse", stalled=True)
    world.policy_of_chain(NAME, notInUse=names[:1])
    await asyncio.sleep(120)
    message = await world.says("a", "ImageProtected", names[1], stalled=True)
    assert names[0] not in message
    world.edit_chain(NAME, notInUse=names)
    began = world.now()
    await world.gone("a")
    assert (world.now() - began).total_seconds() < 3, "it goes on when the field says so"
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}
    assert all(f"file:{name}" in host.storage.images for name in names)


async def test_what_is_listed_and_used_all_the_same_counts(world: World) -> None:
    """B4: a definition that names it wins."""
    host, _ = await with_points(world, "a", "b", merge={"direction": "Commit"})
    name = "/images/by-hand.qcow2"
    base = host.storage.open(base_image("web-1").key)
    host.storage.create(Source.file(name), capacity=1 << 26, backing=base)
    host.add_domain("web-2", [DiskDefinition.of("vda", Source.file(name))], running=False)
    world.policy_of_chain(NAME, notInUse=[name])
    world.delete("a")
    await world.says("a", "ImageProtected", name, "disk vda of web-2", stalled=True)


async def test_what_stands_on_a_layer_above_the_kept_one_counts(world: World) -> None:
    """It reads through the kept image, and would see what lies above its own layer."""
    host, uuid = await with_points(world, "a", "b", "c", merge={"direction": "Commit"})
    middle = host.machine(uuid).live_disk("vda").nodes[2].image
    host.storage.create(Source.file("/images/clone.qcow2"), capacity=1 << 26, backing=middle)
    world.delete("a")
    world.delete("b")
    await world.says("a", "ImageProtected", "/images/clone.qcow2", stalled=True)
    assert not [call for call in host.faults.changes if call.name == "commit"]
