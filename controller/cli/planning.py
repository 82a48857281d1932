"""``varve plan``: what will be done to each chain, what that costs, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from controller.api.approval import Approval
from controller.api.reasons import Reason
from controller.api.volumechain import ChainPlan, PlanStep, StepBlocked, StepKind, VolumeChain
from controller.cli.page import Block, Line, Page, Role, Section, Table, facts, line
from controller.cli.report import Report
from controller.cli.sizes import counted, size

_WORDS = {
    StepKind.TAKE: ("freeze", "new layer"),
    StepKind.COMMIT: ("merge down", "into"),
    StepKind.PULL: ("pull up", "into"),
    StepKind.COMMIT_AND_PULL: ("merge", "into"),
    StepKind.REMOVE: ("remove", "into"),
}
"""By kind: what is done with the images, and what the other image is."""


class ChainPlanned(Report):
    """The plan of one chain."""

    namespace: str
    name: str
    disk: str
    domain: str | None = None
    deleting: tuple[str, ...] = ()
    """The VolumeSnapshots (namespace/name) of a hypothetical deletion; empty for the plan as it is."""
    approval: Approval
    approved: bool | None = None
    """Whether this plan may be carried out; absent where no approval is needed."""
    hash: str | None = None
    bytes: int | None = None
    """What all steps copy at most; absent when no step says."""
    jobs: int | None = None
    steps: tuple[PlanStep, ...] = ()
    step_count: int | None = None
    """How many there are, when not all are listed."""
    blocked_by: StepBlocked | None = None
    unknown: tuple[str, ...] = ()
    """What a hypothetical plan could not take into account."""


class Plans(Report):
    """The plans of all chains that were asked for."""

    kind: Literal["Plan"] = "Plan"
    chains: tuple[ChainPlanned, ...]


def planned(
    chain: VolumeChain,
    plan: ChainPlan | None,
    *,
    blocked_by: StepBlocked | None = None,
    deleting: tuple[str, ...] = (),
    unknown: tuple[str, ...] = (),
) -> ChainPlanned:
    """What is to be shown of one plan of ``chain``."""
    steps = plan.steps if plan else ()
    resolved, source = chain.status.resolved, chain.spec.source
    name = plan.hash if plan else None
    waits = chain.status.blocked_by
    asked = waits is not None and waits.reason == Reason.AWAITING_APPROVAL
    manual = (chain.spec.approval is Approval.MANUAL or asked) and name is not None
    jobs = [step.jobs for step in steps if step.jobs is not None]
    copied = [step.bytes for step in steps if step.bytes is not None]
    return ChainPlanned(
        namespace=chain.namespace,
        name=chain.name,
        disk=source.disk,
        domain=(resolved and resolved.domain_name) or source.domain or source.domain_uuid,
        deleting=deleting,
        approval=chain.spec.approval,
        approved=chain.spec.approved_plan == name if manual else None,
        hash=name,
        bytes=sum(copied) if copied else None,
        jobs=sum(jobs) if jobs else None,
        steps=steps,
        step_count=plan.step_count if plan else None,
        blocked_by=blocked_by,
        unknown=unknown,
    )


def report(chains: Iterable[VolumeChain]) -> Plans:
    """The plans as the controller has them."""
    ordered = sorted(chains, key=lambda chain: (chain.namespace, chain.name))
    return Plans(
        chains=tuple(
            planned(chain, chain.status.plan, blocked_by=chain.status.blocked_by) for chain in ordered
        )
    )


def page(plans: Plans) -> Page:
    """One section for each chain."""
    if not plans.chains:
        return (line(("No chain.", Role.FAINT)),)
    return tuple(section(one) for one in plans.chains)


def section(one: ChainPlanned) -> Section:
    """The plan of one chain."""
    would = f", if {' and '.join(one.deleting)} were deleted" if one.deleting else ""
    title = line((f"{one.namespace}/{one.name}", Role.NAME), f"  disk {one.disk} of {one.domain}{would}")
    return Section(title, tuple(_blocks(one)))


def _blocks(one: ChainPlanned) -> Iterable[Block]:
    if not one.steps:
        yield line(("Nothing to do.", Role.GOOD))
    else:
        yield facts(_head(one))
        rows: list[tuple[Line, ...]] = []
        for number, step in enumerate(one.steps, start=1):
            rows += _step(number, step)
        yield Table(
            tuple(rows), heading=("STEP", "KIND", "COPIES", "JOBS", "", "IMAGE"), right=frozenset({2, 3})
        )
    unlisted = (one.step_count or 0) - len(one.steps)
    if unlisted > 0:
        yield line((f"{counted(unlisted, 'more step')}, which the status has no room for", Role.FAINT))
    asked = one.approved is False and not one.deleting
    if one.blocked_by and not (asked and one.blocked_by.reason == Reason.AWAITING_APPROVAL):
        yield line(("waits: ", Role.BUSY), (one.blocked_by.reason, Role.BUSY), f": {one.blocked_by.message}")
    for number, step in enumerate(one.steps, start=1):
        if step.blocked and step.blocked != one.blocked_by:
            yield line(
                (f"step {number} waits: ", Role.BUSY),
                (step.blocked.reason, Role.BUSY),
                f": {step.blocked.message}",
            )
    if asked:
        yield line("approve it: ", (f"varve approve {one.name} {one.hash} -n {one.namespace}", Role.CODE))
    yield from (line((f"not known here: {what}", Role.FAINT)) for what in one.unknown)


def _head(one: ChainPlanned) -> Iterable[tuple[str, Line]]:
    jobs = f" in {counted(one.jobs, 'job')}" if one.jobs else ""
    yield "copies", line(f"{size(one.bytes or 0)} at most{jobs}")
    if one.hash:
        yield "plan", line(one.hash)
    if one.approved is not None and not one.deleting:
        yield (
            "approval",
            line(("given", Role.GOOD)) if one.approved else line(("Manual, not given", Role.BUSY)),
        )


def _step(number: int, step: PlanStep) -> Iterable[tuple[Line, ...]]:
    leaves, into = _WORDS[step.kind]
    images = [(leaves, source) for source in step.from_]
    unlisted = (step.from_count or 0) - len(step.from_)
    if unlisted > 0:
        images.append(("", f"and {counted(unlisted, 'more image')}"))
    if step.into:
        images.append((into, step.into))
    copied = "" if step.bytes is None else size(step.bytes)
    jobs = "" if step.jobs is None else str(step.jobs)
    cells = line(str(number)), line((str(step.kind), Role.NAME)), line(copied), line(jobs)
    said = ""
    for at, (word, image) in enumerate(images or [("", "")]):
        first = cells if at == 0 else (line(""),) * 4
        yield (*first, line(("" if word == said else word, Role.FAINT)), line(image))
        said = word
