"""Sources with parts of their own through the whole engine: what layers above are, and what merges do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from lxml import etree

from controller.chain.source import Source
from controller.hypervisor.simulated import DiskDefinition, Link, SimulatedHost
from tests.reconcile.world import World

BASE = "/images/web-1.qcow2"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.stop()


def machine(host: SimulatedHost, inside: str, attributes: str = "") -> str:
    element = etree.fromstring(f"<source file='{BASE}'{attributes}>{inside}</source>")
    link = Link(Source.from_element("file", element), "qcow2")
    return host.add_domain("web-1", [DiskDefinition("vda", (link,))])


DATA = "<dataStore type='file'><format type='raw'/><source file='/images/data'/></dataStore>"


@pytest.mark.parametrize(
    ("inside", "attributes"),
    [("<seclabel model='dac' relabel='no'/>", ""), ("", " fdgroup='handed-in'")],
    ids=["label", "fdgroup"],
)
async def test_points_of_a_disk_with_a_label_or_handed_in_files(
    world: World, inside: str, attributes: str
) -> None:
    """B18: the layer is a plain file, whatever is said of the one below it."""
    host = world.host()
    world.policy()
    uuid = machine(host, inside, attributes)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    (call,) = [call for call in host.faults.calls if call.name == "create_snapshot"]
    source = etree.fromstring(str(call.arguments["xml"])).find("disks/disk/source")
    assert source is not None
    assert (list(source), set(source.attrib)) == ([], {"file"})
    world.delete("a")
    await world.gone("a")
    assert world.chain(host, uuid) == ["web-1.qcow2"]


async def taken_over_a_data_file(world: World, direction: str) -> tuple[SimulatedHost, str]:
    host = world.host()
    world.policy(merge={"direction": direction})
    uuid = machine(host, DATA)
    await world.start()
    host.guest_write(uuid, "vda", 0, 1)
    world.snapshot("a")
    await world.ready("a")
    (call,) = [call for call in host.faults.calls if call.name == "create_snapshot"]
    assert "dataStore" not in str(call.arguments["xml"])
    host.guest_write(uuid, "vda", 1, 2)
    return host, uuid


async def test_nothing_is_merged_into_an_image_with_a_data_file(world: World) -> None:
    """A5: it has points, and the condition says how to let the first of them go."""
    host, uuid = await taken_over_a_data_file(world, "Commit")
    world.delete("a")
    await world.says("a", "UnsupportedTopology", BASE, "/images/data", "merge.direction: Pull", stalled=True)
    assert len(world.chain(host, uuid)) == 2


@pytest.mark.parametrize("direction", ["Cheapest", "Pull"])
async def test_an_image_with_a_data_file_is_pulled_up(world: World, direction: str) -> None:
    """A5: which only reads it."""
    host, uuid = await taken_over_a_data_file(world, direction)
    world.delete("a")
    await world.gone("a")
    assert len(world.chain(host, uuid)) == 1
    assert host.visible(uuid, "vda") == {0: 1, 1: 2}
    assert host.storage.content_of(f"file:{BASE}") == {0: 1}, "nothing was written into it"


async def test_a_disk_that_says_something_unknown_has_no_points(world: World) -> None:
    """A5: what is not understood is refused, and named."""
    host = world.host()
    world.policy()
    machine(host, "<dedup/>")
    await world.start()
    world.snapshot("a")
    await world.says("a", "DiskUnsupported", "<dedup>", BASE, stalled=True)
