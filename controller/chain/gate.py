"""The gate: known faults of libvirt and QEMU by version, and what varve does not do because of them.

What a daemon can do is found by asking it. These cannot be asked for: the daemon says yes and the harm comes
later. So they go by version, in one table. A row is a range of versions, what goes wrong in it, and the limit
that follows; it is in force whatever a class says.

Which side an unknown version is on:

- A version that was not told, or cannot be read, has every fault of its product.
- A fault whose end is known (somebody mended it) ends there: later versions are without it.
- A fault whose end is not known goes on. It ends only where this project's own tests have run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

Version = tuple[int, int, int]

DEEPEST = 200
"""Layers that any libvirt opens at most (measured: code 84 beyond)."""

_NUMBERS = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?![\d.])")
_TYPE = re.compile(r"(?:pc-i440fx|pc-q35|virt|pseries|s390-ccw-virtio)-(\d{1,2})\.(\d{1,2})")
"""Machine types that are named after the QEMU that brought them; a vendor's own names tell nothing."""


class Product(StrEnum):
    """Whose fault it is."""

    LIBVIRT = "libvirt"
    QEMU = "QEMU"


class Fault(StrEnum):
    """The name of a fault; part of the API (``Hypervisor.status.knownFaults``)."""

    CHAIN_DEPTH = "ChainDepth"
    STATS_DEPTH = "StatsDepth"
    PULL_WATCHED = "PullWatched"
    READ_WAITS = "ReadWaits"


@dataclass(frozen=True)
class Row:
    """One fault in one range of versions."""

    fault: Fault
    product: Product
    first: Version
    below: Version | None
    """The first version without it; None while none is known to be without it."""
    fact: str
    """What goes wrong."""
    therefore: str
    """What varve does, or leaves, because of it."""
    source: str
    """Who says so."""
    test: str
    """The test that shows it, as pytest names it."""
    limit: int | None = None

    def applies(self, version: Version | None) -> bool:
        """Whether a version has it; None: a version that is not known."""
        return version is None or (self.first <= version and (self.below is None or version < self.below))


_WATCHED = (
    "QEMU can crash when its block nodes are asked about or changed at the moment a pull ends, and what was "
    "pulled is lost with it"
)
_LEFT_ALONE = (
    "while a disk is pulled, no sizes of its machine are read, and nothing is begun on the machine's other "
    "disks"
)

TABLE = (
    Row(
        Fault.CHAIN_DEPTH,
        Product.LIBVIRT,
        first=(10, 8, 0),
        below=(12, 0, 0),
        limit=22,
        fact="a machine with a longer chain of images may neither start nor outlive a restart of libvirtd, "
        "which cannot read what QEMU says of it (failed to parse JSON: nesting too deep). Up to 25 images do "
        "where those far down hold no bitmaps of backup software, which libvirt does not show",
        therefore="no point makes a chain longer than that, and the objects of a longer one are Stalled",
        source="measured on libvirt 11.3.0: 25 images start, 26 do not; with a bitmap in the base 22 and not "
        "23. It came with json-c in 10.8.0 and went in 12.0.0 (libvirt's NEWS)",
        test="tests/hypervisor/real/test_trixie.py::test_the_deepest_chain_that_starts",
    ),
    Row(
        Fault.STATS_DEPTH,
        Product.LIBVIRT,
        first=(10, 8, 0),
        below=(12, 0, 0),
        limit=27,
        fact="asking for statistics of a machine with a longer chain cuts libvirt off from its QEMU: all "
        "later calls on it fail, until libvirtd is restarted, which ends the machine",
        therefore="sizes of such a machine's images are not read, and nothing is counted on them",
        source="measured on libvirt 11.3.0: domstats and domblkinfo with 27 images and with 28",
        test="tests/hypervisor/real/test_trixie.py::test_statistics_of_a_deep_chain_are_not_asked_for",
    ),
    Row(
        Fault.PULL_WATCHED,
        Product.QEMU,
        first=(0, 0, 0),
        below=(10, 0, 0),
        fact=_WATCHED,
        therefore=_LEFT_ALONE,
        source="ADR 6: measured on QEMU 7.2.22, in 11 of 12 pulls; versions up to 10.0 were not tried",
        test="tests/hypervisor/real/test_steps.py::test_nothing_is_done_to_a_machine_beside_a_pull",
    ),
    # 10.0 was watched without pause through 37 of 37 pulls. 10.0.90 and later are on the way to 10.1.
    Row(
        Fault.PULL_WATCHED,
        Product.QEMU,
        first=(10, 0, 90),
        below=None,
        fact=_WATCHED,
        therefore=_LEFT_ALONE,
        source="not tried on QEMU 10.1 and later: unknown is not safe",
        test="tests/chain/test_gate.py::test_watching_a_pull",
    ),
    Row(
        Fault.READ_WAITS,
        Product.LIBVIRT,
        first=(11, 0, 0),
        below=(11, 5, 0),
        fact="the definition of a machine cannot be read while libvirt works on it (a migration, a save, a "
        "QEMU that hangs): the call waits for the end of that",
        therefore="what is known of such a machine is what its last definition says",
        source="libvirt's sources: from 11.0.0 on XMLDesc waits for the domain's job, from 11.5.0 on no more",
        test="tests/hypervisor/real/test_debian13.py"
        "::test_b9_a_machine_that_hangs_is_left_out_and_what_it_last_said_counts",
    ),
)
"""All rows; of one fault, the ranges do not meet."""


