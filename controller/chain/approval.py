"""Approval: all merges of a disk as one plan with a name, and the wait until somebody agrees to it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from controller.chain.blocked import Blocked, Why
from controller.chain.consent import Approval, asked
from controller.chain.cost import Choice, Range
from controller.chain.drift import fits_known
from controller.chain.journal import Approved
from controller.chain.merging import Merging
from controller.chain.plan import DiskPlan
from controller.chain.ranges import ranges
from controller.chain.steps import StartMerge
from controller.chain.strangers import takes_strangers

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
    step = found.step
    if not isinstance(step, StartMerge) or takes_strangers(step, merging.record):
        return found
    everybody = asked(merging.circumstances.approvals, found.target, merging.wants)
    if not everybody:
        return found
    if faults := [one for one in everybody if one.fault]:
        return replace(found, step=None, blocked=_unknown(faults))
    whole = merge_plan(merging)
    lacking = [one for one in everybody if one.plan != whole.hash]
    if lacking:
        return replace(found, step=None, blocked=_awaiting(lacking, whole.hash))
    given = Approved(whole.hash, whole.boundaries)
    return replace(found, step=replace(step, operation=replace(step.operation, approved=given)))


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


def _unknown(faults: list[Approval]) -> Blocked:
    text = (
        "a VolumeChain of another namespace cannot be read, and may ask for approval: let an administrator "
        "look at it"
    )
    return Blocked(Why.NOT_UNDERSTOOD, text, own=tuple((one.namespace, one.fault) for one in faults))


def _awaiting(lacking: list[Approval], wanted: str) -> Blocked:
    text = (
        f"the merge waits for approval of plan {wanted} in another namespace that has a part in this disk: "
        f"let somebody approve it there"
    )
    own = tuple((one.namespace, _to_approve(one, wanted)) for one in lacking)
    return Blocked(Why.AWAITING_APPROVAL, text, own=own)


def _to_approve(one: Approval, wanted: str) -> str:
    """How people of the namespace that is asked agree."""
    namespace, _, name = one.chain.partition("/")
    if not name:
        return f"the merge waits for approval of plan {wanted}: the disk's VolumeChain is about to be made"
    patch = f'{{"spec":{{"approvedPlan":"{wanted}"}}}}'
    voided = f"the approved plan {one.plan} is not this one any more: " if one.plan else ""
    return (
        f"{voided}the merge waits for approval of plan {wanted} of VolumeChain {one.chain}: commit it as "
        f"spec.approvedPlan, or kubectl patch volumechains.varve.dev {name} -n {namespace} --type=merge "
        f"-p '{patch}'"
    )
