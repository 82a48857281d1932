"""``varve tree``: the images of each chain, top to base, with who holds which point."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from controller.api.conditions import Truth
from controller.api.volumechain import (
    BoundaryState,
    ChainBoundary,
    ChainDrift,
    ChainLayer,
    LayerOrigin,
    VolumeChain,
)
from controller.api.volumesnapshot import Operation
from controller.cli.page import Block, Line, Page, Role, Section, Span, Table, facts, line
from controller.cli.report import Report, Summary, summary
from controller.cli.sizes import counted, duration, listed, size


class ChainTree(Report):
    """One chain."""

    namespace: str
    name: str
    hypervisor: str | None = None
    domain: str | None = None
    disk: str
    ready: Summary
    depth: int | None = None
    total_bytes: int | None = None
    reclaimable_bytes: int | None = None
    layers: tuple[ChainLayer, ...] = ()
    """Top to base, as in VolumeChain.status."""
    operation: Operation | None = None
    drift: ChainDrift | None = None
    not_in_use: tuple[str, ...] = ()
    """Images beside it that its spec says nobody uses."""


class Tree(Report):
    """All chains that were asked for."""

    kind: Literal["Tree"] = "Tree"
    chains: tuple[ChainTree, ...]


def report(chains: Iterable[VolumeChain]) -> Tree:
    """What is to be shown of ``chains``, by namespace and name."""
    ordered = sorted(chains, key=lambda chain: (chain.namespace, chain.name))
    return Tree(chains=tuple(_chain(chain) for chain in ordered))


def _chain(chain: VolumeChain) -> ChainTree:
    status, source = chain.status, chain.spec.source
    resolved = status.resolved
    return ChainTree(
        namespace=chain.namespace,
        name=chain.name,
        hypervisor=(resolved and resolved.hypervisor) or source.hypervisor,
        domain=(resolved and resolved.domain_name) or source.domain or source.domain_uuid,
        disk=source.disk,
        ready=summary(status.conditions),
        depth=status.depth,
        total_bytes=status.total_bytes,
        reclaimable_bytes=status.reclaimable_bytes,
        layers=status.layers,
        operation=status.operation,
        drift=status.drift,
        not_in_use=chain.spec.not_in_use,
    )


def page(tree: Tree) -> Page:
    """One section for each chain."""
    if not tree.chains:
        return (line(("No chain.", Role.FAINT)),)
    return tuple(Section(title(chain), tuple(_blocks(chain))) for chain in tree.chains)


def title(chain: ChainTree) -> Line:
    """``shop/db-1-vda  disk vda of db-1 on host-a``."""
    where = f" on {chain.hypervisor}" if chain.hypervisor else ""
    return line(
        (f"{chain.namespace}/{chain.name}", Role.NAME), f"  disk {chain.disk} of {chain.domain}{where}"
    )


def state(ready: Summary) -> Span:
    """The reason, in the role that it has."""
    if ready.status is Truth.TRUE:
        return Span(ready.reason, Role.GOOD)
    return Span(ready.reason or "not looked at yet", Role.BAD if ready.stalled else Role.BUSY)


def progress(operation: Operation) -> str:
    """``Commit 43 %, 110 MiB of 256 MiB, 4 s left``."""
    percent = "" if operation.percent is None else f" {operation.percent} %"
    return f"{operation.kind}{percent}{amount(operation)}"


def amount(operation: Operation) -> str:
    """``, 110 MiB of 256 MiB, 4 s left``, as far as it is known."""
    parts = [""]
    if operation.total_bytes:
        parts.append(f"{size(operation.current_bytes or 0)} of {size(operation.total_bytes)}")
    if operation.eta_seconds is not None:
        parts.append(f"{duration(operation.eta_seconds)} left")
    return ", ".join(parts)


def _blocks(chain: ChainTree) -> Iterable[Block]:
    rows = [("state", line(state(chain.ready), _because(chain.ready)))]
    if chain.depth is not None:
        text = f"{counted(chain.depth, 'layer')}, {size(chain.total_bytes)}"
        spare = f", {size(chain.reclaimable_bytes)} reclaimable" if chain.reclaimable_bytes else ""
        rows.append(("size", line(f"{text}{spare}")))
    if chain.operation:
        rows.append(("runs", line((progress(chain.operation), Role.BUSY))))
    yield facts(rows)
    if chain.layers:
        yield Table(
            tuple(_row(chain, layer) for layer in chain.layers),
            heading=("INDEX", "IMAGE", "FORMAT", "BYTES", "POINT"),
            right=frozenset({3}),
        )
    if chain.depth is not None and len(chain.layers) < chain.depth and chain.layers:
        left = chain.depth - len(chain.layers)
        yield line((f"{counted(left, 'more layer')} below, which the status has no room for", Role.FAINT))
    if chain.drift:
        since = f" since {chain.drift.since:%Y-%m-%d %H:%M:%S} UTC" if chain.drift.since else ""
        yield line((f"changed by somebody else{since}:", Role.BAD))
        yield from (line(("  " + text, Role.BAD)) for text in chain.drift.what.splitlines())
    if chain.not_in_use:
        yield line(("beside it, in use by nobody as its spec says:", Role.FAINT))
        yield from (line(("  " + image, Role.FAINT)) for image in chain.not_in_use)


def _because(ready: Summary) -> str:
    return f": {ready.message}" if ready.message and ready.status is not Truth.TRUE else ""


def _row(chain: ChainTree, layer: ChainLayer) -> tuple[Line, ...]:
    active = layer is chain.layers[0]
    number = "" if layer.index is None else f"[{layer.index}]"
    return (
        line((f"{chain.disk}{number}", Role.NAME if active else Role.TEXT)),
        line((layer.source, Role.TEXT if layer.origin is LayerOrigin.OTHER else Role.CODE)),
        line((layer.format or "?", Role.FAINT)),
        line(size(layer.allocated_bytes)),
        line(("active", Role.FAINT)) if layer.boundary is None else _point(layer.boundary, chain.namespace),
    )


def _point(boundary: ChainBoundary, namespace: str) -> Line:
    names = [
        owner.name if owner.namespace == namespace else f"{owner.namespace}/{owner.name}"
        for owner in boundary.owners
    ]
    unlisted = (boundary.owner_count or 0) - len(names)
    owners = listed([*names, *(["others"] if unlisted > 0 else [])], most=MOST_NAMES)
    match boundary.state:
        case BoundaryState.HELD:
            return line((owners, Role.GOOD))
        case BoundaryState.LEAVING:
            return line((owners, Role.BUSY), (" leaving", Role.BUSY))
        case BoundaryState.OWNER_MISSING:
            return line((f"{owners} is missing", Role.BAD))
        case BoundaryState.UNMANAGED:
            return line(("unmanaged", Role.FAINT))


MOST_NAMES = 8
"""Owners of a point that are named in a table."""
