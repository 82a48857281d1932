"""An older record that was put back: what objects remember is not merged away."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.chain.blocked import Why
from controller.chain.circumstances import Circumstances
from controller.chain.desired import Memory, Want
from controller.chain.journal import DiskJournal
from controller.chain.planner import plan
from controller.chain.steps import StartMerge
from tests.chain import builders as b

A, B, C = b.owner("a"), b.owner("b"), b.owner("c")
LONG_AGO = b.NOW - timedelta(hours=1)


def found(record: DiskJournal, *wants: Want) -> object:
    """The step that is planned on three layers, or why there is none."""
    facts = b.facts(b.disk("top", "mid", "base"))
    disk = plan(b.observation(facts, records=[record]), wants, Circumstances(b.NOW)).disks[0]
    return disk.step or (disk.blocked and disk.blocked.why)


def held(layer: str, name: str = "a", **changes: object) -> Want:
    """An object whose status says which layer holds its point."""
    memory = Memory(b.TAKEN, layer=f"/images/{layer}")
    return replace(b.want(b.owner(name)), memory=memory, **changes)  # type: ignore[arg-type]


def test_a_share_that_the_record_has_forgotten_stops_the_merge() -> None:
    """A and B share the point; in the older record it is B's alone."""
    record = b.record(b.point("mid", B))
    assert found(record, held("base"), b.want(B, gone_since=LONG_AGO)) is Why.JOURNAL_UNTRUSTED
    shared = b.record(b.point("mid", A, B))
    assert found(shared, held("base"), b.want(B, gone_since=LONG_AGO)) is not Why.JOURNAL_UNTRUSTED


def test_points_that_changed_owners_are_not_merged() -> None:
    record = b.record(b.point("mid", B), b.point("top", A))
    assert found(record, held("base"), b.want(B, gone_since=LONG_AGO)) is Why.JOURNAL_UNTRUSTED


@pytest.mark.parametrize(
    "other", [held("base", deleted_at=LONG_AGO), held("elsewhere"), held("mid"), b.want(A, armed=False)]
)
def test_others_hold_nothing_up(other: Want) -> None:
    record = b.record(b.point("mid", B))
    assert isinstance(found(record, other, b.want(B, gone_since=LONG_AGO)), StartMerge)


def test_a_point_that_is_lost_holds_nothing_up() -> None:
    """Its layer's name may be that of another point's layer now."""
    lost = replace(b.point("gone", A), overlay="lost:file:/images/gone")
    record = b.record(lost, b.point("mid", B), images=["mid"])
    assert isinstance(found(record, held("base"), b.want(B, gone_since=LONG_AGO)), StartMerge)
