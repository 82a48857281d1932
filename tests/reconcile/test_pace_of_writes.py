"""Writes of one namespace come one after the other; each has its turn, and none is lost."""

from __future__ import annotations

from controller.reconcile.pace import Pace


def test_a_burst_goes_at_once_and_the_rest_in_its_turn() -> None:
    pace = Pace(burst=3, per_second=10)
    waits = [pace.wait("flood", number, 100.0) for number in range(6)]
    assert [round(wait, 6) for wait in waits] == [0, 0, 0, 0.1, 0.2, 0.3]
    assert pace.wait("shop", "a", 100.0) == 0


def test_whoever_comes_back_in_his_turn_has_it() -> None:
    pace = Pace(burst=1, per_second=10)
    assert pace.wait("flood", "a", 100.0) == 0
    due = {key: pace.wait("flood", key, 100.0) for key in "bcd"}
    assert round(pace.wait("flood", "d", 100.1) - (due["d"] - 0.1), 6) == 0, "asking is not waiting anew"
    for key, wait in due.items():
        assert pace.wait("flood", key, 100.0 + wait) == 0


def test_a_turn_that_nobody_takes_is_forgotten() -> None:
    pace = Pace(burst=1, per_second=10)
    pace.wait("flood", "a", 100.0)
    assert pace.wait("flood", "b", 100.0)
    pace.forget("b")
    assert not pace._due


def test_a_rest_gives_the_burst_back_and_no_more() -> None:
    pace = Pace(burst=3, per_second=10)
    for number in range(20):
        pace.wait("flood", number, 100.0)
    waits = [pace.wait("flood", number, 1000.0) for number in range(100, 104)]
    assert [wait == 0 for wait in waits] == [True, True, True, False]
