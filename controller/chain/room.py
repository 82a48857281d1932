"""What a qcow2 image may come to take when others are committed into it, for devices that do not grow."""

from __future__ import annotations

from collections.abc import Iterable

DEFAULT_CLUSTER = 65536
"""Bytes: QEMU's default, which libvirt's overlays have."""
_HEAD = 4
"""Clusters of the header, of the refcount table, and to spare."""


def whole(capacity: int, cluster: int) -> int:
    """Bytes of an image of this virtual size in which everything is in use."""
    data = -(-capacity // cluster)
    return _with_tables(data, _l2_tables(capacity, cluster), capacity, cluster)


def needed(used: int, capacity: int, cluster: int, merged: Iterable[tuple[int, int]]) -> int:
    """Upper bound of the bytes that an image takes when ``merged`` (bytes and cluster size of each) is in it.

    ``used`` is what it takes now. A cluster of what is merged may need one of its own in the image, and each
    of these an L2 table; what overlaps is counted twice.
    """
    new = sum(-(-size // unit) * max(1, -(-unit // cluster)) for size, unit in merged)
    tables = min(new, _l2_tables(capacity, cluster))
    return min(whole(capacity, cluster), used + _with_tables(new, tables, capacity, cluster))


def _with_tables(data: int, l2: int, capacity: int, cluster: int) -> int:
    """Bytes of so many clusters of data and of L2 tables, with what counts and finds them."""
    l1 = -(-_l2_tables(capacity, cluster) * 8 // cluster)
    clusters = data + l2 + l1 + _HEAD
    counts = -(-clusters * 2 // (cluster - 2))  # 16 bits each, for themselves too
    return (clusters + counts) * cluster


def _l2_tables(capacity: int, cluster: int) -> int:
    return -(-capacity // (cluster * cluster // 8))
