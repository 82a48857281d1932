"""``overlay.source``: places that were made beforehand are used if nobody names them, and given back."""

from __future__ import annotations

from typing import Any

import pytest
from lxml import etree

from controller.chain.parse import parse_domain
from controller.chain.source import Host, Source
from controller.hypervisor.driver import DomainReading
from controller.hypervisor.simulated import DiskDefinition, Link, SimulatedHost
from tests.reconcile.world import World, base_image

SIZE = 1 << 20
SERVER = [Host("127.0.0.1", "10809")]


def export(name: str) -> Source:
    return Source.network("nbd", name, SERVER)


def at(name: str, **changes: Any) -> dict[str, Any]:
    """The spec's words for an export."""
    place = {"protocol": "nbd", "name": name, "hosts": [{"name": "127.0.0.1", "port": 10809}], **changes}
    return {"source": place}


def exports(host: SimulatedHost, *names: str) -> None:
    for name in names:
        host.storage.create(export(name), capacity=2 * SIZE, format="raw")


def on_nbd(host: SimulatedHost, name: str = "web-1", base: str = "base") -> str:
    exports(host, base)
    disk = DiskDefinition.of("vda", export(base), "raw")
    return host.add_domain(name, [disk], capacity=SIZE)


async def reading(host: SimulatedHost, uuid: str) -> DomainReading:
    return await host.by_hand().read(uuid)


async def journal(host: SimulatedHost, uuid: str) -> str:
    live = (await reading(host, uuid)).live_xml
    assert live is not None
    return parse_domain(live).journal_xml or ""


async def test_an_export_is_formatted_and_given_back(world: World) -> None:
    host = world.host()
    world.policy(merge={"direction": "Commit"})
    uuid = on_nbd(host)
    exports(host, "spare", "other")
    await world.start()
    host.guest_write(uuid, "vda", 0, 1)
    world.snapshot("a", overlay=at("spare"))
    await world.ready("a")
    host.guest_write(uuid, "vda", 1, 2)
    assert world.chain(host, uuid) == ["spare", "base"]
    assert '<lent key="nbd://127.0.0.1:10809/spare"/>' in await journal(host, uuid)
    world.snapshot("b", overlay=at("other"))
    await world.ready("b")
    world.delete("a")
    await world.gone("a")
    assert world.chain(host, uuid) == ["other", "base"]
    assert export("spare").key in host.storage.images, "a place that was lent is not removed"
    assert not world.events("ImageLeft"), "nor is it an orphan"
    world.snapshot("c", overlay=at("spare"))
    await world.ready("c")
    assert world.chain(host, uuid) == ["spare", "other", "base"]
    world.delete("b")
    world.delete("c")
    await world.gone("b", "c")
    assert world.chain(host, uuid) == ["base"]
    assert await journal(host, uuid) == ""
    assert host.visible(uuid, "vda") == {0: 1, 1: 2}
    assert not [call for call in host.faults.calls if call.name == "remove_image"]


async def test_one_that_is_used_on_this_or_another_hypervisor_is_not_written_over(world: World) -> None:
    host, other = world.host("host-a"), world.host("host-b")
    world.policy()
    on_nbd(host)
    exports(host, "base-2")
    host.add_domain("web-2", [DiskDefinition("vda", (Link(export("base-2"), "raw"),))], running=False)
    on_nbd(other, "web-3", "base-3")
    await world.start()
    for name, words in (
        ("base", "disk vda of web-1"),
        ("base-2", "disk vda of web-2"),
        ("base-3", "disk vda of web-3 on Hypervisor host-b"),
    ):
        world.snapshot(name, overlay=at(name))
        await world.says(name, "OverlayUnusable", "it is in use", f"{words} names it", stalled=True)
    assert not [call for call in host.faults.calls if call.name in {"create_snapshot", "set_metadata"}]


async def test_one_place_for_two_machines_goes_to_one(world: World) -> None:
    host = world.host()
    world.policy(merge={"direction": "Commit"})
    uuids = [on_nbd(host, name, f"base-{name}") for name in ("web-1", "web-2")]
    exports(host, "spare")
    await world.start()
    world.snapshot("a", "web-1", overlay=at("spare"))
    world.snapshot("b", "web-2", overlay=at("spare"))
    await world.until(lambda: world.is_ready("a") or world.is_ready("b"), 120)
    winner, loser = ("a", "b") if world.is_ready("a") else ("b", "a")
    await world.says(loser, "OverlayUnusable", "spare", stalled=True)
    assert sorted(len(world.chain(host, uuid)) for uuid in uuids) == [1, 2]
    world.delete(winner)
    await world.gone(winner)
    await world.until(lambda: world.is_ready(loser), 120)


async def test_one_place_for_two_disks_of_a_machine_goes_to_one(world: World) -> None:
    host = world.host()
    world.policy()
    exports(host, "spare")
    disks = {target: base_image(target) for target in ("vda", "vdb")}
    uuid = host.add_domain("web-1", disks, capacity=SIZE)
    world.snapshot("a", overlay=at("spare"))
    world.snapshot("b", disk="vdb", overlay=at("spare"))
    await world.start()
    await world.ready("a")
    await world.says("b", "OverlayUnusable", "spare", stalled=True)
    assert [len(world.chain(host, uuid, target)) for target in ("vda", "vdb")] == [2, 1]


