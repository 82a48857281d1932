"""Forged, replayed, cut, foreign and old journals: nothing is removed, formatted or merged that is not ours.

``make test`` tries 10,000 forgeries (VARVE_FORGERIES). Each meets a machine whose disk has points of varve
beside layers of others, images of nobody and of machines that are off, and a deletion that is due. What may
go is known without any journal.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.chain.circumstances import Circumstances
from controller.chain.desired import Memory, Policy, Want
from controller.chain.disk import Layer
from controller.chain.journal import DiskJournal, Journal, Known, Owner, Point, Removal
from controller.chain.journal_codec import JournalError, decode, encode
from controller.chain.naming import overlay_leaf
from controller.chain.parse import JOURNAL_NAMESPACE, parse_domain
from controller.chain.planner import plan
from controller.chain.seal import Sealing, Seals
from controller.chain.source import Host, Source
from controller.hypervisor.driver import Event
from controller.hypervisor.errors import HypervisorError
from controller.hypervisor.execute import Executor
from controller.hypervisor.last_look import Refused, Stale
from controller.hypervisor.observe import observe, with_opened, with_usage, with_written
from controller.hypervisor.simulated import SimulatedHost
from controller.hypervisor.simulated.driver import SimulatedDriver
from controller.hypervisor.snapshot_xml import snapshot_xml
from controller.reconcile.belief import Belief
from tests.reconcile.forgeries import Known as Forger
from tests.reconcile.forgeries import forged

FORGERIES = int(os.environ.get("VARVE_FORGERIES", "1000"))
PARTS = max(4, FORGERIES // 500)
"""Tests that they are spread over; in each fourth a deletion is due."""
NOW = datetime(2026, 1, 2, tzinfo=UTC)
SEALING = Sealing(Seals(bytes(range(32))))
A, B, C, D = (Owner("shop", name, f"uid-{name}") for name in "abcd")
BASE = Source.file("/images/web-1.qcow2")
OTHERS = tuple(
    map(
        Source.file,
        [
            "/secrets/shadow",
            "/images/template.qcow2",
            "/images/db-1.qcow2",
            "/images/db-1.vda.varve-uid-x.qcow2",
            "/images/clone.qcow2",
            "/elsewhere/web-1.vda.varve-uid-b.qcow2",
        ],
    )
)
"""Images of nobody, or of machines that are off, and one that stands on a layer of the disk."""


def overlay(owner: Owner, target: str = "vda") -> Source:
    """As varve names it."""
    leaf = overlay_leaf(domain="web-1", target=target, owner=owner, attempt=1)
    return Source.file(f"/images/{leaf}")


OLD = overlay(Owner("shop", "old", "uid-old"))
"""A merged image of varve's that waits to be removed."""
BY_HAND = Source.file("/images/by-hand.qcow2")
CHAIN = (overlay(C), overlay(B), BY_HAND, overlay(A), BASE)
REMOTE = Source.network("rbd", "pool/web-1.vda.varve-uid-b.qcow2", [Host("attacker.example")])
OURS = {OLD.key, overlay(B).key}
"""What may ever be removed: the merged image, and the overlay of the point that is being deleted."""


