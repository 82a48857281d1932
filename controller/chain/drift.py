"""Drift: what somebody else did to a chain, told from the chain as varve knew it last.

New layers are kept and belong to nobody. A point whose boundary or whose layer went is lost. The chain alone
does not say how a layer went: after a commit of the layer below an overlay that overlay still stands on the
same content, after a pull it does not, and both leave the same images. So a point is believed only when the
kind of job is known; otherwise it counts as lost, because a wrong point is worse than none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from controller.chain.disk import ChainEnd, Disk
from controller.chain.journal import DiskJournal, Drift, Known, Point
from controller.chain.observation import JobKind
from controller.chain.outcome import expected

_LOST = "lost:"

_COMMITS = frozenset({JobKind.COMMIT, JobKind.ACTIVE_COMMIT})
"""They leave what an overlay stands on as it was, in another image."""
_PULLS = frozenset({JobKind.PULL, JobKind.COPY})
"""They leave the lower images as they were, under another overlay."""


def known(chain: Disk) -> Known:
    """The chain as it is now."""
    return Known(chain.keys, whole=chain.end is ChainEnd.KNOWN)


def difference(before: Known, chain: Disk) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Identities of the layers that are new and of those that are gone, each from the top down.

    What lies below the end of what is listed, then or now, is neither.
    """
    now = chain.keys
    if now == before.keys:
        return (), ()
    common = [key for key in now if key in before.keys]
    lowest_now = now.index(common[-1]) if common else len(now)
    lowest_then = before.keys.index(common[-1]) if common else len(before.keys)
    seen = now if before.whole or not common else now[: lowest_now + 1]
    hidden = chain.end is ChainEnd.UNKNOWN and bool(common)
    there = before.keys[: lowest_then + 1] if hidden else before.keys
    added = tuple(key for key in seen if key not in before.keys)
    return added, tuple(key for key in there if key not in now)


def noted(
    record: DiskJournal,
    chain: Disk,
    *,
    now: str,
    adopt: bool,
    witnessed: Collection[JobKind] = (),
    running: bool = False,
) -> DiskJournal:
    """The record after a look at a disk on which no operation of ours is under way.

    Equal to ``record`` when nobody else changed the chain. ``witnessed`` are the kinds of the jobs of others
    that were seen to complete since the chain was last as known; ``adopt`` takes the chain as it is;
    ``running`` says that a machine runs on the chain, so that its active layer may be written to.
    """
    if record.is_empty or record.known is None:
        return record
    added, gone = difference(record.known, chain)
    if added or gone:
        points = _judged(record.points, record.known, chain, frozenset(witnessed))
        if running:
            points = tuple(_written_to(point, record.known, chain) for point in points)
        drift = _together(record.drift, Drift(now, added, gone), chain)
        record = replace(record, points=points, known=known(chain), drift=drift, approved=None)
    return replace(record, drift=None) if adopt else record


def is_early(record: DiskJournal, chain: Disk, witnessed: Collection[JobKind]) -> bool:
    """True when layers are gone and nobody has said how: what follows from that is final, so it can wait."""
    return record.known is not None and bool(difference(record.known, chain)[1]) and not witnessed


def standing_drift(record: DiskJournal, chain: Disk | None) -> Drift | None:
    """What of a recorded drift is still so: varve itself may have merged away what was new."""
    drift = record.drift
    if drift is None or chain is None:
        return drift
    added = tuple(key for key in drift.added if chain.position(key) is not None)
    return replace(drift, added=added) if added or drift.gone else None


def fits_known(record: DiskJournal, chain: Disk) -> bool:
    """True when nobody else has changed the chain, as far as that can be told."""
    if record.known is None:
        return True
    candidates = [record.known]
    if record.operation is not None:
        candidates.append(expected(record.known, record.operation))
    return any(difference(one, chain) == ((), ()) for one in candidates)


def _together(before: Drift | None, found: Drift, chain: Disk) -> Drift | None:
    """One drift of two; what came and went again is none."""
    if before is None:
        return found
    added = [key for key in (*found.added, *before.added) if key in chain.keys and key not in before.gone]
    gone = [key for key in (*before.gone, *found.gone) if key not in chain.keys and key not in before.added]
    return replace(before, added=_once(added), gone=_once(gone)) if added or gone else None


def _once(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(keys))


def _judged(
    points: tuple[Point, ...], before: Known, chain: Disk, witnessed: frozenset[JobKind]
) -> tuple[Point, ...]:
    return tuple(_point(point, before, chain, witnessed) for point in points)


def _point(point: Point, before: Known, chain: Disk, witnessed: frozenset[JobKind]) -> Point:
    """The point after a change by others: as it was, below another overlay, or lost.

    A point is lost when its overlay is not in the chain, so one whose layer went is given an overlay that no
    chain can have.
    """
    layer = _below(point.overlay, before.keys)
    if layer is None or _below(point.overlay, chain.keys) == layer:
        return point
    above = _above(layer, chain.keys)
    if witnessed and witnessed <= _PULLS and above is not None:
        return replace(point, overlay=above)
    if chain.position(layer) is not None or chain.position(point.overlay) is None:
        return point
    if chain.end is ChainEnd.UNKNOWN and _below(point.overlay, chain.keys) is None:
        return point  # what it stands on is out of sight
    if witnessed and witnessed <= _COMMITS:
        return point
    return replace(point, overlay=lost(point.overlay))


def lost(overlay: str) -> str:
    """An overlay that no chain can have: the point is lost for good, whatever comes back."""
    return overlay if overlay.startswith(_LOST) else f"{_LOST}{overlay}"


def is_lost(point: Point) -> bool:
    """True for a point with such an overlay."""
    return point.overlay.startswith(_LOST)


def overlay_of(point: Point) -> str:
    """The overlay that a point had, also when it is lost."""
    return point.overlay.removeprefix(_LOST)


def _written_to(point: Point, before: Known, chain: Disk) -> Point:
    """A point whose overlay a running machine does not have. Its layer, or another name of it, may be what
    the guest writes to now: it is lost for good, also when somebody puts the overlay back."""
    hidden = chain.end is ChainEnd.UNKNOWN and any(key in before.keys for key in chain.keys)
    if hidden or chain.position(point.overlay) is not None:
        return point
    return replace(point, overlay=lost(point.overlay))


def _below(key: str, keys: tuple[str, ...]) -> str | None:
    position = keys.index(key) if key in keys else len(keys)
    return keys[position + 1] if position + 1 < len(keys) else None


def _above(key: str, keys: tuple[str, ...]) -> str | None:
    position = keys.index(key) if key in keys else 0
    return keys[position - 1] if position > 0 else None