async def test_it_waits_for_a_hypervisor_that_cannot_be_asked(world: World) -> None:
    host, other = world.host("host-a"), world.host("host-b")
    world.policy()
    on_nbd(host)
    exports(host, "spare")
    other.stop_libvirtd()
    await world.start()
    world.snapshot("a", overlay=at("spare"))
    await world.says("a", "HypervisorUnreachable", "host-b", "does not answer")
    other.start_libvirtd()
    await world.until(lambda: world.is_ready("a"), 120)


async def test_what_a_failed_take_leaves_is_no_orphan(world: World) -> None:
    host = world.host()
    world.policy()
    uuid = on_nbd(host)
    await world.start()
    world.snapshot("a", overlay=at("missing"))
    await world.says("a", "Failed", "missing")
    assert "removal" not in await journal(host, uuid)
    exports(host, "missing")
    await world.until(lambda: world.is_ready("a"), 120)


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ({"path": "/dev/vg0/x"}, "block:/dev/vg0/x"),
        ({"protocol": "iscsi", "name": "iqn.2024-01.org:t/1", "hosts": [{"name": "san"}]}, None),
        ({"protocol": "nbd", "name": "e", "hosts": [{"socket": "/run/nbd.sock"}]}, None),
    ],
)
async def test_other_kinds_of_places(world: World, place: dict[str, Any], key: str | None) -> None:
    host = world.host()
    world.policy()
    sources = {
        "iscsi": Source.network("iscsi", "iqn.2024-01.org:t/1", [Host("san", "3260")]),
        "nbd": Source.network("nbd", "e", [Host(transport="unix", socket="/run/nbd.sock")]),
    }
    source = sources.get(place.get("protocol", "")) or Source.from_element(
        "block", etree.Element("source", dev="/dev/vg0/x")
    )
    host.storage.create(source, capacity=2 * SIZE, format="raw")
    uuid = host.add_domain("web-1", {"vda": base_image("web-1")}, capacity=SIZE)
    await world.start()
    world.snapshot("a", overlay={"source": place})
    await world.ready("a")
    assert host.machine(uuid).live_disk("vda").active.key == (key or source.key)
    world.delete("a")
    await world.gone("a")
    assert source.key in host.storage.images


PREPARED = at("spare", content="Prepared")
DISK = 2 * SIZE
"""What the guest has on a raw export: all of it."""


async def test_an_overlay_that_was_prepared_is_used_as_it_is(world: World) -> None:
    host = world.host()
    world.policy(merge={"direction": "Commit"})
    uuid = on_nbd(host)
    below = host.storage.open(export("base").key)
    made = host.storage.create(export("spare"), capacity=DISK, backing=below)
    await world.start()
    host.guest_write(uuid, "vda", 0, 1)
    world.snapshot("a", overlay=PREPARED)
    await world.ready("a")
    assert host.machine(uuid).live_disk("vda").active.image is made
    world.delete("a")
    await world.gone("a")
    assert export("spare").key in host.storage.images
    assert host.visible(uuid, "vda") == {0: 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"capacity": SIZE}, "virtual size"),
        ({"content": {3: 3}}, "holds data already"),
        ({"backing": None}, "names no image below it"),
        ({"format": "raw"}, "no qcow2 image"),
    ],
)
async def test_one_that_is_not_what_it_should_be_is_refused(
    world: World, changes: dict[str, Any], words: str
) -> None:
    host = world.host()
    world.policy()
    on_nbd(host)
    below = host.storage.open(export("base").key)
    host.storage.create(export("spare"), **{"capacity": DISK, "backing": below, **changes})
    await world.start()
    world.snapshot("a", overlay=PREPARED)
    await world.says("a", "OverlayUnusable", "content: Prepared", words, stalled=True)
    assert not [call for call in host.faults.calls if call.name in {"create_snapshot", "set_metadata"}]
    host.storage.create(export("spare"), capacity=DISK, backing=below)
    await world.until(lambda: world.is_ready("a"), 120)


async def test_prepared_and_other_overlays_are_not_taken_in_one_call(world: World) -> None:
    """Whether overlays exist already is said of a whole call."""
    host = world.host()
    world.policy()
    disks = {target: base_image(target) for target in ("vda", "vdb")}
    uuid = host.add_domain("web-1", disks, capacity=SIZE)
    host.storage.create(export("spare"), capacity=SIZE, backing=host.storage.open(disks["vdb"].key))
    world.snapshot("a")
    world.snapshot("b", disk="vdb", overlay=PREPARED)
    await world.start()
    await world.ready("a", "b")
    assert [len(world.chain(host, uuid, target)) for target in ("vda", "vdb")] == [2, 2]
    calls = [call for call in host.faults.calls if call.name == "create_snapshot"]
    assert [call.arguments["reuse"] for call in calls] == [False, True]
