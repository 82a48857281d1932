"""Approval: all merges of a disk as one plan with a name, and the wait until somebody agrees to it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import ANY_DISK
from controller.chain.cost import Choice, Range
from controller.chain.drift import fits_known
from controller.chain.journal import Approved
from controller.chain.merging import Merging
from controller.chain.plan import DiskPlan
from controller.chain.ranges import ranges
from controller.chain.steps import StartMerge

_LENGTH = 16
"""Hexadecimal digits of a hash: enough that no two plans of a disk share one by chance, and short to read."""


@dataclass(frozen=True)
class Part:
    """Some adjacent boundaries that nobody wants any more: how they go, or what is against it."""

    span: Range
    choice: Choice | None
    """None when they stay, until somebody changes what is against it."""
    blocked: Blocked | None = None
    """What is against it; with a choice what it waits for just now, which is no part of what is agreed to."""


@dataclass(frozen=True)
class MergePlan:
    """Everything that is merged on one disk as things stand."""

    parts: tuple[Part, ...] = ()
    boundaries: frozenset[str] = frozenset()
    """Overlays of the boundaries that nobody wants any more."""
    hash: str = ""
    """Names the plan: the layers, what goes, and how. Empty when nothing does."""


def merge_plan(merging: Merging) -> MergePlan:
    """The plan of one disk on which no operation is under way, lowest part first.

    It does not depend on what passes by itself: jobs of other disks, waiting, space that is short, a
    hypervisor that does not answer, sizes that change no choice.
    """
    spans = ranges(merging.chain, merging.record, merging.wants)
    if not spans:
        return MergePlan()
    parts: list[Part] = []
    for span in spans:
        wants, policy = merging.terms(span)
        found, goes = merging.agreed(span, policy, wants)
        parts += [Part(one.choice.span, one.choice, one.blocked) for one in goes]
        parts += [
            Part(Range(position, position + 1), None, blocked) for position, blocked in found.staying.items()
        ]
    parts.sort(key=lambda part: -part.span.top)
    going = frozenset(layer.key for span in spans for layer in merging.chain.layers[span.top : span.bottom])
    return MergePlan(tuple(parts), going, _name(merging, parts, going))


def approved(found: DiskPlan, merging: Merging) -> DiskPlan:
    """The plan of the disk, in which a merge waits when somebody has to agree to it and has not."""
    approvals, step = merging.circumstances.approvals, found.step
    approval = approvals.get(ANY_DISK) or approvals.get(found.target)
    if approval is None or not isinstance(step, StartMerge):
        return found
    if approval.fault:
        return replace(found, step=None, blocked=Blocked(Why.NOT_UNDERSTOOD, approval.fault))
    whole = merge_plan(merging)
    if approval.plan == whole.hash:
        given = Approved(whole.hash, whole.boundaries)
        return replace(found, step=replace(step, operation=replace(step.operation, approved=given)))
    return replace(found, step=None, blocked=_awaiting(approval.chain, approval.plan, whole.hash))


def _name(merging: Merging, parts: list[Part], going: frozenset[str]) -> str:
    """A hash of what matters; that of the plan that was agreed to and begun, for what is left of it."""
    begun = merging.record.approved
    if begun is not None and going <= begun.boundaries and fits_known(merging.record, merging.chain):
        return begun.plan
    keys = merging.chain.keys
    matters = {
        "disk": [merging.observation.uuid, merging.facts.target],
        "layers": keys,
        "going": sorted(going),
        "parts": [_part(part, keys) for part in parts],
    }
    text = json.dumps(matters, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def _part(part: Part, keys: tuple[str, ...]) -> list[str]:
    span = [keys[part.span.top], keys[part.span.bottom]]
    if part.choice is None:
        return ["stays", *span]
    return ["goes", *span, keys[part.choice.kept], *(kind.value for kind in part.choice.kinds)]


def _awaiting(chain: str, given: str, wanted: str) -> Blocked:
    namespace, _, name = chain.partition("/")
    patch = f'{{"spec":{{"approvedPlan":"{wanted}"}}}}'
    voided = f"the approved plan {given} is not this one any more: " if given else ""
    return Blocked(
        Why.AWAITING_APPROVAL,
        f"{voided}the merge waits for approval of plan {wanted} of VolumeChain {chain}: commit it as "
        f"spec.approvedPlan, or kubectl patch volumechains.varve.dev {name} -n {namespace} --type=merge "
        f"-p '{patch}'",
    )
