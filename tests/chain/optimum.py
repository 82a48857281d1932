"""The best that any sequence of legal libvirt jobs can do: exhaustive search, for small chains.

A chain is layers, active first, and between them boundaries that have to go or stay. A job merges adjacent
layers whose boundaries all have to go, and copies every layer but the one it keeps:

- a commit into the lowest, of any layers below the active one, or of some that reach it (with a pivot);
- a pull of layers that start right below the active one, into the active layer.

libvirt cannot pull into an intermediate layer. Sizes add up. What a sequence copies is written as how often
it copies each layer, so that one search serves chains of all sizes; of two sequences that leave the same and
copy nothing more often, the better is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from operator import mul

from controller.chain.desired import Direction


class Kind(StrEnum):
    """What may be done to a layer."""

    FREE = "free"
    FIXED = "fixed"
    """No commit may write to it: protected, read-only or too small."""
    SHARED = "shared"
    """Somebody else reads it: what it is, and what it stands on, may not change."""


@dataclass(frozen=True)
class Case:
    """A chain with what has to go. ``goes[i]`` is the boundary between ``sizes[i]`` and ``sizes[i + 1]``."""

    sizes: tuple[int, ...]
    goes: tuple[bool, ...]
    kinds: tuple[Kind, ...]
    direction: Direction = Direction.CHEAPEST
    end_known: bool = True
    pulls_last: bool = False

    @staticmethod
    def plain(sizes: tuple[int, ...], goes: tuple[bool, ...]) -> Case:
        """A chain in which everything may be written to."""
        return Case(sizes, goes, (Kind.FREE,) * len(sizes))


@dataclass(frozen=True)
class Best:
    """The optimum: boundaries that have to go and cannot, whether it takes a pull, and the bytes copied."""

    left: int
    pulls: bool
    copied: int


@dataclass(frozen=True)
class Rules:
    """What holds for one run of layers whose boundaries all have to go."""

    direction: Direction
    active: bool
    """The run begins with the active layer."""
    pulls_all: bool
    """Its lowest layer can be pulled: something known is below, or the known end."""


Piece = tuple[int, int, Kind]
"""An image of the run: the first and the last of the layers whose data it holds, and its kind."""
Way = tuple[int, bool, int]
"""What a sequence leaves, whether it pulls, and how often it copies each layer of the run: a number of one
byte per layer, the top one lowest, so that two can be added and compared at once."""
_ONES = [sum(1 << 8 * n for n in range(length)) for length in range(9)]


def best(case: Case) -> Best:
    """The optimum of the whole chain: the sum of its runs, because no job crosses a boundary that stays."""
    found = [_best_of_run(case, *run) for run in _runs(case.goes)]
    return Best(
        sum(one.left for one in found), any(one.pulls for one in found), sum(one.copied for one in found)
    )


@lru_cache(200_000)
def _runs(goes: tuple[bool, ...]) -> tuple[tuple[int, int], ...]:
    """First and last layer of each run."""
    runs: list[tuple[int, int]] = []
    for at, gone in enumerate(goes):
        if gone:
            extends = bool(runs) and runs[-1][1] == at
            runs[-1:] = [(runs[-1][0], at + 1)] if extends else [*runs[-1:], (at, at + 1)]
    return tuple(runs)


def _best_of_run(case: Case, top: int, bottom: int) -> Best:
    sizes = case.sizes[top : bottom + 1]
    kinds = case.kinds[top : bottom + 1]
    found = ways(*_alike(kinds, case, active=top == 0, at_end=bottom == len(case.sizes) - 1))
    costs = (
        (left, case.pulls_last and pulls, sum(map(mul, times.to_bytes(len(sizes), "little"), sizes)), pulls)
        for left, pulls, times in found
    )
    left, _, copied, pulls = min(costs)
    return Best(left, pulls, copied)


def _alike(
    kinds: tuple[Kind, ...], case: Case, *, active: bool, at_end: bool
) -> tuple[tuple[Kind, ...], Rules]:
    """The run without what makes no difference to it, so that fewer are searched."""
    if not active:
        return kinds, Rules(Direction.COMMIT, active=False, pulls_all=False)
    if case.direction is Direction.PULL:
        kinds = (Kind.FREE,) * len(kinds)
    pulls_all = case.direction is not Direction.COMMIT and (case.end_known or not at_end)
    return kinds, Rules(case.direction, active=True, pulls_all=pulls_all)


@cache
def ways(kinds: tuple[Kind, ...], rules: Rules) -> tuple[Way, ...]:
    """All outcomes worth having of all sequences of jobs on a run of layers of these kinds."""
    return _Search(rules).outcomes(tuple((n, n, kind) for n, kind in enumerate(kinds)))


class _Search:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._known: dict[tuple[Piece, ...], tuple[Way, ...]] = {}

    def outcomes(self, pieces: tuple[Piece, ...]) -> tuple[Way, ...]:
        """To stop here, or any job and whatever may follow it."""
        known = self._known.get(pieces)
        if known is None:
            found: set[Way] = {(len(pieces) - 1, False, 0)}
            for pull, copies, after in self._jobs(pieces):
                found |= {
                    (left, pulls or pull, times + copies) for left, pulls, times in self.outcomes(after)
                }
            known = self._known[pieces] = _worth_having(found)
        return known

    def _jobs(self, pieces: tuple[Piece, ...]) -> Iterator[tuple[bool, int, tuple[Piece, ...]]]:
        """Every legal job: is it a pull, which layers it copies, and the pieces afterwards."""
        for top in range(len(pieces)):
            for bottom in range(top + 1, len(pieces)):
                part = pieces[top : bottom + 1]
                keepable = [(False, part[-1])] if self._commits(part) else []
                if top == 0 and self._pulls(bottom, len(pieces)):
                    keepable.append((True, part[0]))
                first, last = part[0][0], part[-1][1]
                for pull, kept in keepable:
                    copies = _layers(first, last) - _layers(kept[0], kept[1])
                    yield pull, copies, (*pieces[:top], (first, last, kept[2]), *pieces[bottom + 1 :])

    def _commits(self, part: tuple[Piece, ...]) -> bool:
        if self._rules.active and self._rules.direction is Direction.PULL:
            return False
        return part[-1][2] is Kind.FREE and all(kind is not Kind.SHARED for _, _, kind in part)

    def _pulls(self, bottom: int, pieces: int) -> bool:
        if not self._rules.active or self._rules.direction is Direction.COMMIT:
            return False
        return self._rules.pulls_all or bottom < pieces - 1


def _layers(first: int, last: int) -> int:
    """Each of these layers once."""
    return _ONES[last - first + 1] << 8 * first


def _worth_having(found: set[Way]) -> tuple[Way, ...]:
    """Those that no other is as good as in everything. One that is better in something is never behind it in
    this order."""
    kept: list[Way] = []
    high = _ONES[8] << 7
    for left, pulls, times in sorted(found, key=lambda one: (one[0], one[1], _copies(one[2]))):
        if not any(
            one[0] <= left and one[1] <= pulls and ((times | high) - one[2]) & high == high for one in kept
        ):
            kept.append((left, pulls, times))
    return tuple(kept)


def _copies(times: int) -> int:
    return sum(times.to_bytes(8, "little"))
