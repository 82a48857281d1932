"""The record of overlays that were lent: put down when taken, forgotten when they leave, never removed."""

from __future__ import annotations

import pytest

from controller.chain.blocked import Why
from controller.chain.desired import Placement
from controller.chain.guards import lent_guard
from controller.chain.journal import DiskJournal, Journal, OperationKind, Removal
from controller.chain.journal_codec import decode, encode
from controller.chain.opened import Opened, OpenedImage
from controller.chain.outcome import abandoned, settled
from controller.chain.planner import plan
from controller.chain.source import Source
from controller.chain.steps import Take
from controller.chain.upkeep import upkeep
from tests.chain import builders as b
from tests.chain.situations import NOON

LENT = frozenset({b.key("spare")})
PLACE = Placement(target=Source.file("/images/spare"))


def test_a_taken_one_is_lent_and_not_made() -> None:
    operation = b.operation(OperationKind.TAKE, "spare", "base", lent=True)
    found = settled(b.record(operation=operation), operation, b.facts(b.disk("spare", "base")))
    assert (found.lent, found.images, found.operation) == (LENT, frozenset(), None)
    assert found.points[0].overlay == b.key("spare")


@pytest.mark.parametrize("merged", [["spare"], ["spare", "made"]])
def test_one_that_is_merged_away_is_forgotten(merged: list[str]) -> None:
    record = b.record(b.point("spare", b.owner("a")), images=["made"], lent=LENT)
    operation = b.operation(OperationKind.COMMIT, "base", *merged)
    found = settled(record, operation, b.facts(b.disk("top", "base")))
    assert found.lent == frozenset()
    assert [removal.layer.key for removal in found.removals] == [b.key(name) for name in merged[1:]]


def test_a_take_that_did_not_happen_leaves_nothing_to_remove() -> None:
    """The mark says that this very QEMU got the call, and QEMU says that it does not use the place."""
    operation = b.operation(OperationKind.TAKE, "spare", "base", lent=True, process="p1")
    found = b.facts(b.disk("base"), opened=Opened((OpenedImage("/images/base"),)))
    assert abandoned(b.record(operation=operation), operation, found) == DiskJournal("vda")


@pytest.mark.parametrize(
    ("process", "opened"),
    [("", Opened((OpenedImage("/images/base"),))), ("p1", Opened(problem="no monitor")), ("p1", None)],
)
def test_a2_a_lent_place_that_may_hold_what_the_guest_wrote_stays_claimed(
    process: str, opened: Opened | None
) -> None:
    """It is not given back, so nobody formats it, and the inventory says why."""
    operation = b.operation(OperationKind.TAKE, "spare", "base", lent=True, process=process)
    record = abandoned(b.record(operation=operation), operation, b.facts(b.disk("base"), opened=opened))
    (left,) = record.removals
    assert left.left
    assert [layer.key for layer in record.layers] == [b.key("spare")]


def test_one_that_somebody_took_out_is_forgotten() -> None:
    record = b.record(images=["top"], lent=LENT | {b.key("top")})
    found = upkeep(record, [b.want("a")], b.disk("top", "base"))
    assert found.lent == {b.key("top")}


def test_it_survives_the_journal() -> None:
    operation = b.operation(OperationKind.TAKE, "next", "spare", lent=True, prepared=True)
    journal = Journal("c-1", (b.record(lent=LENT, operation=operation),))
    assert decode(encode(journal)) == journal


def test_orphans_keep_no_place_from_being_used() -> None:
    record = b.record(removals=(Removal(b.layer("waits")), Removal(b.layer("left"), left="no driver")))
    assert [layer.key for layer in record.layers] == [b.key("waits")]


def test_nothing_is_taken_before_it_is_known_who_uses_the_place() -> None:
    seen = b.observation(b.facts(b.disk("base")))
    wants = [b.want("a", placement=PLACE)]
    assert plan(seen, wants, NOON).wants_usage
    known = b.observation(b.facts(b.disk("base")), claims={})
    (step,) = plan(known, wants, NOON).steps
    assert isinstance(step, Take)
    assert (step.disks[0].operation.lent, step.disks[0].operation.kept.key) == (True, b.key("spare"))


@pytest.mark.parametrize("name", ["file:/images/spare", Source.file("/images/spare").footprint])
def test_a_place_that_anybody_claims_is_not_used(name: str) -> None:
    seen = b.observation(b.facts(b.disk("base")), claims={name: "disk vdb of web-2"})
    blocked = lent_guard(seen, Source.file("/images/spare"))
    assert blocked is not None
    assert blocked.why is Why.OVERLAY_UNUSABLE
    assert "disk vdb of web-2" in blocked.whole
    assert not plan(seen, [b.want("a", placement=PLACE)], NOON).steps
