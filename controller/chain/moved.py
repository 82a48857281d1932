"""Layers whose servers have another address now: the same images under other identities.

Somebody gives a Ceph monitor, a gluster host, an NBD server or an iSCSI portal another address, and writes it
into the definition while the machine is off. The identity of an image has the address in it, because two
servers may have images of one name (ADR 8), so the record has to follow; and it does only if nothing else can
be meant:

* the chain has the layers that it had, in the order that it had, each once, and each under its own name;
* what was at one server is at one server;
* each server that moved has an image of the chain whose name carries the UID of its VolumeSnapshot. Places
  that are lent on NBD and iSCSI have names of others: there, two layers or more that moved and fit will do.

A move that fits and is not proven is told, and waits for a person: set back, or agreed to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote

from controller.chain.access import at_servers_of
from controller.chain.blocked import Blocked, Why
from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.journal import Approved, DiskJournal, Operation
from controller.chain.naming import is_ours
from controller.chain.outcome import expected
from controller.chain.plan import DiskPlan
from controller.chain.source import Source
from controller.chain.steps import Record, RecordWhy

_KEY = re.compile(r"(?P<part>slice:[0-9]*\+[0-9]*:)?(?P<protocol>[a-z]+)://(?P<servers>[^/]*)(?P<image>/.*)")
"""An identity of an image on the network; see :attr:`Source.key`."""
_LENT = frozenset({"nbd", "iscsi"})
"""Protocols whose overlays were made beforehand: their names are not ours."""


@dataclass(frozen=True)
class Move:
    """A chain that is the known one but for the addresses of servers."""

    layers: Mapping[str, Layer]
    """The layers that moved, as they are now, by what their identity was."""
    servers: Mapping[str, Layer]
    """One of them for each server, by its old address as the identities have it."""
    proven: bool
    whole: bool
    """All known layers are listed. Otherwise some are below the end of what libvirt shows."""

    @property
    def text(self) -> str:
        """What moved where, for people."""
        pairs = ((old, _servers(new.key)) for old, new in self.servers.items())
        ways = " and ".join(f"from {unquote(old)} to {unquote(new)}" for old, new in pairs)
        return f"{len(self.layers)} of its layers went {ways}"


def moved(record: DiskJournal, chain: Disk) -> Move | None:
    """How the chain differs from the known one by addresses alone; None when it does not."""
    if record.known is None:
        return None
    candidates = [record.known]
    if record.operation is not None:
        candidates.append(expected(record.known, record.operation))
    found = (_move(known.keys, chain, record) for known in candidates)
    return next((one for one in found if one is not None), None)


def followed(record: DiskJournal, move: Move) -> DiskJournal:
    """The record with all identities as they are now."""
    new = {old: layer.key for old, layer in move.layers.items()}

    def keys(old: Iterable[str]) -> tuple[str, ...]:
        return tuple(new.get(key, key) for key in old)

    def agreed(approved: Approved | None) -> Approved | None:
        return approved and replace(approved, boundaries=frozenset(keys(approved.boundaries)))

    known, drift = record.known, record.drift
    operation = record.operation and _operation(record.operation, move)
    if operation is not None:
        operation = replace(operation, approved=agreed(operation.approved))
    removals = tuple(replace(one, layer=_layer(one.layer, move)) for one in record.removals)
    return replace(
        record,
        points=tuple(
            replace(point, overlay=new.get(point.overlay, point.overlay)) for point in record.points
        ),
        images=frozenset(keys(record.images)),
        lent=frozenset(keys(record.lent)),
        operation=operation,
        removals=removals,
        known=known and replace(known, keys=keys(known.keys)),
        drift=drift and replace(drift, added=keys(drift.added), gone=keys(drift.gone)),
        approved=agreed(record.approved),
    )


def following(record: DiskJournal, chain: Disk, *, agreed: bool) -> DiskPlan | None:
    """The plan for a disk whose servers have another address: the record follows if that is proven, or
    ``agreed`` to, and otherwise it waits. None for every other disk."""
    move, target = moved(record, chain), record.target
    if move is None:
        return None
    if move.proven or (move.whole and agreed):
        note = f"the servers of disk {target} have another address: {move.text}"
        return DiskPlan(target, step=Record(target, followed(record, move), RecordWhy.MOVED, note=note))
    return DiskPlan(target, blocked=_unproven(move, target))


def as_moved(record: DiskJournal, chain: Disk) -> tuple[DiskJournal, bool]:
    """The record as it will read when it has followed; and whether it is open if the layers are the same."""
    move = moved(record, chain)
    if move is None:
        return record, False
    return (followed(record, move), False) if move.proven else (record, True)


def _unproven(move: Move, target: str) -> Blocked:
    """What to say of a move that the record does not follow."""
    images = ", ".join(layer.source.uri for layer in move.layers.values())
    if not move.whole:
        return Blocked(
            Why.CHAIN_UNKNOWN,
            f"the definition names disk {target} at other servers than before ({move.text}), and libvirt "
            f"shows only its upper layers: start the machine, or name all layers in the definition "
            f"(docs/operations.md, section Layers out of sight)",
        )
    return Blocked(
        Why.CHAIN_DIVERGED,
        f"the definition names disk {target} at other servers than before ({move.text}), and nothing in the "
        f"names proves that {images} are the same images: if they are, set onDrift: Adopt in the disk's "
        f"VolumeChain; otherwise set the definition back. Nothing is done to the disk until then",
    )


def _move(then: tuple[str, ...], chain: Disk, record: DiskJournal) -> Move | None:
    now = chain.layers
    whole = len(now) == len(then)
    if not (now and (whole or (len(now) < len(then) and chain.end is ChainEnd.UNKNOWN))):
        return None
    pairs = list(zip(then, now, strict=False))
    names = [_without_servers(key) for key in then]
    fits = all(name == _without_servers(layer.key) for name, layer in zip(names, now, strict=False))
    if not fits or len(set(names)) < len(names):
        return None
    layers = {key: layer for key, layer in pairs if key != layer.key}
    servers: dict[str, Layer] = {}
    for key, layer in layers.items():
        first = servers.setdefault(_servers(key), layer)
        if _servers(first.key) != _servers(layer.key):
            return None  # one server became two
    if not layers:
        return None
    proven = whole and all(_is_proven(old, layers, record) for old in servers)
    return Move(layers, servers, proven=proven, whole=whole)


def _is_proven(old: str, layers: Mapping[str, Layer], record: DiskJournal) -> bool:
    """Whether the server with the address ``old`` surely is the one that the layers name now."""
    mine = {key: layer for key, layer in layers.items() if _servers(key) == old}
    if any(key in record.images and is_ours(layer.source.leaf) for key, layer in mine.items()):
        return True
    # An NBD server often has one export: what counts is how many of the chain fit, wherever they are.
    lent = {key for key, layer in layers.items() if layer.source.protocol in _LENT and layer.source.name}
    return len(lent) > 1 and lent >= mine.keys()


def _operation(operation: Operation, move: Move) -> Operation:
    return replace(
        operation,
        kept=_layer(operation.kept, move),
        merged=tuple(_layer(layer, move) for layer in operation.merged),
        below=operation.below and _layer(operation.below, move),
    )


def _layer(layer: Layer, move: Move) -> Layer:
    """The layer where it is now. One that is in no chain follows its server if its name is ours."""
    found = move.layers.get(layer.key)
    if found is not None:
        return replace(layer, source=found.source)
    model = move.servers.get(_servers(layer.key))
    if model is None or not is_ours(layer.source.leaf):
        return layer
    return replace(layer, source=_at(layer.source, model.source))


def _at(source: Source, model: Source) -> Source:
    return at_servers_of(source, model) if source.protocol == model.protocol else source


def _servers(key: str) -> str:
    found = _KEY.fullmatch(key)
    return "" if found is None else f"{found['protocol']}://{found['servers']}"


def _without_servers(key: str) -> str:
    found = _KEY.fullmatch(key)
    return key if found is None else f"{found['part'] or ''}{found['protocol']}:{found['image']}"
