"""Which image of a range survives: the cheapest that may.

A range is a run of adjacent layers that become one. Below the active layer libvirt can only commit into the
lowest (there is no pull into an intermediate layer). A range that reaches the active layer may keep any
layer: what lies above it is committed down into it (with a pivot), what lies below is pulled up into it.
The bytes copied are those of all layers but the kept one; allocations overlap, so this is an upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.chain.desired import Direction
from controller.chain.disk import Disk, Layer
from controller.chain.journal import OperationKind
from controller.chain.observation import DiskFacts


@dataclass(frozen=True)
class Range:
    """Layers ``top..bottom`` of a chain (positions from the active layer, both included) that become one."""

    top: int
    bottom: int

    def layers(self, chain: Disk) -> tuple[Layer, ...]:
        """The layers of the range, top first."""
        return chain.layers[self.top : self.bottom + 1]


@dataclass(frozen=True)
class Choice:
    """One way to merge a range: the position of the kept layer, the bytes copied, and the first job."""

    span: Range
    kept: int
    copies: int
    kinds: tuple[OperationKind, ...]

    @property
    def rank(self) -> tuple[int, int, int]:
        """Cheaper first; then fewer jobs; then commits, which are durable without a flush."""
        return (self.copies, len(self.kinds), int(self.pulls))

    @property
    def pulls(self) -> bool:
        """True when one of its jobs is a pull."""
        return OperationKind.PULL in self.kinds

    @property
    def first(self) -> OperationKind:
        """The kind of the first job."""
        return self.kinds[0]

    def first_merged(self, chain: Disk) -> tuple[Layer, ...]:
        """Layers that the first job removes from the chain, top first."""
        if self.first is OperationKind.PULL:
            return chain.layers[self.kept + 1 : self.span.bottom + 1]
        return chain.layers[self.span.top : self.kept]


def choices(
    span: Range, facts: DiskFacts, chain: Disk, direction: Direction, *, pulls_last: bool = False
) -> list[Choice]:
    """All ways that libvirt and the class allow, cheapest first; with ``pulls_last`` those that need a pull
    come after all that do not (ADR 6).

    A forced direction matters only where there is a choice: a range below the active layer is always
    committed.
    """
    sizes = [facts.bytes_of(layer.key) for layer in span.layers(chain)]
    total = sum(sizes)
    if span.top > 0:
        return [Choice(span, span.bottom, total - sizes[-1], (OperationKind.COMMIT,))]
    candidates = {
        Direction.CHEAPEST: range(span.bottom + 1),
        Direction.COMMIT: (span.bottom,),
        Direction.PULL: (0,),
    }[direction]
    found = []
    for kept in candidates:
        commit = (OperationKind.ACTIVE_COMMIT,) if kept > 0 else ()
        pull = (OperationKind.PULL,) if kept < span.bottom else ()
        found.append(Choice(span, kept, total - sizes[kept], (*commit, *pull)))
    return sorted(found, key=lambda choice: (pulls_last and choice.pulls, choice.rank))
