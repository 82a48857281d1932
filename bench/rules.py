"""What fixed rules of merging cost, next to the planner: the same random deletions under each.

``python -m bench.rules`` prints the table of docs/performance.md. It needs no lab: layers are sets of
clusters that guests wrote, and a job copies what QEMU's would, a cluster that lies in several layers
once. The rules are those of others; each deletes point by point, in the order in which it was asked for:

- Nova pulls the layer below the newest point up, and commits the overlay of any other down into its parent;
- libvirt (``virDomainSnapshotDelete``) commits the overlay of each into its parent, the active layer with a
  pivot;
- Proxmox VE commits the overlay of the oldest down into the base, and streams the layer of any other up into
  its overlay, for which it asks QEMU itself, because libvirt cannot pull into an intermediate layer.

varve is asked once for all, as deletions that settle are, and decides by the planner itself.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from controller.chain.circumstances import Circumstances
from controller.chain.desired import Policy, Want
from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.journal import DiskJournal, Journal, OperationKind, Owner, Point
from controller.chain.merging import Merging
from controller.chain.observation import DiskFacts, Observation, RunState, Size
from controller.chain.outcome import settled
from controller.chain.source import Source
from controller.chain.steps import StartMerge

CASES = 1000
SEED = 20250102
CLUSTERS = 4096
"""Clusters of the disk, of 1 MiB each."""
_MIB = 1 << 20
_NOW = datetime(2025, 1, 2, tzinfo=UTC)
_TARGET = "vda"


@dataclass
class Chain:
    """Layers by what they hold, active first, one bit for each cluster; and what jobs have copied."""

    layers: list[int]
    copied: int = 0
    jobs: int = 0

    def commit(self, top: int, bottom: int) -> None:
        """Copy what lies above ``bottom`` down into it."""
        held = _union(self.layers[top:bottom])
        self._did(held.bit_count())
        self.layers[top : bottom + 1] = [self.layers[bottom] | held]

    def stream(self, top: int, bottom: int) -> None:
        """Copy what lies below ``top`` up into it, but for what it hides."""
        held = _union(self.layers[top + 1 : bottom + 1]) & ~self.layers[top]
        self._did(held.bit_count())
        self.layers[top : bottom + 1] = [self.layers[top] | held]

    def _did(self, clusters: int) -> None:
        self.copied += clusters
        self.jobs += 1


def _union(layers: Sequence[int]) -> int:
    held = 0
    for layer in layers:
        held |= layer
    return held


@dataclass(frozen=True)
class Case:
    """A chain with a point at each boundary, and the points to delete, in the order of asking. A point is
    named by its number from the newest (0), the position of its overlay."""

    layers: tuple[int, ...]
    goes: tuple[int, ...]


def random_case(rng: random.Random) -> Case:
    """One to twelve points. Guests write to some places again and again, so layers overlap."""
    points = rng.randint(1, 12)
    hot = rng.sample(range(CLUSTERS), CLUSTERS // 5)
    base = _bits(rng.sample(range(CLUSTERS), rng.randint(CLUSTERS // 10, CLUSTERS * 9 // 10)))
    layers = []
    for _ in range(points):
        written = int(2 ** rng.uniform(0, 10))
        often = int(written * 0.8)
        cold = rng.sample(range(CLUSTERS), written - often)
        layers.append(_bits([*rng.choices(hot, k=often), *cold]))
    return Case((*layers, base), tuple(rng.sample(range(points), rng.randint(1, points))))


def _bits(clusters: Sequence[int]) -> int:
    held = 0
    for cluster in clusters:
        held |= 1 << cluster
    return held


def one_by_one(remove: Callable[[Chain, int], None]) -> Callable[[Case], Chain]:
    """A rule that removes one point after the other; ``remove`` is told where its overlay is by then."""

    def run(case: Case) -> Chain:
        chain, there = Chain(list(case.layers)), list(range(len(case.layers) - 1))
        for point in case.goes:
            remove(chain, there.index(point))
            there.remove(point)
        return chain

    return run


def nova(chain: Chain, overlay: int) -> None:
    """Pull for the newest, commit for any other."""
    if overlay == 0:
        chain.stream(0, 1)
    else:
        chain.commit(overlay, overlay + 1)


def libvirt(chain: Chain, overlay: int) -> None:
    """Commit each into its parent."""
    chain.commit(overlay, overlay + 1)


def proxmox(chain: Chain, overlay: int) -> None:
    """Commit for the oldest, stream for any other."""
    if overlay == len(chain.layers) - 2:
        chain.commit(overlay, overlay + 1)
    else:
        chain.stream(overlay, overlay + 1)


@dataclass
class Planned:
    """The planner at work on a :class:`Chain`, and the bytes that it foresaw."""

    case: Case
    pulls_last: bool
    foreseen: int = 0
    chain: Chain = field(init=False)

    def run(self) -> Chain:
        """Plan and carry out until nothing is left to do."""
        self.chain = Chain(list(self.case.layers))
        images = [Layer(Source.file(f"/l{n}"), "qcow2") for n in range(len(self.case.layers))]
        owners = [Owner("bench", str(n), str(n)) for n in range(len(images) - 1)]
        points = (Point(images[n].key, (owner,), "", "") for n, owner in enumerate(owners))
        record = DiskJournal(_TARGET, tuple(points))
        policy = Policy(settle_seconds=0)
        wants = tuple(
            Want(owner, _TARGET, deleted_at=_NOW if n in self.case.goes else None, policy=policy)
            for n, owner in enumerate(owners)
        )
        while True:
            step = self._merging(images, record, wants).plan(None).step
            if not isinstance(step, StartMerge):
                return self.chain
            self.foreseen += self._apply(step, images)
            merged = {layer.key for layer in step.operation.merged}
            images = [image for image in images if image.key not in merged]
            record = settled(record, step.operation, self._facts(images))

    def _facts(self, images: Sequence[Layer]) -> DiskFacts:
        disk = _disk(images)
        sizes = {
            image.key: Size(held.bit_count(), CLUSTERS)
            for image, held in zip(images, self.chain.layers, strict=True)
        }
        return DiskFacts(_TARGET, disk, None, sizes=sizes)

    def _merging(self, images: Sequence[Layer], record: DiskJournal, wants: tuple[Want, ...]) -> Merging:
        facts, disk = self._facts(images), _disk(images)
        journal = Journal("bench", (record,))
        observation = Observation(
            "u", "bench", RunState.RUNNING, True, {_TARGET: facts}, journal, in_use_elsewhere={}
        )
        circumstances = Circumstances(now=_NOW, pulls_last=self.pulls_last)
        return Merging(observation, facts, disk, record, wants, circumstances)

    def _apply(self, step: StartMerge, images: Sequence[Layer]) -> int:
        """Do it; the bytes that the sizes let one foresee for this job."""
        at = {image.key: position for position, image in enumerate(images)}
        places = [at[layer.key] for layer in step.operation.merged]
        foreseen = sum(self.chain.layers[place].bit_count() for place in places)
        if step.kind is OperationKind.PULL:
            self.chain.stream(0, places[-1])
        else:
            self.chain.commit(places[0], at[step.operation.kept.key])
        return foreseen


def _disk(images: Sequence[Layer]) -> Disk:
    return Disk(_TARGET, "disk", tuple(images), ChainEnd.KNOWN, "virtio")


@dataclass(frozen=True)
class Row:
    """One rule over all cases."""

    rule: str
    copied: float
    """Mean bytes of a case."""
    jobs: float
    """Mean jobs of a case."""
    less: float = 0.0
    """Share of the cases in which it copies less than the first row does."""
    foreseen: float | None = None
    """Mean bytes that were foreseen; None for rules that foresee nothing."""


def measure(cases: int = CASES, seed: int = SEED) -> list[Row]:
    """All rules over the same random cases, varve's default first."""
    rng = random.Random(seed)  # noqa: S311 (repeatable cases, not a secret)
    drawn = [random_case(rng) for _ in range(cases)]
    rows = []
    yardstick: list[Chain] = []
    for name, pulls_last in (("varve", True), ("varve, pulls as good as commits", False)):
        planned = [Planned(case, pulls_last) for case in drawn]
        chains = [one.run() for one in planned]
        yardstick = yardstick or chains
        row = _row(name, chains, yardstick)
        rows.append(replace(row, foreseen=sum(one.foreseen for one in planned) * _MIB / cases))
    for name, rule in (("libvirt", libvirt), ("Nova", nova), ("Proxmox VE", proxmox)):
        rows.append(_row(name, [one_by_one(rule)(case) for case in drawn], yardstick))
    return rows


def _row(name: str, chains: Sequence[Chain], yardstick: Sequence[Chain]) -> Row:
    count = len(chains)
    copied = sum(chain.copied for chain in chains) * _MIB / count
    less = sum(mine.copied < other.copied for mine, other in zip(chains, yardstick, strict=True))
    return Row(name, copied, sum(chain.jobs for chain in chains) / count, less / count)


def table(rows: Sequence[Row]) -> str:
    """Markdown; ratios are to the first row."""
    first = rows[0]
    lines = [
        "| rule | copied, mean | to varve's | less than varve | jobs, mean | to varve's | foreseen, mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        foreseen = "–" if row.foreseen is None else f"{row.foreseen / _MIB:.0f} MiB"
        lines.append(
            f"| {row.rule} | {row.copied / _MIB:.0f} MiB | ×{row.copied / first.copied:.2f} "
            f"| {row.less:.1%} | {row.jobs:.2f} "
            f"| ×{row.jobs / first.jobs:.2f} | {foreseen} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.rules", description="The planner beside fixed rules."
    )
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    print(table(measure(options.cases, options.seed)))


if __name__ == "__main__":
    main()
