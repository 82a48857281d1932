"""Durations and what is said of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0 to 1) of ``values`` do not exceed (nearest rank).

    No value is made up between two that were measured; with few values a high quantile is the largest one.
    """
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


@dataclass(frozen=True)
class Spread:
    """What one series of durations (seconds) came to."""

    count: int
    median: float
    p5: float
    p95: float
    p99: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError for an empty series."""
        if not values:
            raise ValueError("nothing was measured")
        return cls(
            count=len(values),
            median=quantile(values, 0.5),
            p5=quantile(values, 0.05),
            p95=quantile(values, 0.95),
            p99=quantile(values, 0.99),
            least=min(values),
            most=max(values),
        )


@dataclass(frozen=True)
class Budget:
    """What is to be reached against the bare call; seconds for differences."""

    median_over: float | None = None
    p99_over: float | None = None
    ratio: float | None = None

    def words(self) -> str:
        """The budget as the table shows it."""
        parts = []
        if self.median_over is not None:
            parts.append(f"+{self.median_over * 1000:.0f} ms")
        if self.p99_over is not None:
            parts.append(f"p99 +{self.p99_over * 1000:.0f} ms")
        if self.ratio is not None:
            parts.append(f"×{self.ratio:g}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Comparison:
    """One thing done through the whole stack, and the bare libvirt call for it, in turns."""

    name: str
    protocol: str
    bare: tuple[float, ...]
    stack: tuple[float, ...]
    budget: Budget = Budget()

    @property
    def median_over(self) -> float:
        """Seconds that the stack takes longer, median against median."""
        return quantile(self.stack, 0.5) - quantile(self.bare, 0.5)

    @property
    def p99_over(self) -> float:
        """Seconds from the bare median to the stack's 99th percentile."""
        return quantile(self.stack, 0.99) - quantile(self.bare, 0.5)

    @property
    def ratio(self) -> float:
        """How many times the bare median the stack's median is."""
        return quantile(self.stack, 0.5) / quantile(self.bare, 0.5)

    @property
    def met(self) -> bool | None:
        """Whether the budget is met; None when there is none for this."""
        limits = (
            (self.budget.median_over, self.median_over),
            (self.budget.p99_over, self.p99_over),
            (self.budget.ratio, self.ratio),
        )
        verdicts = [found <= limit for limit, found in limits if limit is not None]
        return all(verdicts) if verdicts else None
