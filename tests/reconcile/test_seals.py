"""Records are sealed: upgrades, roll-backs, keys that change, and what people see of a record of others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lxml import etree

from controller.chain.journal import Journal, Removal
from controller.chain.journal_codec import decode, encode, read
from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.seal import Sealing, Seals, Trust
from controller.chain.source import Source
from controller.hypervisor.simulated import SimulatedHost
from tests.chain import builders as b
from tests.reconcile.scenes import content, journal, web, with_points
from tests.reconcile.world import KEY, World

OTHER_KEY = b"another key, of at least 32 bytes"


def write(host: SimulatedHost, uuid: str, xml: str | None) -> None:
    """virsh metadata, live and config."""
    machine = host.machine(uuid)
    for metadata in (machine.live_metadata, machine.config_metadata):
        metadata.pop(JOURNAL_NAMESPACE, None)
        if xml is not None:
            metadata[JOURNAL_NAMESPACE] = xml


def written(host: SimulatedHost, uuid: str) -> str:
    """The journal of the running machine, as it stands there."""
    return host.machine(uuid).live_metadata[JOURNAL_NAMESPACE]


def trust(host: SimulatedHost, uuid: str, key: bytes = KEY) -> set[Trust]:
    """What the seals of both definitions say."""
    machine = host.machine(uuid)
    texts = (machine.live_metadata[JOURNAL_NAMESPACE], machine.config_metadata[JOURNAL_NAMESPACE])
    return {t for text in texts for t in read(text, Sealing(Seals(key)), domain=uuid).trust.values()}


def unsealed(journal: Journal) -> str:
    """As a version before seals writes it."""
    return encode(journal) or ""


def changed(journal_xml: str) -> str:
    """Sealed, with a removal that somebody has added."""
    root = etree.fromstring(journal_xml)
    removal = Removal(b.layer("victim"), since=b.TAKEN)
    extra = Journal("cluster-a", (b.record(removals=(removal,)),))
    root[0].append(etree.fromstring(encode(extra) or "")[0][0])
    return etree.tostring(root, encoding="unicode")


def as_key(world: World, key: bytes, *previous: bytes) -> None:
    """The next controller has these keys."""
    world.seals = Seals(key, previous)


async def test_everything_that_is_written_is_sealed(world: World) -> None:
    host, uuid = await with_points(world, "a")
    assert trust(host, uuid) == {Trust.SEALED}


async def test_an_upgrade_loses_nothing_and_seals_with_the_next_write(world: World) -> None:
    world.seals = None
    host, uuid = await with_points(world, "a", "b", "c")
    world.delete("b")
    await world.gone("b")
    await world.stop()
    before = journal(host, uuid)
    assert trust(host, uuid) == {Trust.UNSEALED}
    as_key(world, KEY)
    host.faults.forget()
    await world.start()
    await world.settled()
    assert not host.faults.changes, "nothing is written for the seal alone"
    assert journal(host, uuid) == before
    world.snapshot("d")
    await world.ready("a", "c", "d")
    assert trust(host, uuid) == {Trust.SEALED}
    assert {p.owners[0].name for p in journal(host, uuid).disk("vda").points} == {"a", "c", "d"}
    for name in ("a", "c", "d"):
        world.delete(name)
    await world.gone("a", "c", "d")
    assert len(host.storage.images) == 1, "and all images of before are removed"
    assert host.visible(uuid, "vda") == {1: 1, 2: 2, 3: 3, 99: 99}


async def test_an_upgrade_while_a_merge_runs_sees_it_through(world: World) -> None:
    world.seals = None
    host, uuid = await with_points(world, "a", "b")
    host.auto = False
    world.delete("a")
    await world.until(lambda: host.jobs(uuid))
    await world.crash()
    as_key(world, KEY)
    await world.start()
    await world.settled()
    host.auto = True
    host.finish_jobs(uuid)
    await world.gone("a")
    assert len(host.storage.images) == 2
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}
    assert trust(host, uuid) == {Trust.SEALED}


async def test_a_roll_back_and_the_next_upgrade_lose_nothing(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    await world.stop()
    write(host, uuid, unsealed(journal(host, uuid)))  # a version before ADR 15 drops what it does not know
    world.seals = None
    await world.start()
    world.snapshot("c")
    await world.ready("a", "b", "c")
    await world.stop()
    as_key(world, KEY)
    await world.start()
    world.delete("b")
    await world.gone("b")
    await world.ready("a", "c")
    assert len(host.storage.images) == 3
    assert content(world, host, uuid, "a") == {1: 1}


async def test_a_record_that_was_changed_stops_its_machine_and_no_other(world: World) -> None:
    host, uuid = await with_points(world, "a")
    other = web(host, "web-2")
    victim = host.storage.create(Source.file("/images/victim"), capacity=64 << 20)
    await world.settled()
    await world.settled()
    host.faults.forget()
    kept = written(host, uuid)
    write(host, uuid, changed(kept))
    world.delete("a")
    world.snapshot("b")
    message = await world.says("a", "JournalUntrusted", "not as varve left it", stalled=True)
    assert f"virsh metadata web-1 {JOURNAL_NAMESPACE} --remove" in message
    await world.says("b", "JournalUntrusted", stalled=True)
    world.snapshot("x", domain="web-2")
    await world.ready("x")
    assert {call.arguments["uuid"] for call in host.faults.changes} == {other}
    assert victim.key in host.storage.images
    write(host, uuid, None)  # what the message says
    await world.until(lambda: world.object("a") is None and world.is_ready("b"), 120)
    assert victim.key in host.storage.images
    assert len(world.chain(host, uuid)) == 2


async def test_a_seal_that_is_stripped_while_the_controller_works_is_missed(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    write(host, uuid, unsealed(journal(host, uuid)))
    world.delete("a")
    await world.says("a", "JournalUntrusted", "has no seal", stalled=True)
    assert not host.faults.changes


async def test_a_stripped_stored_record_is_written_anew(world: World) -> None:
    """Or the next start of the machine would bring it back."""
    host, uuid = await with_points(world, "a")
    machine = host.machine(uuid)
    machine.config_metadata[JOURNAL_NAMESPACE] = unsealed(journal(host, uuid))
    world.label("host-a", wake="up")
    world.snapshot("b")
    await world.ready("b")
    assert trust(host, uuid) == {Trust.SEALED}
    machine.config_metadata[JOURNAL_NAMESPACE] = changed(written(host, uuid))
    world.snapshot("c")
    await world.ready("c")
    assert trust(host, uuid) == {Trust.SEALED}


async def test_a_clone_has_no_part_in_the_images_of_its_model(world: World) -> None:
    host, uuid = await with_points(world, "a")
    clone = web(host, "web-2")
    write(host, clone, written(host, uuid))
    images = set(host.storage.images)
    world.snapshot("x", domain="web-2")
    message = await world.says("x", "JournalUntrusted", "a clone", stalled=True)
    assert "virsh metadata web-2" in message
    assert set(host.storage.images) == images
    write(host, clone, None)
    await world.until(lambda: world.is_ready("x"), 60)
    world.delete("x")
    await world.gone("x")
    await world.ready("a")
    assert set(host.storage.images) == images


async def test_a_machine_that_is_renamed_keeps_its_record(world: World) -> None:
    host, uuid = await with_points(world, "a")
    host.shutdown(uuid)
    host.rename(uuid, "web-9")
    host.start(uuid)
    assert trust(host, uuid) == {Trust.SEALED}


async def test_a_new_key_seals_and_the_old_one_is_believed(world: World) -> None:
    host, uuid = await with_points(world, "a", "b")
    await world.stop()
    as_key(world, OTHER_KEY, KEY)
    await world.start()
    world.delete("a")
    await world.gone("a")
    assert trust(host, uuid, OTHER_KEY) == {Trust.SEALED}
    assert len(host.storage.images) == 2


@pytest.mark.parametrize("cluster", ["cluster-a", "cluster-b"], ids=["its own", "a cluster built anew"])
async def test_a_lost_key_is_given_up_by_name(world: World, cluster: str) -> None:
    host, uuid = await with_points(world, "a", "b")
    await world.stop()
    as_key(world, OTHER_KEY)
    world.cluster = cluster
    await world.start()
    world.delete("a")
    reason = "JournalUntrusted" if cluster == "cluster-a" else "ForeignOwner"
    message = await world.says("a", reason, "takeOverFrom", "cluster-a", stalled=True)
    assert "varve-journal-key" in message or reason == "ForeignOwner"
    assert not host.faults.changes
    world.edit_hypervisor("host-a", takeOverFrom=["cluster-a"])
    await world.until(lambda: world.object("a") is None, 60)
    await world.ready("b")
    assert content(world, host, uuid, "b") == {1: 1, 2: 2}
    assert trust(host, uuid, OTHER_KEY) == {Trust.SEALED}
    assert len(host.storage.images) == 2


async def test_an_old_record_put_back_merges_nothing_that_an_object_holds(world: World) -> None:
    """B shares A's point since the record that is put back was written."""
    host, uuid = await with_points(world, "a")
    before = written(host, uuid)
    world.snapshot("b", adopt={"layer": "/images/web-1.qcow2"})
    await world.ready("b")
    write(host, uuid, before)
    world.delete("a")
    await world.gone("a")
    await world.settled()
    assert world.is_ready("b")
    assert content(world, host, uuid, "b") == {1: 1}
    assert not [call for call in host.faults.changes if call.name in {"commit", "pull", "remove_image"}]