@dataclass
class Scene:
    """One machine, and what lies around it."""

    host: SimulatedHost = field(default_factory=lambda: SimulatedHost("host-a"))
    uuid: str = ""
    driver: SimulatedDriver = field(init=False)

    async def build(self, deleting: bool) -> Scene:
        """Chains, images and contents; no journal yet."""
        host = self.host
        self.uuid = host.add_domain("web-1", {"vda": BASE, "vdb": Source.file("/images/web-1-data.qcow2")})
        for number, source in enumerate(reversed(CHAIN[:-1]), 1):
            host.guest_write(self.uuid, "vda", number, number)
            await self.put_on("vda", source)
        await self.put_on("vdb", overlay(D, "vdb"))
        host.guest_write(self.uuid, "vda", 9, 9)
        for source in (*OTHERS, OLD, REMOTE):
            made = host.storage.create(source, capacity=64 << 20)
            made.clusters[1] = 77
        host.storage.open(OTHERS[4].key).backing = host.storage.open(BY_HAND.key).backing
        host.add_domain("db-1", {"vda": OTHERS[2]}, running=False)
        self.driver = await host.connect(_nobody)
        self.wants = wants(deleting)
        return self

    async def put_on(self, target: str, source: Source) -> None:
        """virsh snapshot-create --disk-only."""
        by_hand = self.host.by_hand()
        definition = parse_domain((await by_hand.read(self.uuid)).live_xml or "")
        await by_hand.create_snapshot(self.uuid, snapshot_xml(definition, {target: Layer(source, "qcow2")}))

    def write(self, journal: str | None) -> None:
        """virsh metadata --set, live and config."""
        machine = self.host.machine(self.uuid)
        for metadata in (machine.live_metadata, machine.config_metadata):
            metadata.pop(JOURNAL_NAMESPACE, None)
            if journal is not None:
                metadata[JOURNAL_NAMESPACE] = journal

    async def work(self, rounds: int = 6) -> None:
        """What passes over the domain do, until nothing is left to do."""
        belief = Belief()
        for _ in range(rounds):
            if not await self._round(belief):
                return
            self.host.finish_jobs()

    async def _round(self, belief: Belief) -> bool:
        observation = await observe(self.driver, self.uuid, identities={"c"}, sealing=SEALING)
        observation = belief.checked(observation, self.wants, sealing=True)
        at = Circumstances(NOW, gate=self.host.gate, pulls_last=True)
        found = plan(observation, self.wants, at)
        if found.wants_opened:
            observation = await with_opened(
                self.driver, observation, found.wants_opened, identities={"c"}, sealing=SEALING
            )
            observation = belief.checked(observation, self.wants, sealing=True)
            found = plan(observation, self.wants, at)
        if found.wants_written:
            observation = await with_written(self.driver, observation, found.wants_written)
            found = plan(observation, self.wants, at)
        if found.wants_usage:
            observation = await with_usage(self.driver, observation, merging=True)
            found = plan(observation, self.wants, at)
        executor = Executor(
            self.driver, observation, cluster="c", identities={"c"}, sealing=SEALING, facts=None
        )
        for step in found.steps:
            try:
                await executor.run(step)
            except (Stale, Refused, HypervisorError):
                return False
        return bool(found.steps)

    # The truth -----------------------------------------------------------------------------------------

    def check(self, deleting: bool) -> None:
        """Nothing was lost that is not asked for."""
        host, changes = self.host, self.host.faults.changes
        removed = {call.arguments["source"] for call in changes if call.name == "remove_image"}
        assert removed <= OURS
        assert not host.unlinked
        names = {call.name for call in changes}
        assert "create_snapshot" not in names
        if not deleting:
            assert overlay(B).key not in removed
            assert not names & {"commit", "pull", "pivot", "abort"}
        for source in (*OTHERS, REMOTE):
            assert host.storage.open(source.key).clusters.get(1) == 77, f"{source.uri} was written to"
        live = [node.source for node in host.machine(self.uuid).process.disks["vda"].nodes]  # type: ignore[union-attr]
        assert [source.key for source in live if source != overlay(B)] == [
            source.key for source in CHAIN if source != overlay(B)
        ]
        assert host.visible(self.uuid, "vda") == {1: 1, 2: 2, 3: 3, 4: 4, 9: 9}
        assert host.point(self.uuid, "vda", BASE) == {1: 1}, "the point A"
        assert host.point(self.uuid, "vda", overlay(A)) == {1: 1, 2: 2}, "what stands on it by hand"
        inactive = parse_domain(host.pages[self.uuid].inactive(host.machine(self.uuid))).disk("vda")
        assert inactive is not None
        assert inactive.layers[0].source.key == CHAIN[0].key

    @property
    def touched(self) -> bool:
        """Anything but the journal was changed."""
        return any(call.name != "set_metadata" for call in self.host.faults.changes)


def _nobody(_: Event) -> None:
    """Events wake no pass here."""


