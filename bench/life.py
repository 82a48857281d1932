"""Takes and merges, through the whole stack and bare, in turns on two machines alike.

One round is the life of two points: take A, take B, delete A (a commit below the active layer), delete B (a
commit of the active layer with a pivot). Who begins changes from round to round, so that a disturbance of the
machine meets both alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.samples import Budget, Comparison
from bench.stage import NOW, SETTLED, Pair, Stage
from lab.controller import lent
from lab.machines.disk import MEBIBYTE

TAKE = Budget(median_over=0.050, p99_over=0.150)
"""Of a file disk."""

EMPTY_MERGE = Budget(median_over=0.100)
SETTLED_MERGE = Budget(median_over=1.100)
BIG_MERGE = Budget(ratio=1.03)
BIG = 1024 * MEBIBYTE
"""Bytes from which a merge counts as the big one of the budget."""

_PAYLOAD_AT = 8 * MEBIBYTE
"""Behind everything that the guest writes."""

_WARM_UP = 1
"""Rounds that are not counted: the first of a process opens connections and reads code."""

WRITES = "varve_api_writes_total"


@dataclass
class Series:
    """Durations of one kind of act in seconds, both ways."""

    bare: list[float] = field(default_factory=list)
    stack: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Writes:
    """What the lives of some VolumeSnapshots cost the API server."""

    lives: int
    by_call: dict[str, float]
    """Writes of the controller per life, by plural and call, its Lease not counted."""
    versions: float
    """Versions of the object per life as the watch showed them, the user's own two included."""

    @property
    def per_life(self) -> float:
        """Writes of the controller per life."""
        return sum(self.by_call.values())


def empty(stage: Stage, pair: Pair, runs: int) -> tuple[list[Comparison], Writes]:
    """Takes and empty merges of both kinds, and the API writes of their lives."""
    take, middle, newest = Series(), Series(), Series()
    before: dict[str, float] = {}
    names: list[str] = []
    for number in range(runs + _WARM_UP):
        if number == _WARM_UP:
            take, middle, newest = Series(), Series(), Series()
            before = written(stage)
            names = []
        name, swap = f"{pair.protocol}-{number}", bool(number % 2)
        names += _round(stage, pair, name, (take, middle, newest), swap=swap)
    after = written(stage)
    writes = Writes(
        lives=len(names),
        by_call={call: (after[call] - before.get(call, 0)) / len(names) for call in sorted(after)},
        versions=sum(stage.snapshots.versions(name) for name in names) / len(names),
    )
    return [
        _compare("take", pair, take, TAKE if pair.protocol == "file" else Budget()),
        _compare("empty merge, below", pair, middle, EMPTY_MERGE),
        _compare("empty merge, active", pair, newest, EMPTY_MERGE),
    ], writes


def settled(stage: Stage, pair: Pair, runs: int) -> Comparison:
    """An empty merge of the active layer with the default settleSeconds of 1."""
    series = Series()
    for number in range(runs):
        name = f"{pair.protocol}-settled-{number}"
        _take(stage, pair, name, 0, Series(), policy=SETTLED)
        _merge(stage, pair, name, 0, series)
    return _compare("empty merge, settleSeconds 1", pair, series, SETTLED_MERGE)


def copying(stage: Stage, pair: Pair, size: int, runs: int) -> list[Comparison]:
    """Merges that copy ``size`` bytes, of both kinds."""
    budget = BIG_MERGE if size >= BIG else Budget()
    what = f"{size // MEBIBYTE} MiB merge"
    below, active = (Series(), Series()), (Series(), Series())
    for number in range(runs):
        first, second = (f"{pair.protocol}-{size // MEBIBYTE}-{number}-{at}" for at in "ab")
        ignored = Series()
        _take(stage, pair, first, 0, ignored)
        _fill(stage, pair, size, 2 * number + 1)
        _take(stage, pair, second, 1, ignored)
        _copy(stage, pair, first, 1, below, swap=bool(number % 2))
        _fill(stage, pair, size, 2 * number + 2)
        _copy(stage, pair, second, 0, active, swap=bool(number % 2))
    return [
        _compare(f"{what}, below, until merged", pair, below[0], budget),
        _compare(f"{what}, below, until gone", pair, below[1], Budget()),
        _compare(f"{what}, active, until merged", pair, active[0], budget),
        _compare(f"{what}, active, until gone", pair, active[1], Budget()),
    ]