async def test_an_old_record_put_back_merges_and_removes_nothing(world: World) -> None:
    """It knows a layer that varve has merged away since, so it cannot be told how that went: the point above
    counts as lost, as after a merge by hand. Its layers stay."""
    host, uuid = await with_points(world, "a", "b", "c")
    with_all = written(host, uuid)
    world.delete("b")
    await world.gone("b")
    host.faults.forget()
    images, chain = set(host.storage.images), world.chain(host, uuid)
    write(host, uuid, with_all)
    world.snapshot("d")
    await world.ready("d", "a")
    await world.says("c", "Lost", stalled=True)
    node = host.machine(uuid).process.disks["vda"].nodes[2]  # type: ignore[union-attr]
    assert host.point(uuid, "vda", node.source) == {1: 1, 2: 2, 3: 3}
    assert not [call for call in host.faults.changes if call.name in {"commit", "pull", "remove_image"}]
    assert set(host.storage.images) >= images
    assert world.chain(host, uuid)[1:] == chain


async def test_an_unsealed_record_cannot_name_what_is_removed(world: World) -> None:
    host, uuid = await with_points(world, "a")
    await world.stop()
    victim = host.storage.create(Source.file("/images/victim"), capacity=64 << 20)
    kept = journal(host, uuid)
    record = replace(kept.disk("vda"), removals=(Removal(b.layer("victim"), since=b.TAKEN),))
    write(host, uuid, unsealed(kept.with_disk(record)))
    await world.start()
    world.snapshot("b")
    await world.ready("a", "b")
    await world.told()
    assert victim.key in host.storage.images
    (orphan,) = world.hypervisor("host-a")["status"]["orphanImages"]["images"]
    assert (orphan["image"], "no seal" in orphan["reason"]) == ("/images/victim", True)
    assert decode(written(host, uuid)).disk("vda").removals[0].left
