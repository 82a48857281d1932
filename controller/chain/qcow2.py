"""The header of a qcow2 image (QEMU's docs/interop/qcow2.txt), as far as it tells what an overlay is."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from controller.chain.prepared import Examined

DAMAGED = "it was not closed in good order, or is damaged (qemu-img check)"
"""Why such an image is not written to."""
HEAD_BYTES = 65536
"""Header, extensions and backing name are within the first cluster; QEMU's default cluster is this big."""
_MAGIC = b"QFI\xfb"
_FIXED = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES = struct.Struct(">QQQII")
_BACKING_FORMAT, _BITMAPS = 0xE2792ACA, 0x23852875
"""Of the header's extensions."""
_DIRTY, _CORRUPT, _DATA_FILE = 1, 2, 4
_KNOWN = 0b11111
"""Incompatible features of QEMU 7.2: dirty, corrupt, external data file, compression type, extended L2."""
_MOST_L1 = 32 << 20
"""QEMU's own limit of the L1 table, bytes (QCOW_MAX_L1_SIZE)."""


_DEFAULT_ORDER = 4
"""Refcounts of 16 bits: those of version 2, and what QEMU makes."""
_OFFSET = 0xFFFFFFFFFFFFFE00
"""Of an entry of the refcount table: the rest is reserved."""
_MOST_BLOCKS = 1024
"""Refcount blocks that are read at most: of 64 KiB each, they are for 2 TiB."""


class NotQcow2(ValueError):
    """The bytes are no qcow2 image that can be judged."""


@dataclass(frozen=True)
class _Header:
    capacity: int
    backing: str
    backing_format: str
    flaws: tuple[str, ...]
    l1_offset: int
    l1_bytes: int


@dataclass(frozen=True)
class Inside:
    """What an image that is in a chain says of itself, as far as a merge into it depends on that."""

    version: int
    """2 (``compat=0.10``) or 3: bitmaps are stored only in the latter."""
    cluster: int = 0
    """Bytes; 0 when it was not read."""
    used: int | None = None
    """Bytes that its clusters in use take, by its own refcounts; None when they were not counted."""


def inside(read: Callable[[int, int], bytes], *, measuring: bool) -> Inside:
    """Read ``read(offset, length)`` of a qcow2 image that nobody writes to; with ``measuring`` what it takes.
    Raises NotQcow2."""
    head = read(0, HEAD_BYTES)
    flaws = _parse(head).flaws
    (_, version, _, _, bits, *_, table, clusters, _, _) = _FIXED.unpack_from(head)
    if not 9 <= bits <= 21:
        raise NotQcow2(f"its clusters are of 2^{bits} bytes")
    order = _FEATURES.unpack_from(head, _FIXED.size)[3] if version == 3 else _DEFAULT_ORDER
    if not measuring or order != _DEFAULT_ORDER or DAMAGED in flaws:  # then its refcounts may lag behind
        return Inside(version, 1 << bits)
    return Inside(version, 1 << bits, _used(read, 1 << bits, table, clusters))


def _used(read: Callable[[int, int], bytes], cluster: int, table: int, clusters: int) -> int | None:
    entries = (entry & _OFFSET for (entry,) in struct.iter_unpack(">Q", read(table, clusters * cluster)))
    blocks = [at for at in entries if at]
    if len(blocks) > _MOST_BLOCKS:
        return None
    counted = 0
    for at in blocks:
        block = read(at, cluster)
        if len(block) < cluster:
            raise NotQcow2("it ends before its tables do")
        counted += sum(count != 0 for (count,) in struct.iter_unpack(">H", block))
    return counted * cluster


def examine(read: Callable[[int, int], bytes]) -> Examined:
    """Judge an image by ``read(offset, length)`` of its bytes. Raises NotQcow2."""
    header = _parse(read(0, HEAD_BYTES))
    table = read(header.l1_offset, header.l1_bytes) if not header.flaws else b""
    if not header.flaws and len(table) < header.l1_bytes:
        raise NotQcow2("it ends before its tables do")
    return Examined(
        capacity=header.capacity,
        backing=header.backing,
        backing_format=header.backing_format,
        empty=not any(table),
        flaws=header.flaws,
    )


def _parse(head: bytes) -> _Header:
    if len(head) < _FIXED.size or head[:4] != _MAGIC:
        raise NotQcow2("it is no qcow2 image")
    (_, version, at, length, _, capacity, crypt, l1_size, l1_offset, _, _, snapshots, _) = _FIXED.unpack_from(
        head
    )
    if version not in {2, 3}:
        raise NotQcow2(f"it is a qcow2 image of version {version}")
    incompatible, end = 0, _FIXED.size
    if version == 3:
        if len(head) < _FIXED.size + _FEATURES.size:
            raise NotQcow2("its header ends too early")
        incompatible, _, _, _, end = _FEATURES.unpack_from(head, _FIXED.size)
    extensions = _extensions(head, end)
    faults = [
        (crypt != 0, "it is encrypted"),
        (incompatible & _DATA_FILE, "its data is in another file"),
        (
            incompatible & (_DIRTY | _CORRUPT),
            DAMAGED,
        ),
        (incompatible & ~_KNOWN, "it uses features of qcow2 that are not known here"),
        (snapshots, "it holds internal snapshots"),
        (_BITMAPS in extensions, "it holds bitmaps"),
        (at + length > len(head), "the name of the image below it is not where it should be"),
        (l1_size * 8 > _MOST_L1, "its table of clusters is too big"),
    ]
    return _Header(
        capacity=capacity,
        backing=head[at : at + length].decode("utf-8", "replace") if at else "",
        backing_format=extensions.get(_BACKING_FORMAT, b"").decode("utf-8", "replace"),
        flaws=tuple(text for fault, text in faults if fault),
        l1_offset=l1_offset,
        l1_bytes=l1_size * 8,
    )


def _extensions(head: bytes, at: int) -> dict[int, bytes]:
    """Walk the header's extensions; of those of one kind the first."""
    found: dict[int, bytes] = {}
    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        if kind == 0:
            break
        found.setdefault(kind, head[at + 8 : at + 8 + length])
        at += 8 + (length + 7) // 8 * 8
    return found
