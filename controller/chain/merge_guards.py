"""Guards of a merge: each knows one reason not to merge one range in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from shlex import quote

from controller.chain.blocked import Blocked, Why
from controller.chain.cost import Choice
from controller.chain.desired import Policy, Want
from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.gate import UNKNOWN, Gate
from controller.chain.guards import size_unknown, unasked, unread
from controller.chain.journal import OperationKind
from controller.chain.marks import Mark, MarkKind
from controller.chain.observation import DiskFacts, Observation
from controller.chain.room import DEFAULT_CLUSTER, needed
from controller.chain.source import Source

_READ_ONLY = frozenset({"http", "https", "ftp", "ftps", "tftp"})
"""Protocols whose images QEMU cannot write to (measured with http: "Block node is read-only")."""


@dataclass(frozen=True)
class MergeCase:
    """All facts that a merge guard may look at."""

    observation: Observation
    facts: DiskFacts
    chain: Disk
    choice: Choice
    policy: Policy
    wants: tuple[Want, ...] = ()
    gate: Gate = UNKNOWN

    @property
    def writes_to(self) -> int | None:
        """Position of the frozen layer that the merge writes to; None when only the active layer grows."""
        return None if self.choice.kept == 0 else self.choice.kept


MergeGuard = Callable[[MergeCase], Blocked | None]


def alone_guard(case: MergeCase) -> Blocked | None:
    """No pull begins beside another job of the same machine; see :func:`pull_guard`."""
    if case.choice.first is not OperationKind.PULL or case.gate.may_watch_pulls(case.observation.machine):
        return None
    others = case.observation.disks.values()
    beside = sorted(one.target for one in others if one.job is not None and one.target != case.facts.target)
    if not beside:
        return None
    return Blocked(
        Why.QUEUED, f"a pull must be alone on its machine, and disk {beside[0]} has a job; it waits"
    )


def end_guard(case: MergeCase) -> Blocked | None:
    """A pull of everything below needs to know that there is nothing further down."""
    pulls = OperationKind.PULL in case.choice.kinds
    reaches_end = case.choice.span.bottom == len(case.chain.layers) - 1
    if not (pulls and reaches_end and case.chain.end is ChainEnd.UNKNOWN):
        return None
    return Blocked(
        Why.CHAIN_UNKNOWN,
        f"libvirt does not know what lies below {case.chain.layers[-1].source.uri} of {case.chain.target}, "
        f"so it cannot be pulled up; let the class merge the other way (merge.direction: Cheapest or Commit)",
    )


def protected_guard(case: MergeCase) -> Blocked | None:
    """Images that the class protects are never written to."""
    if case.writes_to is None:
        return None
    source = case.chain.layers[case.writes_to].source
    pattern = case.policy.protects(source)
    if pattern is None:
        return None
    return Blocked(
        Why.IMAGE_PROTECTED,
        f"the merge would write to {source.uri}, which the class protects (protectedImages: {pattern})",
    )


def read_only_guard(case: MergeCase) -> Blocked | None:
    """What QEMU can only read cannot take up what lies above it."""
    if case.writes_to is None:
        return None
    source = case.chain.layers[case.writes_to].source
    if source.protocol not in _READ_ONLY:
        return None
    return Blocked(
        Why.IMAGE_PROTECTED,
        f"the merge would write to {source.uri}, and what is reached by {source.protocol} can only be read",
    )


def understood_guard(case: MergeCase) -> Blocked | None:
    """The image that a merge writes to must be one that keeps its data in itself, and be understood. A data
    file (``<dataStore>``) may be used by others under its own name, with nothing in it that tells."""
    source = case.chain.layers[case.choice.kept].source
    data, parts = source.data_file, ", ".join(source.not_understood)
    if data is not None:
        return Blocked(
            Why.UNSUPPORTED_TOPOLOGY,
            f"the merge would write to {source.uri}, which keeps its data in another file ({data.uri}); that "
            f"is not done: let the class merge the other way (merge.direction: Pull), or keep the layer "
            f"(deletionPolicy: Retain)",
        )
    if parts:
        return Blocked(
            Why.UNSUPPORTED_TOPOLOGY,
            f"the merge would write to {source.uri}, and this version of varve does not know {parts} of its "
            f"source: upgrade the controller, or keep the layer (deletionPolicy: Retain)",
        )
    return None


def shared_guard(case: MergeCase) -> Blocked | None:
    """Nothing that anybody else reads may change: the target of a commit, nor what stands on it. Whoever
    uses a layer reads all below it, whether libvirt lists that chain or not."""
    if case.writes_to is None or case.observation.in_use_elsewhere is None:
        return None
    elsewhere = case.observation.in_use_elsewhere
    for layer in case.chain.layers[: case.writes_to + 1]:
        named = sorted(layer.source.footprints & elsewhere.keys())
        user = elsewhere[named[0]] if named else None
        if user is not None:
            return Blocked(
                Why.IMAGE_PROTECTED,
                f"the merge would change {layer.source.uri}, which is in use by somebody else too; keep the "
                f"point (deletionPolicy: Retain), or let an administrator look who that is",
                detail=f"{user} reads it: let it use another image",
            )
    return None


def unasked_guard(case: MergeCase) -> Blocked | None:
    """An image on the network may be read on a hypervisor that does not answer: unknown is not absent."""
    if case.writes_to is None:
        return None
    changed = (layer.source for layer in case.chain.layers[: case.writes_to + 1])
    source = next((source for source in changed if source.type == "network"), None)
    return None if source is None else unasked(case.observation, source)


def unread_guard(case: MergeCase) -> Blocked | None:
    """A machine that does not tell what it uses may use anything on this hypervisor."""
    if case.writes_to is None:
        return None
    return unread(case.observation, case.chain.layers[case.writes_to].source)


def can_grow(source: Source) -> bool:
    """Whether the storage of an image makes it larger when it is written to."""
    return source.type == "file" or source.protocol in {"gluster", "rbd"}


def growth_guard(case: MergeCase) -> Blocked | None:
    """A commit needs a lower image at least as large as the disk. QEMU grows files and network images that
    can grow; an export or a device of fixed size cannot."""
    if case.writes_to is None:
        return None
    lower = case.chain.layers[case.writes_to]
    if can_grow(lower.source):
        return None
    capacity = {layer.key: case.facts.sizes.get(layer.key) for layer in case.chain.layers}
    upper = max((size.capacity for size in capacity.values() if size), default=0)
    size = capacity[lower.key]
    if size is None:
        return size_unknown(lower.source)
    if size.capacity >= upper:
        return None
    return Blocked(
        Why.UNSUPPORTED_TOPOLOGY,
        f"{lower.source.uri} has {size.capacity} bytes and the layers above it {upper}; enlarge it first",
    )


def device_guard(case: MergeCase) -> Blocked | None:
    """A qcow2 image on a device of fixed size must not run out of it in the middle of a commit, which is
    known beforehand where its tables can be read (a local block device)."""
    if case.writes_to is None:
        return None
    kept = case.chain.layers[case.writes_to]
    size, inside = case.facts.sizes.get(kept.key), case.observation.inside.get(kept.key)
    if can_grow(kept.source) or kept.format != "qcow2" or size is None or not size.physical:
        return None
    if inside is None or inside.used is None:
        return None
    merged = [_held(case, layer) for layer in case.chain.layers[case.choice.span.top : case.writes_to]]
    need = needed(inside.used, size.capacity, inside.cluster, merged)
    if need <= size.physical:
        return None
    return Blocked(
        Why.UNSUPPORTED_TOPOLOGY,
        f"{kept.source.uri} has {size.physical} bytes, of which its image uses {inside.used}; with what is "
        f"merged into it, it may need {need}: enlarge it first (a logical volume: lvextend)",
    )


def _held(case: MergeCase, layer: Layer) -> tuple[int, int]:
    """What is copied of a layer at most, and in pieces of what size; bytes."""
    inside, size = case.observation.inside.get(layer.key), case.facts.sizes.get(layer.key)
    unit = inside.cluster if inside is not None and inside.cluster else DEFAULT_CLUSTER
    if inside is not None and inside.used is not None and layer is not case.chain.layers[0]:
        return inside.used, unit
    if size is None:
        return case.facts.capacity, unit
    if can_grow(layer.source):
        return size.allocation, unit
    return min(size.physical or size.capacity, size.capacity), unit


def mark_guard(case: MergeCase) -> Blocked | None:
    """What libvirt keeps of an image is of no use once the image is merged."""
    span = case.choice.span
    at = {layer.source.footprint: n for n, layer in enumerate(case.chain.layers)}
    for mark in case.observation.marks:
        images = mark.images.get(case.chain.target)
        if images is None or mark.kind is MarkKind.CHECKPOINT:
            continue
        places = [at[image] for image in images if image in at]
        if not images or any(span.top <= place <= span.bottom for place in places):
            return Blocked(Why.UNSUPPORTED_TOPOLOGY, _of_libvirt(case, mark))
    return None


def bitmap_guard(case: MergeCase) -> Blocked | None:
    """libvirt carries the bitmaps of checkpoints through takes and merges, and the next incremental backup is
    right (measured, 9.0 with QEMU 7.2). They are lost, silently after a commit in the middle, where the kept
    image holds none: a raw one, or qcow2 of ``compat=0.10``."""
    if case.writes_to is None:
        return None
    kept = case.chain.layers[case.writes_to]
    at = {layer.source.footprint: n for n, layer in enumerate(case.chain.layers)}
    for mark in case.observation.marks:
        images = mark.images.get(case.chain.target)
        if images is None or mark.kind is not MarkKind.CHECKPOINT:
            continue
        # The bitmaps are in the image that was active then, and in all above it.
        lowest = max((at[image] for image in images if image in at), default=None)
        concerned = lowest is None or case.choice.span.top <= lowest
        has_one = lowest is not None and case.writes_to <= lowest
        flaw = _without_bitmaps(case, kept) if concerned and not has_one else ""
        if flaw:
            return Blocked(Why.UNSUPPORTED_TOPOLOGY, _of_checkpoint(case, mark, kept, flaw))
    return None


def _without_bitmaps(case: MergeCase, kept: Layer) -> str:
    """Why the image holds no bitmaps, as far as is known; empty when it holds them."""
    if kept.format != "qcow2":
        return f"it is a {kept.format or 'unknown'} image"
    if kept.key in case.observation.journal.disk(case.chain.target).images:
        return ""  # libvirt made it, as it makes all overlays
    inside = case.observation.inside.get(kept.key)
    if inside is None:
        return "whether it is qcow2 of compat=1.1 cannot be told through libvirt"
    return "" if inside.version >= 3 else "it is qcow2 of compat=0.10"


def _of_checkpoint(case: MergeCase, mark: Mark, kept: Layer, flaw: str) -> str:
    domain, name = case.observation.name, mark.name
    return (
        f"libvirt has a checkpoint {name} of {domain}, whose bitmap {kept.source.uri} cannot take over "
        f"({flaw}): the next incremental backup of disk {case.chain.target} would miss data. When it is not "
        f"needed any more, delete it: virsh checkpoint-delete {quote(domain)} {quote(name)}, and the next "
        f"backup is a full one"
    )


def _of_libvirt(case: MergeCase, mark: Mark) -> str:
    domain, name = case.observation.name, mark.name
    both = f"{quote(domain)} {quote(name)}"  # people copy this into a shell, and names may be anything
    way = {
        MarkKind.SNAPSHOT: f"virsh snapshot-delete {both} --metadata (which keeps its images)",
        MarkKind.INTERNAL: f"virsh snapshot-delete {both}",
    }[mark.kind]
    return (
        f"libvirt has a {mark.kind} {name} of {domain} that needs images of disk {case.chain.target} as they "
        f"are; when it is not needed any more, delete it: {way}"
    )


def space_guard(case: MergeCase) -> Blocked | None:
    """Does enough remain free when the kept image has grown by what is copied into it? What lies in several
    layers is copied once, and over what the image holds already, so this is the worst case."""
    kept = case.chain.layers[case.choice.kept]
    free, size = case.observation.free.get(kept.source.home), case.facts.sizes.get(kept.key)
    if free is None or not case.policy.min_free:
        return None
    room = None if size is None else max(0, size.capacity - size.allocation)
    grows = case.choice.copies if room is None else min(case.choice.copies, room)
    if free - grows >= case.policy.min_free:
        return None
    return Blocked(
        Why.INSUFFICIENT_SPACE,
        f"{kept.source.home} has {free} bytes free; the merge into {kept.source.uri} may take {grows}, and "
        f"the class keeps {case.policy.min_free} (minFreeBytes): make room there, or lower minFreeBytes",
    )


MERGE_GUARDS: tuple[MergeGuard, ...] = (
    alone_guard,
    end_guard,
    protected_guard,
    read_only_guard,
    understood_guard,
    shared_guard,
    unasked_guard,
    unread_guard,
    growth_guard,
    device_guard,
    mark_guard,
    bitmap_guard,
    space_guard,
)


def merge_verdict(
    case: MergeCase, guards: Iterable[MergeGuard] = MERGE_GUARDS, *, lasting: bool = False
) -> Blocked | None:
    """The first objection to this way of merging, or None; with ``lasting`` the first that does not pass by
    itself."""
    verdicts = (verdict for guard in guards if (verdict := guard(case)) is not None)
    return next((verdict for verdict in verdicts if verdict.lasting or not lasting), None)
