"""What a record without a seal may say: only what follows from something else as well."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.chain.desired import Memory, Placement, Want
from controller.chain.disk import Layer
from controller.chain.journal import Approved, DiskJournal, OperationKind, Owner, Point, Removal
from controller.chain.naming import overlay_leaf
from controller.chain.observation import Observation
from controller.chain.outcome import NOT_OURS
from controller.chain.source import Host, Source
from controller.chain.upkeep import TAKEN_OUT, is_leftover
from controller.chain.vetting import UNSIGNED, vetted
from tests.chain import builders as b

A, B = b.owner("a"), b.owner("b")
SECONDS = timedelta(seconds=1)


def name(owner: Owner, target: str = "vda", domain: str = "web-1") -> str:
    """What varve calls the overlay of this object."""
    return overlay_leaf(domain=domain, target=target, owner=owner, attempt=1)


OA, OB = name(A), name(B)
CHAIN = (OB, OA, "base")


def going(owner: Owner, **changes: object) -> Want:
    """An object that is being deleted."""
    return b.want(owner, gone_since=b.NOW - SECONDS, **changes)  # type: ignore[arg-type]


def seen(record: DiskJournal, *wants: Want, chain: tuple[str, ...] = CHAIN) -> Observation:
    """The observation as it is believed."""
    facts = b.facts(b.disk(*chain), run="7")
    found = b.observation(facts, records=[record], unsealed=frozenset({"vda"}))
    return vetted(found, wants)


def believed(record: DiskJournal, *wants: Want, chain: tuple[str, ...] = CHAIN) -> DiskJournal:
    """What is believed of the record."""
    found = seen(record, *wants, chain=chain)
    assert not found.journal_untrusted
    return found.journal.disk("vda")


def removal(source: Source | str, *owners: Owner, **changes: object) -> Removal:
    """A merged image that waits."""
    layer = b.layer(source) if isinstance(source, str) else Layer(source, "qcow2")
    return replace(Removal(layer, owners, since=b.TAKEN), **changes)  # type: ignore[arg-type]


def test_a_sealed_record_is_as_it_stands() -> None:
    record = b.record(removals=(removal(Source.file("/etc/shadow"), A),))
    found = b.observation(b.facts(b.disk(*CHAIN)), records=[record])
    assert vetted(found, ()) is found


def test_an_old_record_keeps_all_that_its_objects_and_names_bear_out() -> None:
    """Upgrade: points of objects, an image that waits, names that were used."""
    record = b.record(b.point(OA, A), b.point(OB, B), removals=(removal(name(b.owner("gone")), B, run=""),))
    wants = (b.want(A), going(B))
    assert believed(record, *wants) == record


def test_points_of_objects_that_are_not_there_are_kept() -> None:
    """OwnerMissing, and a rebuilt cluster whose objects are not applied yet."""
    record = b.record(b.point(OA, A), b.point(OB, b.owner("b", "old")))
    assert believed(record, b.want(B)) == record


def test_points_that_were_moved_by_a_pull_are_kept_by_the_status() -> None:
    record = b.record(b.point(OB, A), images=[OB])
    want = b.want(A, memory=Memory(b.TAKEN, layer="/images/base"))
    assert believed(record, want, chain=(OB, "base")) == record


def test_an_adopted_point_is_kept_by_what_its_object_says() -> None:
    record = b.record(b.point("by-hand", A), images=[])
    assert believed(record, b.want(A, adopt="/images/base"), chain=("by-hand", "base")) == record


@pytest.mark.parametrize("owners", [(), (A,), (B,), (b.owner("nobody"),)])
def test_a_layer_of_somebody_else_is_no_point(owners: tuple[Owner, ...]) -> None:
    """Or the next deletion would merge it away."""
    record = b.record(Point(b.key("by-hand"), owners, "", ""), images=["by-hand"])
    found = believed(record, going(A), b.want(B), chain=("by-hand", "base"))
    assert found.points == ()
    assert found.images == frozenset()


def test_a_place_that_is_not_in_the_chain_is_not_lent() -> None:
    record = b.record(images=[], lent=frozenset({b.key("base"), b.key("elsewhere")}))
    assert believed(record).lent == {b.key("base")}


def test_an_object_gets_no_point_of_another_one() -> None:
    """B is deleted, and the record says that A's point is B's."""
    record = b.record(b.point(OA, B))
    assert believed(record, b.want(A), going(B)).points == ()


@pytest.mark.parametrize(
    "source",
    [
        Source.file("/etc/shadow"),
        Source.file("/images/base"),
        Source.file(f"/elsewhere/{OA}"),
        Source.file(f"/images/../elsewhere/{OA}"),
        Source.file(f"/images/{name(A, domain='db-1')}".replace("uid-a", "uid-x")),
        Source.file(f"/images/{name(A, target='vdb')}"),
        Source.file(f"/images/{OA}.varve-x.raw"),
        Source.from_element("block", Source.file("/x").element()),
        Source.network("gluster", f"images/{OA}", [Host("attacker.example")]),
        Source.network("rbd", f"pool/{OA}", [Host("attacker.example")]),
    ],
)
@pytest.mark.parametrize("left", ["", TAKEN_OUT, NOT_OURS])
def test_an_image_that_is_not_named_and_placed_by_varve_stays(source: Source, left: str) -> None:
    found = believed(b.record(removals=(removal(source, B, left=left),)), b.want(A), going(B))
    (kept,) = found.removals
    assert kept.left == (NOT_OURS if left == NOT_OURS else UNSIGNED)
    assert kept.owners == ()
    assert not is_leftover(kept), "or a merge would not mind what its header names"


def test_how_an_image_is_reached_never_comes_from_the_record() -> None:
    host = Host("ceph.example")
    base = Source.network("rbd", "pool/base", [host])
    element = Source.network("rbd", f"pool/{OA}", [host]).element()
    element.append(element.makeelement("auth", {"username": "attacker"}))
    forged = Source.from_element("network", element)
    disk = replace(b.disk("x"), layers=(Layer(base, "raw", 1),))
    observation = b.observation(
        b.facts(disk), records=[b.record(removals=(removal(forged, A),))], unsealed=frozenset({"vda"})
    )
    (kept,) = vetted(observation, [going(A)]).journal.disk("vda").removals
    assert kept.left == ""
    assert kept.layer.source == base.beside(OA)


def test_an_image_goes_to_where_its_object_had_asked_for_it() -> None:
    there = Source.file(f"/ssd/{OA}")
    record = b.record(removals=(removal(there, A),))
    want = going(A, placement=Placement(template=Source.file("/ssd/x")))
    assert believed(record, want, chain=("base",)).removals[0].left == ""
    assert believed(record, going(A), chain=("base",)).removals[0].left == UNSIGNED


@pytest.mark.parametrize("owners", [(), (b.owner("gone"),), (A,)])
def test_an_image_that_nobodys_deletion_waits_for_must_be_empty(owners: tuple[Owner, ...]) -> None:
    """It may be the only one with what the guest wrote, whatever the record says."""
    record = b.record(removals=(removal(name(b.owner("x")), *owners, run=""),))
    (kept,) = believed(record, b.want(A)).removals
    assert (kept.attempted, kept.run) == (True, "7"), "and this run may have it open"


# Operations ---------------------------------------------------------------------------------------------


def begun(kind: OperationKind, kept: str, *merged: str, **changes: object) -> DiskJournal:
    """A record with an operation, and the points A and B."""
    operation = b.operation(kind, kept, *merged, **{"owners": (A,), **changes})  # type: ignore[arg-type]
    return b.record(b.point(OA, A), b.point(OB, B), operation=operation)


def test_a_take_and_a_merge_that_were_begun_are_seen_through() -> None:
    take = b.record(operation=b.operation(OperationKind.TAKE, OA, "base", run="7"))
    found = believed(take, b.want(A), chain=("base",)).operation
    assert found == replace(take.operation, run=""), "QEMU is asked, whatever run the record names"
    merge = begun(OperationKind.COMMIT, "base", OA)
    assert believed(merge, going(A), b.want(B)).operation == merge.operation
    done = (OB, "base")
    assert believed(merge, going(A), b.want(B), chain=done).operation == merge.operation


def test_nobody_has_agreed_to_anything() -> None:
    approved = Approved("hash", frozenset({b.key(OA)}))
    record = replace(begun(OperationKind.COMMIT, "base", OA, approved=approved), approved=approved)
    found = believed(record, going(A), b.want(B))
    assert found.approved is None
    assert found.operation is not None
    assert found.operation.approved is None


@pytest.mark.parametrize(
    "record",
    [
        begun(OperationKind.COMMIT, "base", OA),
        begun(OperationKind.ACTIVE_COMMIT, "base", OB, OA),
        begun(OperationKind.PULL, OB, OA),
        begun(OperationKind.COMMIT, "other", OA),
        begun(OperationKind.COMMIT, "base", "by-hand"),
        begun(OperationKind.COMMIT, "base"),
    ],
    ids=lambda record: f"{record.operation.kind} of {len(record.operation.merged)}",
)
def test_a_merge_that_no_deletion_asks_for_is_not_seen_through(record: DiskJournal) -> None:
    found = seen(record, b.want(A), b.want(B))
    assert "no deletion asks for" in found.journal_untrusted
    assert "--remove" in found.journal_untrusted


@pytest.mark.parametrize(
    "operation",
    [
        b.operation(OperationKind.TAKE, "by-hand", "base"),
        b.operation(OperationKind.TAKE, "by-hand", "base", lent=True),
        b.operation(OperationKind.TAKE, OA, "base", owners=()),
        b.operation(OperationKind.TAKE, OA, "base", owners=(B,)),
        b.operation(OperationKind.TAKE, f"x/{OA}", "base"),
    ],
)
def test_a_take_that_no_object_asks_for_is_not_seen_through(operation: object) -> None:
    """Done, it would make a point of somebody's layer; undone, something to remove."""
    record = b.record(operation=operation)
    assert "no object asks for" in seen(record, b.want(A), b.want(B)).journal_untrusted


def test_a_place_that_is_lent_is_the_one_that_its_object_names() -> None:
    record = b.record(operation=b.operation(OperationKind.TAKE, "lent", "base", lent=True))
    want = b.want(A, placement=Placement(target=b.layer("lent").source))
    assert believed(record, want, chain=("base",)).operation == record.operation


def test_the_record_of_a_disk_that_is_not_there_gives_names_alone() -> None:
    record = b.record(b.point(OA, A), b.point("by-hand", B), removals=(removal(OB, B),))
    found = b.observation(b.facts(b.disk("x"), target="vdb"), records=[record], unsealed=frozenset({"vda"}))
    found = vetted(replace(found, disks={}), [b.want(A), going(B)])
    kept = found.journal.disk("vda")
    assert [point.overlay for point in kept.points] == [b.key(OA)]
    assert kept.removals[0].left == UNSIGNED
