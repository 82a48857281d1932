"""Short ways to say what a planner test needs; every value has a default that is fine for most tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from controller.chain.desired import Policy, Want
from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.journal import DiskJournal, Journal, Operation, OperationKind, Owner, Point
from controller.chain.observation import DiskFacts, Observation, RunState, Size
from controller.chain.source import Source

NOW = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
TAKEN = "2025-01-01T00:00:00Z"
CAPACITY = 1 << 20
TARGET = "vda"
AT_ONCE = Policy(settle_seconds=0)


def owner(name: str, uid: str | None = None) -> Owner:
    """A VolumeSnapshot of the namespace ``shop``."""
    return Owner("shop", name, uid or f"uid-{name}")


def layer(name: str, *, index: int | None = None, format: str = "qcow2") -> Layer:  # noqa: A002 (libvirt's word)
    """A local image."""
    return Layer(Source.file(f"/images/{name}"), format, index)


def key(name: str) -> str:
    """The identity of :func:`layer`."""
    return layer(name).key


def disk(*names: str, end: ChainEnd = ChainEnd.KNOWN, **changes: Any) -> Disk:
    """A chain of local images, active first; the indexes are as scrambled as QEMU's."""
    layers = tuple(layer(name, index=(i * 7) % 11 + 1) for i, name in enumerate(names))
    return replace(Disk(target=TARGET, device="disk", layers=layers, end=end), **changes)


def plain(chain: Disk) -> Disk:
    """The same chain as the persistent definition shows it: no indexes and no end."""
    layers = tuple(replace(one, index=None) for one in chain.layers)
    return replace(chain, layers=layers, end=ChainEnd.UNKNOWN, mirror=None)


def sizes(chain: Disk, allocations: Iterable[int] = ()) -> dict[str, Size]:
    """Measured sizes, active first; 100 bytes for each layer that is not listed."""
    listed = list(allocations)
    listed += [100] * (len(chain.layers) - len(listed))
    return {one.key: Size(bytes_, CAPACITY) for one, bytes_ in zip(chain.layers, listed, strict=True)}


def facts(live: Disk | None, **changes: Any) -> DiskFacts:
    """Facts of a running disk whose persistent definition agrees."""
    found = DiskFacts(
        target=live.target if live else TARGET,
        live=live,
        inactive=plain(live) if live else None,
        sizes=sizes(live) if live else {},
    )
    return replace(found, **changes)


def observation(*disks: DiskFacts, records: Iterable[DiskJournal] = (), **changes: Any) -> Observation:
    """A running domain whose images nobody else uses."""
    found = Observation(
        uuid="0a4f4f0e-5f1c-4e0e-9a53-0c9fd1a3c001",
        name="web-1",
        state=RunState.RUNNING,
        persistent=True,
        disks={one.target: one for one in disks},
        journal=Journal(cluster="c-1", disks=tuple(records)),
        in_use_elsewhere={},
    )
    return replace(found, **changes)


def point(overlay: str, *owners: Owner) -> Point:
    """The managed boundary below ``overlay``."""
    return Point(
        overlay=key(overlay), owners=owners, taken=TAKEN, consistency="CrashConsistent", capacity=CAPACITY
    )


def record(*points: Point, images: Iterable[str] | None = None, **changes: Any) -> DiskJournal:
    """A record whose overlays varve made, unless ``images`` says otherwise."""
    made = {one.overlay for one in points} if images is None else {key(name) for name in images}
    return replace(DiskJournal(TARGET, points=points, images=frozenset(made)), **changes)


def want(who: Owner | str, *, gone_since: datetime | None = None, **changes: Any) -> Want:
    """A wish that settles at once; ``gone_since`` is when its deletion was asked for."""
    who = owner(who) if isinstance(who, str) else who
    return replace(Want(who, TARGET, deleted_at=gone_since, policy=AT_ONCE), **changes)


def operation(
    kind: OperationKind, kept: str, *merged: str, below: str | None = None, **changes: Any
) -> Operation:
    """An operation that was begun."""
    found = Operation(
        kind=kind,
        begun=TAKEN,
        owners=(owner("a"),),
        kept=layer(kept),
        merged=tuple(layer(name) for name in merged),
        below=layer(below) if below else None,
        capacity=CAPACITY,
        process="p1" if kind is OperationKind.PULL else "",
    )
    return replace(found, **changes)


def uses(**users: str) -> Mapping[str, str]:
    """Who else uses images: ``uses(base="disk vdb of web-2")``."""
    return {key(name): phrase for name, phrase in users.items()}
