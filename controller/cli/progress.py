"""``varve watch``: what runs and what waits, as it changes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

from controller.api.conditions import Truth
from controller.api.volumechain import StepBlocked, VolumeChain
from controller.api.volumesnapshot import Operation
from controller.cli import tree
from controller.cli.page import Bar, Block, Line, Page, Role, Section, line
from controller.cli.report import Report, Summary, summary
from controller.cli.sizes import counted, size


class Seen(StrEnum):
    """What was seen of a chain."""

    CHANGED = "Changed"
    GONE = "Gone"


class Progress(Report):
    """One chain at one moment; ``varve watch -o json`` prints one of these in a line for each change."""

    kind: Literal["Progress"] = "Progress"
    seen: Seen
    namespace: str
    name: str
    disk: str
    domain: str | None = None
    ready: Summary
    depth: int | None = None
    total_bytes: int | None = None
    steps: int = 0
    """How many steps the plan has."""
    step_bytes: int = 0
    """What they copy at most."""
    operation: Operation | None = None
    blocked_by: StepBlocked | None = None

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing is planned."""
        return self.operation is None and not self.steps and self.ready.status is not Truth.UNKNOWN


def report(chain: VolumeChain, seen: Seen = Seen.CHANGED) -> Progress:
    """What is to be shown of one chain."""
    status, source = chain.status, chain.spec.source
    plan = status.plan
    return Progress(
        seen=seen,
        namespace=chain.namespace,
        name=chain.name,
        disk=source.disk,
        domain=(status.resolved and status.resolved.domain_name) or source.domain or source.domain_uuid,
        ready=summary(status.conditions),
        depth=status.depth,
        total_bytes=status.total_bytes,
        steps=(plan.step_count or len(plan.steps)) if plan else 0,
        step_bytes=sum(step.bytes or 0 for step in plan.steps) if plan else 0,
        operation=status.operation,
        blocked_by=status.blocked_by,
    )


def page(all_of_them: Iterable[Progress]) -> Page:
    """All chains as they are now, for a terminal."""
    blocks: list[Block] = []
    for one in sorted(all_of_them, key=lambda one: (one.namespace, one.name)):
        title = line((f"{one.namespace}/{one.name}", Role.NAME), f"  disk {one.disk} of {one.domain}")
        blocks.append(Section(title, (_now(one),)))
    return tuple(blocks) or (line(("No chain yet.", Role.FAINT)),)


def _now(one: Progress) -> Block:
    if one.operation is None:
        return _words(one)
    caption = f"{one.operation.kind}{tree.amount(one.operation)}"
    return Bar(one.operation.percent, line((caption, Role.BUSY)))


def change(one: Progress) -> Line:
    """One change in one line, for a pipe."""
    name = f"{one.namespace}/{one.name}"
    if one.seen is Seen.GONE:
        return line((name, Role.NAME), "  gone")
    words = line((tree.progress(one.operation), Role.BUSY)) if one.operation else _words(one)
    return Line((*line((name, Role.NAME), "  ").spans, *words.spans))


def _words(one: Progress) -> Line:
    depth = "" if one.depth is None else f"  {counted(one.depth, 'layer')}, {size(one.total_bytes)}"
    planned = f", {counted(one.steps, 'step')} planned, {size(one.step_bytes)} at most" if one.steps else ""
    why = one.blocked_by.reason if one.blocked_by else one.ready.reason
    waits = f"; waits: {why}" if why != one.ready.reason else ""  # `varve explain` says more
    return line(tree.state(one.ready), f"{depth}{planned}{waits}")
