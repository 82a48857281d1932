"""What somebody else did to a chain: seen, told, and no point believed that may be another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.chain.disk import ChainEnd, Disk
from controller.chain.drift import difference, fits_known, known, noted, standing_drift
from controller.chain.journal import Approved, DiskJournal, Drift, OperationKind
from controller.chain.observation import JobKind
from controller.chain.upkeep import has_point
from tests.chain import builders as b

NOW = "2025-01-02T03:04:05Z"


def before(*names: str) -> DiskJournal:
    """A record of a chain in which each layer but the base is the overlay of a point with its name."""
    points = [b.point(name, b.owner(name)) for name in names[:-1]]
    return b.record(*points, known=known(b.disk(*names)))


def keys(*names: str) -> tuple[str, ...]:
    return tuple(b.key(name) for name in names)


def held(record: DiskJournal, chain: Disk) -> dict[str, str]:
    """Whose points can be read, and the layer that holds each."""
    found = {}
    for point in record.points:
        if has_point(point, chain):
            position = chain.position(point.overlay)
            assert position is not None
            found[point.owners[0].name] = chain.layers[position + 1].source.leaf
    return found


@pytest.mark.parametrize(
    ("then", "now", "added", "gone"),
    [
        ("c b a", "c b a", "", ""),
        ("c b a", "x c b a", "x", ""),
        ("c b a", "y x c b a", "y x", ""),
        ("c b a", "c a", "", "b"),
        ("c b a", "a", "", "c b"),
        ("c b a", "x b a", "x", "c"),
        ("c b a", "x", "x", "c b a"),
        ("c b a", "c b a z", "z", ""),
    ],
)
def test_difference(then: str, now: str, added: str, gone: str) -> None:
    found = difference(known(b.disk(*then.split())), b.disk(*now.split()))
    assert found == (keys(*added.split()), keys(*gone.split()))


@pytest.mark.parametrize(
    ("then", "now", "added", "gone"),
    [
        ("c b a", "c", "", ""),
        ("c b a", "c b", "", ""),
        ("c b a", "x c", "x", ""),
        ("c b a", "b", "", "c"),
        ("c b a", "x", "x", "c b a"),
    ],
)
def test_what_is_below_the_end_of_what_is_listed_is_not_gone(
    then: str, now: str, added: str, gone: str
) -> None:
    listed = b.disk(*now.split(), end=ChainEnd.UNKNOWN)
    assert difference(known(b.disk(*then.split())), listed) == (keys(*added.split()), keys(*gone.split()))


def test_what_was_below_the_end_of_what_was_listed_is_not_new() -> None:
    short = known(b.disk("c", "b", end=ChainEnd.UNKNOWN))
    assert difference(short, b.disk("c", "b", "a")) == ((), ())
    assert difference(short, b.disk("x", "c", "b", "a")) == (keys("x"), ())


def test_a_chain_as_it_was_changes_no_record() -> None:
    record = before("c", "b", "a")
    assert noted(record, b.disk("c", "b", "a"), now=NOW, adopt=False) == record
    assert noted(record, b.disk("c", "b", "a"), now=NOW, adopt=True) == record


def test_a_record_that_does_not_know_the_chain_says_nothing() -> None:
    record = replace(before("c", "b", "a"), known=None)
    assert noted(record, b.disk("x", "c", "a"), now=NOW, adopt=False) == record


def test_a_new_layer_is_told_and_belongs_to_nobody() -> None:
    chain = b.disk("x", "c", "b", "a")
    found = noted(before("c", "b", "a"), chain, now=NOW, adopt=False)
    assert found.drift == Drift(NOW, added=keys("x"))
    assert held(found, chain) == {"c": "b", "b": "a"}
    assert found.point(b.key("x")) is None
    assert noted(found, chain, now="later", adopt=False) == found


def test_adopting_forgets_the_drift_and_keeps_the_points() -> None:
    chain = b.disk("x", "c", "b", "a")
    told = noted(before("c", "b", "a"), chain, now=NOW, adopt=False)
    for record in (before("c", "b", "a"), told):
        found = noted(record, chain, now=NOW, adopt=True)
        assert found.drift is None
        assert found.known == known(chain)
        assert held(found, chain) == {"c": "b", "b": "a"}


CASES = {
    "a commit below": ("d b a", {JobKind.COMMIT}, {"d": "b", "b": "a"}),
    "a pull of everything below": ("d c b", {JobKind.PULL}, {"d": "c", "c": "b"}),
    "a pull of one layer": ("d b a", {JobKind.PULL}, {"c": "b", "b": "a"}),
    "a pull of two layers": ("d a", {JobKind.PULL}, {"b": "a"}),
    "an active commit": ("c b a", {JobKind.ACTIVE_COMMIT}, {"c": "b", "b": "a"}),
    "a copy of the top layer": ("x c b a", {JobKind.COPY}, {"d": "c", "c": "b", "b": "a"}),
    "nobody saw how": ("d b a", set(), {"b": "a"}),
    "both kinds": ("d b a", {JobKind.COMMIT, JobKind.PULL}, {"b": "a"}),
    "another kind": ("d b a", {JobKind.OTHER}, {"b": "a"}),
}


@pytest.mark.parametrize(("now", "witnessed", "expected"), CASES.values(), ids=CASES)
def test_which_points_are_believed(now: str, witnessed: set[JobKind], expected: dict[str, str]) -> None:
    chain = b.disk(*now.split())
    found = noted(before("d", "c", "b", "a"), chain, now=NOW, adopt=False, witnessed=witnessed)
    assert held(found, chain) == expected
    assert len({point.overlay for point in found.points}) == len(found.points)
    assert {o for p in found.points for o in p.owners} == {b.owner(name) for name in "dcb"}


def test_drifts_add_up_and_what_came_and_went_is_none() -> None:
    record = before("c", "b", "a")
    first = noted(record, b.disk("x", "c", "b", "a"), now=NOW, adopt=False)
    second = noted(first, b.disk("x", "c", "a"), now="later", adopt=False)
    assert second.drift == Drift(NOW, added=keys("x"), gone=keys("b"))
    back = noted(first, b.disk("c", "b", "a"), now="later", adopt=False)
    assert back.drift is None
    assert back.points == record.points


def test_what_varve_merged_away_since_is_no_drift_any_more() -> None:
    record = replace(before("c", "b", "a"), drift=Drift(NOW, added=keys("x")))
    assert standing_drift(record, b.disk("x", "c", "a")) == record.drift
    assert standing_drift(record, b.disk("c", "a")) is None
    assert standing_drift(record, None) == record.drift


def test_an_operation_of_ours_is_no_drift() -> None:
    commit = b.operation(OperationKind.COMMIT, "a", "b")
    record = replace(before("c", "b", "a"), operation=commit)
    assert fits_known(record, b.disk("c", "b", "a"))
    assert fits_known(record, b.disk("c", "a"))
    assert not fits_known(record, b.disk("x", "c", "a"))


def test_a_drift_voids_an_approval_that_was_begun() -> None:
    record = replace(before("c", "b", "a"), approved=Approved("0" * 16, frozenset(keys("b"))))
    assert noted(record, b.disk("x", "c", "b", "a"), now=NOW, adopt=True).approved is None
