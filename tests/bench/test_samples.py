"""Quantiles, differences and verdicts, on numbers whose answers are known."""

from __future__ import annotations

import pytest

from bench.samples import Budget, Comparison, Spread, quantile


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [quantile(values, share) for share in (0.0, 0.05, 0.5, 0.95, 0.99, 1.0)] == [1, 5, 50, 95, 99, 100]
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([7.0], 0.99) == 7.0


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Spread.of([])


@pytest.mark.parametrize(
    ("budget", "met"),
    [
        (Budget(), None),
        (Budget(median_over=0.05), True),
        (Budget(median_over=0.049), False),
        (Budget(median_over=0.05, p99_over=0.05), False),
        (Budget(ratio=2.0), True),
        (Budget(ratio=1.9), False),
    ],
)
def test_a_budget_is_met_when_every_part_of_it_is(budget: Budget, met: bool | None) -> None:
    one = Comparison("take", "file", bare=(0.05, 0.05, 0.06), stack=(0.09, 0.1, 0.2), budget=budget)
    assert one.met is met


def test_a_comparison_is_of_medians_and_of_the_worst() -> None:
    one = Comparison("take", "file", bare=(1.0, 2.0, 3.0), stack=(2.0, 4.0, 9.0))
    assert (one.median_over, one.p99_over, one.ratio) == (2.0, 7.0, 2.0)
