"""B11: a merge that nobody saw is told from when images were written to, or not at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.chain.disk import ChainEnd
from controller.chain.drift import known, noted
from controller.chain.evidence import CLOCKS, evidence
from controller.chain.journal import DiskJournal
from controller.chain.observation import JobKind
from controller.chain.planner import plan
from controller.chain.source import Source
from controller.chain.steps import Record
from controller.chain.upkeep import has_point
from tests.chain import builders as b
from tests.chain.situations import NOON

AT = datetime(2025, 1, 1, tzinfo=UTC)
LONG_BEFORE, LONG_AFTER = AT - timedelta(hours=1), AT + timedelta(hours=1)
DOWN, UP, NOTHING = frozenset({JobKind.COMMIT}), frozenset({JobKind.PULL}), frozenset[JobKind]()


def before(*names: str) -> DiskJournal:
    """A record of a chain in which each layer but the base is the overlay of a point with its name."""
    points = [b.point(name, b.owner(name)) for name in names[:-1]]
    return b.record(*points, known=replace(known(b.disk(*names)), at="2025-01-01T00:00:00Z"))


def times(**written: datetime) -> dict[str, datetime]:
    return {b.key(name): when for name, when in written.items()}


@pytest.mark.parametrize(
    ("then", "now", "written", "found"),
    [
        # The image below the layer that went was not written to: it went up.
        ("c b a", "c a", times(a=LONG_BEFORE), UP),
        ("d c b a", "d a", times(a=LONG_BEFORE), UP),
        ("d c b a", "d b a", times(a=LONG_AFTER, b=LONG_BEFORE), UP),
        # It was, and what is further down was not: it went down.
        ("d c b a", "d b a", times(a=LONG_BEFORE, b=LONG_AFTER), DOWN),
        ("d c b a", "d c a", times(a=LONG_AFTER, c=LONG_AFTER), DOWN),  # no pull ends between frozen layers
        # It was, and nothing tells a commit from a copy of the disk.
        ("c b a", "c a", times(a=LONG_AFTER), NOTHING),
        ("d c b a", "d b a", times(a=LONG_AFTER, b=LONG_AFTER), NOTHING),
        ("d c b a", "d b a", times(b=LONG_AFTER), NOTHING),
        # No time is known, or one that two clocks may disagree about.
        ("c b a", "c a", {}, NOTHING),
        ("c b a", "c a", times(c=LONG_AFTER), NOTHING),
        ("c b a", "c a", times(a=AT - CLOCKS), NOTHING),
        ("d c b a", "d b a", times(a=LONG_BEFORE, b=AT + CLOCKS), NOTHING),
        # Not a layer that went from between two others.
        ("c b a", "b a", times(b=LONG_AFTER, a=LONG_BEFORE), NOTHING),
        ("c b a", "c b", times(b=LONG_BEFORE), NOTHING),
        ("c b a", "x c a", times(a=LONG_BEFORE), NOTHING),
        ("c b a", "a c", times(a=LONG_BEFORE, c=LONG_BEFORE), NOTHING),
        ("c b a", "c b a", times(a=LONG_BEFORE), NOTHING),
        # Two runs that went in different ways, or of which one is not known.
        ("e d c b a", "e c a", times(a=LONG_BEFORE, c=LONG_AFTER), NOTHING),
        ("e d c b a", "e c a", times(a=LONG_BEFORE), NOTHING),
        ("e d c b a", "e c a", times(a=LONG_BEFORE, c=LONG_BEFORE), UP),
    ],
)
def test_what_is_proven(then: str, now: str, written: dict[str, datetime], found: frozenset[JobKind]) -> None:
    assert evidence(before(*then.split()), b.disk(*now.split()), written) == found


def test_an_image_in_another_place_says_nothing_of_a_copy() -> None:
    record = before("d", "c", "b", "a")
    chain = b.disk("d", "b", "a")
    elsewhere = Source.file("/other/a")
    far = replace(chain, layers=(*chain.layers[:2], replace(chain.layers[2], source=elsewhere)))
    assert record.known is not None
    keys = (*record.known.keys[:3], elsewhere.key)
    moved = replace(record, known=replace(record.known, keys=keys))
    written = {b.key("b"): LONG_AFTER, elsewhere.key: LONG_BEFORE}
    assert evidence(moved, far, written) == NOTHING


@pytest.mark.parametrize("at", ["", None])
def test_a_record_that_does_not_say_when_proves_nothing(at: str | None) -> None:
    record = before("c", "b", "a")
    assert record.known is not None
    record = replace(record, known=None if at is None else replace(record.known, at=at))
    assert evidence(record, b.disk("c", "a"), times(a=LONG_BEFORE)) == NOTHING


def test_a_chain_that_is_not_listed_to_its_end_proves_nothing() -> None:
    short = b.disk("c", end=ChainEnd.UNKNOWN)
    assert evidence(before("c", "b", "a"), short, times(a=LONG_BEFORE)) == NOTHING


def judged(then: str, now: str, written: dict[str, datetime] | None) -> set[str]:
    """Whose points can be read after the plan's step."""
    record, chain = before(*then.split()), b.disk(*now.split())
    seen = b.observation(b.facts(chain, written=written), records=[record])
    wants = [b.want(name) for name in then.split()[:-1]]
    found = plan(seen, wants, NOON)
    if written is None:
        assert found.wants_written == {"vda"}
        assert not found.steps
        return set()
    (step,) = found.steps
    assert isinstance(step, Record)
    return {point.owners[0].name for point in step.record.points if has_point(point, chain)}


def test_the_planner_asks_before_it_judges() -> None:
    assert judged("d c b a", "d b a", None) == set()


def test_the_points_that_are_whole_are_kept() -> None:
    """The point d stands on what c was: after a commit b holds that. The point c stands on b as it was."""
    down, up = times(a=LONG_BEFORE, b=LONG_AFTER), times(a=LONG_BEFORE, b=LONG_BEFORE)
    assert judged("d c b a", "d b a", down) == {"d", "b"}
    assert judged("d c b a", "d b a", up) == {"c", "b"}
    assert judged("d c b a", "d b a", {}) == {"b"}


def test_the_moment_of_the_record_is_that_of_its_last_write() -> None:
    """Our own merges write to images too: what is older than the record proves nothing against them."""
    record, chain = before("c", "b", "a"), b.disk("c", "b", "a")
    done = b.operation(b.OperationKind.TAKE, "d", "c")
    seen = b.observation(b.facts(b.disk("d", *"cba")), records=[replace(record, operation=done)])
    (step,) = plan(seen, [], NOON).steps
    assert isinstance(step, Record)
    assert step.record.known is not None
    assert datetime.fromisoformat(step.record.known.at) == NOON.now
    assert noted(record, chain, now="", adopt=False) == record, "a look alone writes nothing"