def wants(deleting: bool) -> list[Want]:
    """A, C and D stay; B goes, if it does."""
    gone = NOW - timedelta(hours=1) if deleting else None
    layers = {A: BASE, B: BY_HAND, C: overlay(B), D: Source.file("/images/web-1-data.qcow2")}
    return [
        Want(
            owner,
            "vdb" if owner is D else "vda",
            deleted_at=gone if owner is B else None,
            memory=Memory("2026-01-01T00:00:00Z", layer=layers[owner].uri),
            policy=Policy(settle_seconds=0),
        )
        for owner in (A, B, C, D)
    ]


def honest(*, leftover: bool = True) -> Journal:
    """The journal as varve has it."""

    def record(target: str, chain: Iterable[Source], *owners: Owner) -> DiskJournal:
        points = tuple(
            Point(overlay(one, target).key, (one,), "2026-01-01T00:00:00Z", "CrashConsistent", "", 64 << 20)
            for one in owners
        )
        keys = frozenset(point.overlay for point in points)
        known = Known(tuple(source.key for source in chain), at="2026-01-01T00:00:00Z")
        return DiskJournal(target, points, images=keys, known=known)

    vda = record("vda", CHAIN, A, B, C)
    if leftover:
        waits = Removal(Layer(OLD, "qcow2"), (B,), since="2026-01-01T00:00:00Z")
        vda = replace(vda, removals=(waits,))
    data = (overlay(D, "vdb"), Source.file("/images/web-1-data.qcow2"))
    return Journal("c", (vda, record("vdb", data, D)))


def forger(uuid: str) -> Forger:
    """What somebody knows who may edit the domain."""
    now = honest()
    shared = now.disk("vda")
    less = [
        replace(
            shared, points=shared.points[:count], images=frozenset(p.overlay for p in shared.points[:count])
        )
        for count in (1, 2)
    ]
    earlier = [now.with_disk(record) for record in less]
    text = [encode(one, SEALING, domain=uuid) or "" for one in (now, honest(leftover=False), *earlier)]
    clone = encode(now, SEALING, domain=uuid[:-1] + "0") or ""
    cluster = encode(replace(now, cluster="another"), SEALING, domain=uuid) or ""
    images = (*CHAIN, *CHAIN, OLD, *OTHERS, REMOTE, overlay(D, "vdb"))
    owners = [(o.namespace, o.name, o.uid) for o in (A, B, C, D, Owner("x", "y", "uid-z"))]
    return Forger(text, [clone, cluster], images, owners, uuid)


@pytest.mark.parametrize("part", range(PARTS))
async def test_a_forged_journal_leads_to_nothing_that_is_not_varves(part: int) -> None:
    deleting, built = part % 4 == 3, 1
    scene = await Scene().build(deleting)
    known = forger(scene.uuid)
    for number in range(part * FORGERIES // PARTS, (part + 1) * FORGERIES // PARTS):
        if scene.touched:
            scene = await Scene().build(deleting)
            built += 1
        scene.host.faults.forget()
        scene.write(forged(known, number))
        try:
            await scene.work()
            scene.check(deleting)
        except Exception as error:
            raise AssertionError(f"forgery {number}: {forged(known, number)}") from error
    assert built > 1, "none of them lets honest work go on"


async def test_the_honest_journal_beside_them_does_its_work() -> None:
    scene = await Scene().build(deleting=True)
    scene.write(encode(honest(), SEALING, domain=scene.uuid))
    await scene.work()
    scene.check(deleting=True)
    removed = {call.arguments["source"] for call in scene.host.faults.changes if call.name == "remove_image"}
    assert removed == OURS


def test_forgeries_are_of_all_kinds() -> None:
    """They can be read mostly, or they would be refused for that alone."""
    known = forger("0a4f4f0e-5f1c-4e0e-9a53-0c9fd1a3c001")
    readable = 0
    for number in range(400):
        try:
            decode(forged(known, number))
        except JournalError:
            continue
        readable += 1
    assert readable > 200