@dataclass(frozen=True)
class Gate:
    """What is in force on one hypervisor. Made by :func:`gate`."""

    libvirt: str
    """Its version, as it was told; empty when it was not."""
    qemu: str
    rows: tuple[Row, ...]

    @property
    def deepest(self) -> int:
        """Images that a chain may have, so that its machine starts again."""
        return self._limit(Fault.CHAIN_DEPTH)

    @property
    def deepest_measured(self) -> int:
        """Images that a chain may have, so that QEMU may be asked for statistics of its machine."""
        return self._limit(Fault.STATS_DEPTH)

    def _limit(self, fault: Fault) -> int:
        row = self.row(fault)
        return DEEPEST if row is None or row.limit is None else row.limit

    def row(self, fault: Fault) -> Row | None:
        """What is in force of this fault."""
        return next((row for row in self.rows if row.fault is fault), None)

    @property
    def reads_wait(self) -> bool:
        """Whether reading a definition can wait for a job of its machine."""
        return self.row(Fault.READ_WAITS) is not None

    def may_watch_pulls(self, machine: str) -> bool:
        """Whether a machine of this type may be asked and changed while one of its disks is pulled.

        The version that libvirt tells is that of the next start. A machine runs on with the QEMU that it was
        started with, also after an upgrade; its type proves that this one is as new as the type at least.
        """
        if self.row(Fault.PULL_WATCHED) is not None:
            return False
        found = _TYPE.fullmatch(machine)
        since = None if found is None else (int(found[1]), int(found[2]), 0)
        return not _rows(Product.QEMU, since)

    def version_of(self, product: Product) -> str:
        """The product with its version, for people."""
        version = self.libvirt if product is Product.LIBVIRT else self.qemu
        return f"{product} {version}" if parsed(version) else f"{product} (version not known)"


@lru_cache(maxsize=64)
def gate(libvirt: str | None, qemu: str | None) -> Gate:
    """The gate of a hypervisor of these versions; None or empty when they were not told."""
    rows = (*_rows(Product.LIBVIRT, parsed(libvirt)), *_rows(Product.QEMU, parsed(qemu)))
    return Gate(libvirt or "", qemu or "", rows)


def told(version: Version) -> str:
    """A version as it is written."""
    return ".".join(map(str, version))


def parsed(version: str | None) -> Version | None:
    """A version as numbers; None when it is none. ``0.0.0`` is what libvirt tells when it found no QEMU."""
    found = _NUMBERS.match(version or "")
    numbers = None if found is None else (int(found[1]), int(found[2]), int(found[3] or 0))
    return None if numbers == (0, 0, 0) else numbers


def _rows(product: Product, version: Version | None) -> tuple[Row, ...]:
    """What applies; of the ranges of one fault only the first, which is all that an unknown version shows."""
    found: dict[Fault, Row] = {}
    for row in TABLE:
        if row.product is product and row.applies(version):
            found.setdefault(row.fault, row)
    return tuple(found.values())


UNKNOWN = gate(None, None)
"""Of a hypervisor that has not told its versions."""
