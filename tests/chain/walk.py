"""What the planner's merging does to a chain, job after job, without a machine around it: fast."""

from __future__ import annotations

from functools import lru_cache

from controller.chain.blocked import Blocked
from controller.chain.circumstances import Circumstances
from controller.chain.desired import Direction, Policy, Want
from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.journal import DiskJournal, OperationKind, Owner, Point
from controller.chain.merging import Merging
from controller.chain.observation import DiskFacts, Observation, Size
from controller.chain.outcome import fits, settled
from controller.chain.plan import DiskPlan
from controller.chain.source import Host, Source
from controller.chain.steps import StartMerge
from tests.chain import builders as b
from tests.chain.optimum import Best, Case, Kind

_HOST = Host("storage")
PROTECTED = "/golden/*"
TOO_SMALL = 3
Stack = tuple[tuple[int, int], ...]
"""A chain on its way: the number of each layer that is left, active first, and its bytes."""


@lru_cache
def image(number: int, flavour: int) -> Layer:
    """Layer ``number``: 0 free or shared, else one that no commit may write to (protected, read-only, too
    small)."""
    sources = (
        Source.file(f"/images/l{number}"),
        Source.file(f"/golden/l{number}"),
        Source.network("https", f"l{number}", [_HOST]),
        Source.network("nbd", f"l{number}", [_HOST]),
    )
    return Layer(sources[flavour], "qcow2")


def flavour_of(number: int, kind: Kind) -> int:
    """Each way to be fixed is tried on some layer."""
    return 1 + number % 3 if kind is Kind.FIXED else 0


@lru_cache
def chain_of(layers: tuple[Layer, ...], end: ChainEnd) -> Disk:
    """A disk of these layers."""
    return Disk(b.TARGET, "disk", layers, end, "virtio")


@lru_cache
def owner_of(number: int) -> Owner:
    """Whose point lies below layer ``number``."""
    return b.owner(str(number))


@lru_cache
def point(overlay: str, number: int) -> Point:
    """Boundary ``number``, below this overlay."""
    return Point(overlay, (owner_of(number),), b.TAKEN, "CrashConsistent", capacity=b.CAPACITY)


@lru_cache(None)
def layers_of(kinds: tuple[Kind, ...]) -> tuple[Layer, ...]:
    """The chain as it begins."""
    return tuple(image(n, flavour_of(n, kind)) for n, kind in enumerate(kinds))


@lru_cache(None)
def capacities_of(kinds: tuple[Kind, ...]) -> tuple[int, ...]:
    """What is too small is one byte short."""
    return tuple(b.CAPACITY - (flavour_of(n, kind) == TOO_SMALL) for n, kind in enumerate(kinds))


@lru_cache(None)
def observation_of(kinds: tuple[Kind, ...]) -> Observation:
    """A running machine, and who else uses the layers that are shared."""
    shared = [layer for layer, kind in zip(layers_of(kinds), kinds, strict=True) if kind is Kind.SHARED]
    return b.observation(in_use_elsewhere={one.source.footprint: "disk vdb of web-2" for one in shared})


@lru_cache(None)
def wants_of(goes: tuple[bool, ...], direction: Direction) -> tuple[Want, ...]:
    """One wish for each boundary."""
    policy = Policy(settle_seconds=0, direction=direction, protected=(PROTECTED,))
    return tuple(
        b.want(owner_of(n), gone_since=b.NOW if gone else None, policy=policy) for n, gone in enumerate(goes)
    )


@lru_cache(None)
def kept_of(goes: tuple[bool, ...]) -> frozenset[Owner]:
    """Whose boundaries stay."""
    return frozenset(owner_of(n) for n, gone in enumerate(goes) if not gone)


class Walk:
    """One case: plan, apply, plan again, until nothing more is begun."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._layers = layers_of(case.kinds)
        self._capacities = capacities_of(case.kinds)
        self._observation = observation_of(case.kinds)
        self._wants = wants_of(case.goes, case.direction)
        self._kept = kept_of(case.goes)
        self._end = ChainEnd.KNOWN if case.end_known else ChainEnd.UNKNOWN
        self._circumstances = Circumstances(now=b.NOW, pulls_last=case.pulls_last)
        self.jobs: list[OperationKind] = []
        self.copied = 0
        self.stack: Stack = tuple(enumerate(case.sizes))
        self._look()
        points = (point(layer.key, n) for n, layer in enumerate(self._layers[:-1]))
        self._record = DiskJournal(b.TARGET, tuple(points))

    def run(self) -> Best:
        """What is left, whether a pull was needed, and the bytes that were copied."""
        left = self._left()
        while left and (step := self.plan().step) is not None:
            assert isinstance(step, StartMerge)
            self._apply(step)
            left = self._left()
        return Best(left, OperationKind.PULL in self.jobs, self.copied)

    def _left(self) -> int:
        """Boundaries that have to go and are there; those that are wanted are all there."""
        held = {owner for one in self._record.points for owner in one.owners}
        assert self._kept <= held, "a boundary that somebody wants went"
        return len(held) - len(self._kept)

    def plan(self) -> DiskPlan:
        """What the planner would begin now."""
        merging = Merging(
            self._observation, self._facts, self._chain, self._record, self._wants, self._circumstances
        )
        return merging.plan(None)

    def blocked(self) -> dict[str, Blocked]:
        """What is said to whom of the boundaries that stay."""
        return {owner.name: why for owner, why in self.plan().staying.items()}

    def _look(self) -> None:
        """What the planner is told of the stack as it is now."""
        self._chain = chain_of(tuple([self._layers[n] for n, _ in self.stack]), self._end)
        sizes = {self._layers[n].key: Size(bytes_, self._capacities[n]) for n, bytes_ in self.stack}
        self._facts = DiskFacts(b.TARGET, self._chain, None, sizes=sizes)

    def _apply(self, step: StartMerge) -> None:
        operation = step.operation
        assert fits(operation, self._chain), "libvirt would refuse this job"
        number = {self._layers[n].key: n for n, _ in self.stack}
        merged = [number[layer.key] for layer in operation.merged]
        kept = number[operation.kept.key]
        moved = sum(bytes_ for n, bytes_ in self.stack if n in merged)
        if operation.kind is not OperationKind.PULL:
            touched = [n for n, _ in self.stack]
            touched = touched[touched.index(merged[0]) : touched.index(kept) + 1]
            kinds = [self._case.kinds[n] for n in touched]
            assert kinds[-1] is Kind.FREE, "a commit writes to a layer that must not change"
            assert Kind.SHARED not in kinds, "a commit changes what somebody else reads"
        self.jobs.append(operation.kind)
        self.copied += moved
        self.stack = tuple(
            (n, bytes_ + moved if n == kept else bytes_) for n, bytes_ in self.stack if n not in merged
        )
        self._look()
        self._record = settled(self._record, operation, self._facts)
