"""Images that varve left: kept in the journals, shown by their hypervisor, written only when changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controller.api.hypervisor import MOST_ORPHANS
from controller.chain.journal_codec import encode
from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.source import Host, Source
from controller.hypervisor.errors import Unreachable
from controller.hypervisor.simulated import DiskDefinition, SimulatedHost
from controller.kube.kinds import HYPERVISOR, Raw
from tests.reconcile.scenes import journal, web
from tests.reconcile.world import World


def shown(world: World, name: str = "host-a") -> Raw | None:
    """What the Hypervisor says of orphans."""
    raw = world.kube.object(HYPERVISOR, None, name)
    assert raw is not None
    found: Raw | None = raw.get("status", {}).get("orphanImages")
    return found


def written(world: World) -> int:
    """How often the status of a Hypervisor was written."""
    return sum(call.writes and call.name == "host-a" for call in world.kube.calls)


async def leave_one(world: World, name: str = "a", domain: str = "web-1") -> None:
    """Take a point and merge it away, on storage that lets no image go."""
    world.snapshot(name, domain=domain)
    await world.ready(name)
    world.delete(name)
    await world.gone(name)
    await world.settled()


@pytest.fixture
def host(world: World) -> SimulatedHost:
    """Without storage drivers of libvirt: nothing on the network can be removed, and nothing looked into."""
    host = world.host()
    host.storage.drivers = frozenset({"dir"})
    world.policy(merge={"direction": "Commit"})
    return host


def on_ceph(host: SimulatedHost, name: str = "web-1") -> str:
    image = Source.network("rbd", f"pool/{name}", [Host("vm")])
    return host.add_domain(name, [DiskDefinition.of("vda", image)])


async def test_an_image_that_is_left_is_shown_with_why_and_since_when(
    world: World, host: SimulatedHost
) -> None:
    uuid = on_ceph(host)
    await world.start()
    await world.settled()
    assert shown(world) is None
    world.kube.forget_calls()
    await leave_one(world)
    found = shown(world)
    assert found is not None
    [removal] = journal(host, uuid).disk("vda").removals
    assert found == {
        "count": 1,
        "images": [
            {
                "image": removal.layer.source.uri,
                "domain": "web-1",
                "disk": "vda",
                "reason": removal.left,
                "since": removal.since,
            }
        ],
    }
    assert removal.since
    assert written(world) == 1
    await asyncio.sleep(5)  # times are kept in seconds
    await leave_one(world, "b")
    again = shown(world)
    assert again is not None
    assert again["count"] == 2
    assert again["images"][0] == found["images"][0], "the oldest first"
    assert written(world) == 2


async def test_a_new_process_finds_them_and_writes_nothing(world: World, host: SimulatedHost) -> None:
    """Nobody has a VolumeSnapshot of the domain any more, so no pass reads its journal."""
    on_ceph(host)
    await world.start()
    await leave_one(world)
    before = shown(world)
    assert before is not None
    await world.stop()
    world.kube.forget_calls()
    await world.start()
    await world.settled()
    assert shown(world) == before
    assert not world.kube.writes
    await leave_one(world, "b")
    found = shown(world)
    assert found is not None
    assert found["count"] == 2


async def test_what_happens_while_no_process_runs_is_found(world: World, host: SimulatedHost) -> None:
    uuid = on_ceph(host)
    on_ceph(host, "web-2")
    await world.start()
    await leave_one(world)
    await leave_one(world, "b", "web-2")
    await world.stop()
    machine = host.machine(uuid)
    for metadata in (machine.config_metadata, machine.live_metadata):
        metadata.pop(JOURNAL_NAMESPACE, None)
    await world.start()
    await world.until(lambda: (shown(world) or {}).get("count") == 1)
    found = shown(world)
    assert found is not None
    assert found["images"][0]["domain"] == "web-2"


async def test_a_domain_that_goes_takes_its_journal_with_it(world: World, host: SimulatedHost) -> None:
    uuid = on_ceph(host)
    web(host, "web-2")
    await world.start()
    await leave_one(world)
    assert shown(world) is not None
    host.shutdown(uuid)
    host.undefine(uuid)
    await world.until(lambda: shown(world) is None, 60)


async def test_records_of_other_clusters_and_unreadable_ones_are_not_counted(
    world: World, host: SimulatedHost
) -> None:
    mine, theirs, broken = (on_ceph(host, name) for name in ("web-1", "web-2", "web-3"))
    await world.start()
    await leave_one(world)
    record = journal(host, mine)
    await world.stop()
    foreign = encode(replace(record, cluster="another"))
    assert foreign is not None
    for uuid, text in ((theirs, foreign), (broken, foreign.replace('version="1"', 'version="9"'))):
        machine = host.machine(uuid)
        for metadata in (machine.config_metadata, machine.live_metadata):
            metadata[JOURNAL_NAMESPACE] = text
    world.kube.forget_calls()
    await world.start()
    await world.settled()
    found = shown(world)
    assert found is not None
    assert found["count"] == 1
    assert not world.kube.writes


async def test_a_long_inventory_is_cut_and_counted(world: World, host: SimulatedHost) -> None:
    uuid = on_ceph(host)
    await world.start()
    await leave_one(world)
    [removal] = journal(host, uuid).disk("vda").removals
    await world.stop()
    record = journal(host, uuid)
    disk = record.disk("vda")
    many = tuple(
        replace(
            removal,
            left="x" * 5000,
            layer=replace(
                removal.layer, source=Source.network("gluster", f"gv0/{n:04}{'y' * 2000}", [Host("vm")])
            ),
        )
        for n in range(MOST_ORPHANS + 10)
    )
    text = encode(record.with_disk(replace(disk, removals=many)))
    assert text is not None
    machine = host.machine(uuid)
    for metadata in (machine.config_metadata, machine.live_metadata):
        metadata[JOURNAL_NAMESPACE] = text
    await world.start()
    await world.until(lambda: (shown(world) or {}).get("count") == MOST_ORPHANS + 10)
    found = shown(world)
    assert found is not None
    assert len(found["images"]) == MOST_ORPHANS
    assert max(len(value) for image in found["images"] for value in image.values()) <= 1024


async def test_a_hypervisor_that_is_away_keeps_what_was_last_known(world: World, host: SimulatedHost) -> None:
    on_ceph(host)
    await world.start()
    await leave_one(world)
    before = shown(world)
    await world.stop()

    async def refuse(_sink: object) -> object:
        raise Unreachable("connection refused")

    world.make_connector = lambda _uri: refuse
    await world.start()
    await asyncio.sleep(120)
    assert shown(world) == before
