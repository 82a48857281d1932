"""How layers left a chain while nobody looked: told from when the images that are left were written to.

A commit writes into the image below the layers that went, a pull does not. The record knows when the chain
was as it was before (:attr:`Known.at`), after the last write of varve itself. So:

* an image below that was not written to since then is what it was: no commit has gone into it;
* one that was written to later has taken up what lay above it, if it was not copied or touched instead. The
  layers further down tell: a copy of the disk makes them newer as well. And a pull ends in the active layer,
  so layers that went from between two frozen ones went down.

The storage has a clock of its own, so what happened within minutes of the record proves nothing. Everything
else is no evidence either: images of which no time is known, layers that are new, the uppermost or the lowest
layer gone, runs that went in different ways.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise

from controller.chain.disk import Disk
from controller.chain.drift import difference
from controller.chain.journal import DiskJournal
from controller.chain.observation import JobKind

CLOCKS = timedelta(minutes=5)
"""How far the clocks of controller and storage may be apart."""


def may_tell(record: DiskJournal, chain: Disk) -> bool:
    """Whether the times of images can say how all that is gone went: it lay between layers that are left."""
    return bool(_runs(record, chain))


def evidence(record: DiskJournal, chain: Disk, written: Mapping[str, datetime]) -> frozenset[JobKind]:
    """The kind of job that surely took away what is gone, as if it had been seen; nothing if that cannot be
    told. ``written``: when images were written to last, by identity."""
    kinds = {_kind(run, record, chain, written) for run in _runs(record, chain)}
    certain = frozenset(kind for kind in kinds if kind is not None)
    return certain if len(kinds) == len(certain) == 1 else frozenset()


def _runs(record: DiskJournal, chain: Disk) -> list[tuple[str, str]]:
    """The layers that are left above and below each run of layers that are gone; nothing when anything else
    is different too."""
    before = record.known
    if before is None or not before.at:
        return []
    added, gone = difference(before, chain)
    left = tuple(key for key in before.keys if key not in gone)
    same_ends = bool(left) and (left[0], left[-1]) == (before.keys[0], before.keys[-1])
    if added or left != chain.keys or not same_ends:
        return []
    at = before.keys.index
    return [(upper, lower) for upper, lower in pairwise(left) if at(lower) - at(upper) > 1]


def _kind(
    run: tuple[str, str], record: DiskJournal, chain: Disk, written: Mapping[str, datetime]
) -> JobKind | None:
    """How the layers between these two went."""
    upper, lower = run
    recorded = datetime.fromisoformat(record.known.at if record.known else "")
    when = written.get(lower)
    if when is None or abs(when - recorded) <= CLOCKS:
        return None
    if when < recorded:
        return JobKind.PULL
    place = posixpath.dirname(lower)
    below = chain.keys[chain.keys.index(lower) + 1 :]
    others = [written[key] for key in below if key in written and posixpath.dirname(key) == place]
    alone = bool(others) and max(others) <= recorded + CLOCKS
    return JobKind.COMMIT if alone or upper != chain.keys[0] else None
