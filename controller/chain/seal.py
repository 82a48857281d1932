"""The seal of a record: which part of a journal varve wrote, for which disk of which machine (ADR 17).

A seal is an HMAC-SHA256 over one ``<disk>`` of the journal together with the identity of the cluster and the
UUID of the domain. So nobody without the key can change, add or cut a part of it, or move it to another disk,
machine or cluster. It does not say how old a record is: one that was valid once stays valid.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from lxml import etree

ATTRIBUTE = "seal"
"""Of ``<disk>``. Versions before ADR 15 drop what they do not know, and write it unsealed again."""

FORMAT = "1"
"""What is sealed, and in which form. Another form gets another number."""

SHORTEST = 32
"""Bytes of a key at least: as many as the digest has."""


class Trust(StrEnum):
    """What a seal says of a record."""

    SEALED = "sealed"
    """By this cluster, for this disk, as it stands there."""
    UNSEALED = "unsealed"
    """It has none: a version before seals wrote it, or anybody else."""
    STRANGE = "strange"
    """The key of it is not known here."""
    BROKEN = "broken"
    """The key is known, and the record is not what was sealed with it."""


@dataclass(frozen=True)
class Whose:
    """What a record belongs to."""

    cluster: str
    domain: str
    """UUID."""


class Seals:
    """The keys of a cluster: the current one seals, the previous ones are still believed."""

    def __init__(self, current: bytes, previous: Iterable[bytes] = ()) -> None:
        """Raises ValueError for a key of less than :data:`SHORTEST` bytes."""
        keys = (current, *previous)
        if any(len(key) < SHORTEST for key in keys):
            raise ValueError(f"a key has at least {SHORTEST} bytes")
        self._keys = {key_id(key): key for key in reversed(keys)}
        self._current = key_id(current)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the keys, the current one first; they tell nothing of the keys."""
        return (self._current, *sorted(self._keys.keys() - {self._current}))

    def seal(self, record: etree._Element, whose: Whose) -> str:
        """The seal of a ``<disk>`` element without namespaces, by the current key."""
        return f"{self._current}:{_digest(self._keys[self._current], record, whose)}"

    def trust(self, record: etree._Element, whose: Whose) -> Trust:
        """What the seal says that a ``<disk>`` element without namespaces has."""
        found = record.get(ATTRIBUTE)
        if found is None:
            return Trust.UNSEALED
        name, _, digest = found.partition(":")
        if name not in self._keys:
            return Trust.STRANGE
        right = hmac.compare_digest(digest.encode(), _digest(self._keys[name], record, whose).encode())
        return Trust.SEALED if right else Trust.BROKEN


@dataclass(frozen=True)
class Sealing:
    """How the records of one hypervisor are sealed and believed."""

    seals: Seals
    taken_over: Collection[str] = ()
    """Clusters whose keys are gone for good: what they sealed counts as unsealed."""

    def trust(self, record: etree._Element, whose: Whose) -> Trust:
        """What to make of a record."""
        found = self.seals.trust(record, whose)
        given = found is Trust.STRANGE and whose.cluster in self.taken_over
        return Trust.UNSEALED if given else found


def key_id(key: bytes) -> str:
    """The public name of a key."""
    return hashlib.sha256(key).hexdigest()[:8]


def _digest(key: bytes, record: etree._Element, whose: Whose) -> str:
    head = [FORMAT, whose.cluster, whose.domain]
    text = json.dumps([*head, *_told(record)], separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _told(record: etree._Element) -> Iterator[object]:
    """All that an element says, whatever libvirt makes of quotes, of the order of attributes and of the white
    space between elements."""
    for event, element in etree.iterwalk(record, events=("start", "end")):
        if event == "end":
            tail = element.tail
            yield tail if tail and element is not record and tail.strip() else ""
            continue
        attributes = sorted(element.items())
        if element is record:
            attributes = [pair for pair in attributes if pair[0] != ATTRIBUTE]
        text = element.text
        yield [element.tag, attributes, text if text and (text.strip() or not len(element)) else ""]
