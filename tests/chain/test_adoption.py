"""A VolumeSnapshot that names a layer which is there already: bound to it, or told why not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.chain.adoption import HOW
from controller.chain.blocked import Why
from controller.chain.circumstances import Circumstances
from controller.chain.desired import Want
from controller.chain.disk import ChainEnd, Disk
from controller.chain.drift import known
from controller.chain.journal import DiskJournal, Owner
from controller.chain.merging import timestamp
from controller.chain.plan import Plan, State
from controller.chain.planner import plan
from controller.chain.steps import Record, StartMerge
from tests.chain import builders as b

CHAIN = b.disk("c", "b", "a")


def adopting(name: str, layer: str, **changes: Any) -> Want:
    return b.want(name, adopt=f"/images/{layer}", **changes)


def planned(chain: Disk, *wants: Want, record: DiskJournal | None = None) -> Plan:
    records = [record] if record is not None else []
    return plan(b.observation(b.facts(chain), records=records), wants, Circumstances(b.NOW))


def bound(chain: Disk, *wants: Want, record: DiskJournal | None = None) -> DiskJournal:
    """The record that the first step writes."""
    (step,) = planned(chain, *wants, record=record).steps
    assert isinstance(step, Record)
    return step.record


def test_a_layer_is_bound_and_nothing_is_taken() -> None:
    record = bound(CHAIN, adopting("old", "a"))
    (point,) = record.points
    assert (point.overlay, point.owners) == (b.key("b"), (b.owner("old"),))
    assert (point.taken, point.consistency, point.consistency_message) == ("", "", HOW)
    assert point.capacity == b.CAPACITY
    assert record.images == frozenset(), "the overlay stays the image of whoever made it"
    assert record.known == replace(known(CHAIN), at=timestamp(b.NOW))
    after = planned(CHAIN, adopting("old", "a"), record=record)
    assert after.steps == ()
    assert [standing.state for standing in after.standings] == [State.HELD]
    assert after.standings[0].frozen == CHAIN.layers[2]


def test_the_name_need_not_be_spelled_as_it_is_printed() -> None:
    want = replace(adopting("old", ""), adopt="/images/../images//a")
    assert bound(CHAIN, want).points[0].overlay == b.key("b")


def test_several_are_bound_at_once() -> None:
    record = bound(CHAIN, adopting("old", "a"), adopting("new", "b"))
    assert {point.overlay: point.owners for point in record.points} == {
        b.key("b"): (b.owner("old"),),
        b.key("c"): (b.owner("new"),),
    }


def test_a_point_of_somebody_else_is_shared() -> None:
    before = b.record(b.point("b", b.owner("first")))
    record = bound(CHAIN, b.want("first"), adopting("second", "a"), record=before)
    (point,) = record.points
    assert point.owners == (b.owner("first"), b.owner("second"))
    assert point.taken == b.TAKEN
    gone = b.want("first", gone_since=b.NOW)
    assert bound(CHAIN, gone, adopting("second", "a"), record=record).points[0].owners == (b.owner("second"),)


def test_a_layer_that_is_managed_for_another_namespace_is_not_bound() -> None:
    """A co-owner could hold up its merge for ever."""
    theirs = Owner("secretive", "their-point", "uid-theirs")
    for owners in ((theirs,), (b.owner("mine"), theirs)):
        before = b.record(b.point("b", *owners))
        wants = [*(b.want(owner) for owner in owners), adopting("second", "a")]
        found = planned(CHAIN, *wants, record=before)
        assert not found.steps
        (blocked,) = [one.blocked for one in found.standings if one.want.owner == b.owner("second")]
        assert blocked is not None
        assert blocked.why is Why.ACCESS_DENIED
        assert "another namespace" in blocked.message
        assert "secretive" not in blocked.message
        assert "their-point" not in blocked.message
        assert all(one.blocked is None for one in found.standings if one.want.owner == theirs)


def test_of_two_namespaces_that_adopt_at_once_one_is_bound() -> None:
    first, second = (replace(adopting("x", "a"), owner=Owner(n, "x", f"uid-{n}")) for n in ("one", "two"))
    record = bound(CHAIN, second, first)
    assert [point.owners for point in record.points] == [(first.owner,)]
    after = planned(CHAIN, first, second, record=record)
    assert not after.steps
    assert [one.blocked is None for one in after.standings] == [True, False]


def test_a_point_whose_owner_leaves_is_kept_by_who_adopts_it() -> None:
    before = b.record(b.point("b", b.owner("first")))
    first = b.want("first", gone_since=b.NOW)
    record = bound(CHAIN, first, adopting("second", "a"), record=before)
    assert record.points[0].owners == (b.owner("first"), b.owner("second"))
    assert bound(CHAIN, first, adopting("second", "a"), record=record).points[0].owners == (
        b.owner("second"),
    )


def test_deleting_it_merges_the_layer_away() -> None:
    record = bound(CHAIN, adopting("old", "a"))
    (step,) = planned(CHAIN, adopting("old", "a", gone_since=b.NOW), record=record).steps
    assert isinstance(step, StartMerge)
    assert [layer.key for layer in step.operation.merged] == [b.key("b")]


@pytest.mark.parametrize(
    ("layer", "chain", "why", "words"),
    [
        ("x", CHAIN, Why.LAYER_NOT_FOUND, "frozen layers: /images/b, /images/a"),
        ("x", replace(CHAIN, end=ChainEnd.UNKNOWN), Why.CHAIN_UNKNOWN, "far enough down"),
        ("c", CHAIN, Why.LAYER_ACTIVE, "without adopt"),
        ("a", b.disk("c", "a", "b", "a"), Why.LAYER_AMBIGUOUS, "2 layers"),
    ],
)
def test_what_cannot_be_adopted_says_why(layer: str, chain: Disk, why: Why, words: str) -> None:
    found = planned(chain, adopting("old", layer))
    assert found.steps == ()
    (standing,) = found.standings
    assert standing.state is State.PENDING
    assert standing.blocked is not None
    assert standing.blocked.why is why
    assert words in standing.blocked.message
    assert found.disks[0].blocked is not None, "or nobody would look again"


def test_a_point_that_a_merge_has_written_to_is_not_adopted() -> None:
    spoiled = b.record(replace(b.point("b", b.owner("first")), spoiled=True))
    found = planned(CHAIN, b.want("first"), adopting("old", "a"), record=spoiled)
    assert found.steps == ()
    blocked = next(s.blocked for s in found.standings if s.want.owner == b.owner("old"))
    assert blocked is not None
    assert "a merge that was begun" in blocked.message


def test_one_that_cannot_be_adopted_holds_up_nobody_else() -> None:
    found = planned(CHAIN, adopting("old", "x"), b.want("new"))
    assert [step for step in found.steps if not isinstance(step, Record)]
    assert not [step for step in found.steps if isinstance(step, Record)]


@pytest.mark.parametrize("changes", [{"suspended": True}, {"gone_since": b.NOW}])
def test_who_is_suspended_or_goes_binds_nothing(changes: dict[str, Any]) -> None:
    assert planned(CHAIN, adopting("old", "a", **changes)).steps == ()
