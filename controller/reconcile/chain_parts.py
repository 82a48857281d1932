"""Which VolumeChains count, without a look at all of them: a namespace may have thousands of one disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from controller.api.approval import Approval
from controller.api.volumechain import VolumeChain
from controller.reconcile.keys import ChainKey

Spot = tuple[str, str, str | None]
"""What a source names: the domain (name, or UUID in small letters), the disk, and the hypervisor if any."""


def spot_of(parsed: VolumeChain) -> Spot:
    """Where a VolumeChain belongs."""
    source = parsed.spec.source
    return (source.domain or (source.domain_uuid or "").lower(), source.disk, source.hypervisor)


@dataclass(frozen=True)
class Ranked:
    """A VolumeChain with its rank: the lowest of a namespace counts."""

    key: ChainKey
    rank: tuple[object, ...]
    manual: bool

    @classmethod
    def of(cls, key: ChainKey, rank: tuple[object, ...], parsed: VolumeChain) -> Ranked:
        """That of this object."""
        return cls(key, rank, parsed.spec.approval is Approval.MANUAL)


@dataclass
class _Part:
    """Those of one namespace at one spot."""

    all: dict[ChainKey, Ranked] = field(default_factory=dict)
    first: Ranked | None = None
    manual: Ranked | None = None
    """The first that wants to be asked."""
    old: bool = False
    """One of the two has gone: they are found anew when somebody asks."""

    def put(self, one: Ranked) -> None:
        """One more."""
        self.all[one.key] = one
        if self.first is None or one.rank < self.first.rank:
            self.first = one
        if one.manual and (self.manual is None or one.rank < self.manual.rank):
            self.manual = one

    def drop(self, key: ChainKey) -> None:
        """One less."""
        gone = self.all.pop(key, None)
        self.old = self.old or (gone is not None and gone in {self.first, self.manual})

    def heard(self) -> Iterator[ChainKey]:
        """The one that counts, and one that wants to be asked, if any does."""
        if self.old:
            ranked = sorted(self.all.values(), key=lambda one: one.rank)
            self.first = next(iter(ranked), None)
            self.manual = next((one for one in ranked if one.manual), None)
            self.old = False
        yield from dict.fromkeys(one.key for one in (self.first, self.manual) if one is not None)


class Parts:
    """All VolumeChains by what they name."""

    def __init__(self) -> None:
        self._parts: dict[Spot, dict[str, _Part]] = {}

    def put(self, spot: Spot, one: Ranked) -> None:
        """A VolumeChain is there."""
        self._parts.setdefault(spot, {}).setdefault(one.key.namespace, _Part()).put(one)

    def drop(self, spot: Spot, key: ChainKey) -> None:
        """A VolumeChain is there no more, or not as it was."""
        parts = self._parts.get(spot, {})
        part = parts.get(key.namespace)
        if part is not None:
            part.drop(key)
            if not part.all:
                del parts[key.namespace]
            if not parts:
                del self._parts[spot]

    def heard(self, spot: Spot) -> Iterator[ChainKey]:
        """Of each namespace, those whose word counts at this spot."""
        for part in self._parts.get(spot, {}).values():
            yield from part.heard()