def written(stage: Stage) -> dict[str, float]:
    """API writes of the controller so far, by plural and call; those of its Lease are left out."""
    found = {}
    for line in stage.controller.metrics().splitlines():
        if line.startswith(WRITES + "{"):
            labels, _, value = line.removeprefix(WRITES).rpartition(" ")
            parts = dict(pair.split("=") for pair in labels.strip("{}").replace('"', "").split(","))
            if parts["kind"] != "leases":
                found[f"{parts['kind']} {parts['call']}"] = float(value)
    return found


def _round(
    stage: Stage, pair: Pair, name: str, series: tuple[Series, Series, Series], *, swap: bool
) -> list[str]:
    take, middle, newest = series
    first, second = f"{name}-a", f"{name}-b"
    _take(stage, pair, first, 0, take, swap=swap)
    _take(stage, pair, second, 1, take, swap=swap)
    _merge(stage, pair, first, 1, middle, swap=swap)
    _merge(stage, pair, second, 0, newest, swap=swap)
    return [first, second]


def _take(
    stage: Stage, pair: Pair, name: str, layer: int, series: Series, *, policy: str = NOW, swap: bool = False
) -> None:
    """Take the point ``name``; its layer is number ``layer`` of the round."""
    ours, theirs = pair.stack.place(layer), pair.bare.place(layer)

    def stack() -> None:
        spec = {"volumeSnapshotClassName": policy, **(lent(ours) if ours else {})}
        sent = stage.snapshots.apply(name, pair.stack.machine.name, **spec)
        series.stack.append(stage.snapshots.until_ready(name) - sent)

    def bare() -> None:
        series.bare.append(stage.bare.take(pair.bare.machine, name, theirs))

    _both(stack, bare, swap=swap)


def _merge(stage: Stage, pair: Pair, name: str, position: int, series: Series, *, swap: bool = False) -> None:
    def stack() -> None:
        sent = stage.snapshots.delete(name)
        series.stack.append(stage.snapshots.until_gone(name) - sent)

    def bare() -> None:
        series.bare.append(stage.bare.merge(pair.bare.machine, position).job)

    _both(stack, bare, swap=swap)


def _copy(
    stage: Stage, pair: Pair, name: str, position: int, series: tuple[Series, Series], *, swap: bool
) -> None:
    """A merge, timed until it is done and until its image is gone: to unlink a big file takes long."""
    merged, gone = series

    def stack() -> None:
        stage.bare.forget_jobs(pair.stack.machine)
        sent = stage.snapshots.delete(name)
        merged.stack.append(stage.bare.until_completed(pair.stack.machine) - sent)
        gone.stack.append(stage.snapshots.until_gone(name) - sent)

    def bare() -> None:
        found = stage.bare.merge(pair.bare.machine, position)
        merged.bare.append(found.job)
        gone.bare.append(found.removed)

    _both(stack, bare, swap=swap)


def _fill(stage: Stage, pair: Pair, size: int, pattern: int) -> None:
    for side in (pair.stack, pair.bare):
        stage.bare.fill(side.machine, _PAYLOAD_AT, size, pattern % 255 + 1)


def _both(one: Callable[[], None], other: Callable[[], None], *, swap: bool) -> None:
    for act in (other, one) if swap else (one, other):
        act()


def _compare(name: str, pair: Pair, series: Series, budget: Budget) -> Comparison:
    return Comparison(name, pair.protocol, tuple(series.bare), tuple(series.stack), budget)
