"""``varve explain``: why an object is not ready or not gone, and what to do."""

from __future__ import annotations

from enum import StrEnum
from shlex import quote
from typing import Literal

from controller.api import FINALIZER
from controller.api.conditions import Truth
from controller.api.hypervisor import Hypervisor
from controller.api.volumechain import PlanStep, VolumeChain
from controller.api.volumesnapshot import Operation, VolumeSnapshot
from controller.cli import tree
from controller.cli.advice import DELETION, NO_CONTROLLER, advice, meaning
from controller.cli.page import Block, Line, Page, Role, Section, Span, facts, line
from controller.cli.report import Report, Summary, summary

Explained = VolumeSnapshot | VolumeChain | Hypervisor

_RESOURCES = {"VolumeSnapshot": "vvs", "VolumeChain": "vvc", "Hypervisor": "hypervisor"}


class Standing(StrEnum):
    """Where an object stands, in one word."""

    READY = "Ready"
    WORKING = "Working"
    WAITING = "Waiting"
    NEEDS_YOU = "NeedsYou"
    NOT_SEEN = "NotSeen"
    """No controller has looked at it."""


class Explanation(Report):
    """Why an object is as it is."""

    kind: Literal["Explanation"] = "Explanation"
    object_kind: str
    namespace: str | None = None
    name: str
    deleting: bool
    standing: Standing
    reason: str = ""
    message: str = ""
    meaning: str = ""
    """What the reason means in general."""
    outdated: bool = False
    """The object was changed since a controller looked at it."""
    operation: Operation | None = None
    chain: str | None = None
    """The VolumeChain (namespace/name) that the point is in."""
    blocked: tuple[str, ...] = ()
    """What the steps of the plan wait for, as ``reason: message``."""
    to_do: tuple[str, ...] = ()
    known_faults: tuple[str, ...] = ()
    """What the hypervisor's versions do wrong, and what is not done because of it."""


def report(found: Explained, chain: VolumeChain | None = None) -> Explanation:
    """Explain ``found``; ``chain`` is the chain that a VolumeSnapshot's point is in, where there is one."""
    status, kind = found.status, type(found).__name__
    ready = summary(status.conditions)
    standing = _standing(found, ready)
    chain = found if isinstance(found, VolumeChain) else chain
    operation = None if isinstance(found, Hypervisor) else found.status.operation
    return Explanation(
        object_kind=kind,
        namespace=found.namespace or None,
        name=found.name,
        deleting=found.deleting,
        standing=standing,
        reason=ready.reason,
        message=ready.message,
        meaning=meaning(ready.reason),
        outdated=standing is not Standing.NOT_SEEN and status.observed_generation < found.generation,
        operation=operation,
        chain=f"{chain.namespace}/{chain.name}" if chain else None,
        blocked=tuple(text for text in _blocked(chain) if text != f"{ready.reason}: {ready.message}")
        if standing is not Standing.READY or found is chain
        else (),
        to_do=_to_do(found, chain, standing, ready),
        known_faults=_known_faults(found),
    )


def _known_faults(found: Explained) -> tuple[str, ...]:
    faults = found.status.known_faults if isinstance(found, Hypervisor) else ()
    return tuple(
        f"{one.name} of {one.of}{f', limit {one.limit}' if one.limit else ''}: {one.fact}; so {one.therefore}"
        for one in faults
    )


def _standing(found: Explained, ready: Summary) -> Standing:
    if not ready.reason:
        return Standing.NOT_SEEN
    if ready.stalled:
        return Standing.NEEDS_YOU
    if found.deleting:
        return Standing.WORKING if ready.status is Truth.UNKNOWN else Standing.WAITING
    by_truth = {Truth.TRUE: Standing.READY, Truth.FALSE: Standing.WAITING, Truth.UNKNOWN: Standing.WORKING}
    return by_truth[ready.status]


def _blocked(chain: VolumeChain | None) -> tuple[str, ...]:
    """Each obstacle of the chain once."""
    if chain is None:
        return ()
    steps: tuple[PlanStep, ...] = chain.status.plan.steps if chain.status.plan else ()
    all_of_them = (chain.status.blocked_by, *(step.blocked for step in steps))
    return tuple(dict.fromkeys(f"{one.reason}: {one.message}" for one in all_of_them if one))


def _to_do(
    found: Explained, chain: VolumeChain | None, standing: Standing, ready: Summary
) -> tuple[str, ...]:
    words = _words(found, chain)
    texts = list(NO_CONTROLLER if standing is Standing.NOT_SEEN else advice(ready.reason))
    texts = [text.format_map(words) for text in texts]
    if found.deleting:
        others = [one for one in found.metadata.finalizers if one != FINALIZER]
        if others:
            texts.append(f"It is held by {', '.join(others)} as well, which is not varve's: ask its owner.")
        if isinstance(found, VolumeSnapshot) and standing is not Standing.WORKING:
            texts += [text.format_map(words) for text in DELETION]
    return tuple(texts)


def _words(found: Explained, chain: VolumeChain | None) -> dict[str, str]:
    """What the advice may name. A domain's name may be anything: it is never run here, and it is quoted for
    the shell that a person copies the advice into."""
    words = {
        "resource": _RESOURCES[type(found).__name__],
        "name": found.name,
        "namespace": found.namespace,
        "chain": chain.name if chain else "CHAIN",
        "domain": "DOMAIN",
        "disk": "DISK",
    }
    if isinstance(found, Hypervisor):
        return words
    source, resolved = found.spec.source, found.status.resolved
    domain = (resolved and resolved.domain_name) or source.domain or source.domain_uuid or "DOMAIN"
    return words | {"domain": quote(domain), "disk": quote(source.disk)}


def page(found: Explanation) -> Page:
    """Why, and what to do."""
    where = f"{found.namespace}/" if found.namespace else ""
    gone = ", being deleted" if found.deleting else ""
    title = line(f"{found.object_kind} ", (f"{where}{found.name}", Role.NAME), gone)
    rows = [("state", _state(found))]
    if found.message:
        rows.append(("because", line(found.message)))
    elif found.meaning:
        rows.append(("because", line(found.meaning)))
    if found.outdated:
        rows.append(("but", line("it was changed since, and no controller has looked at that yet")))
    if found.operation:
        rows.append(("runs", line((tree.progress(found.operation), Role.BUSY))))
    if found.chain and found.object_kind != "VolumeChain":
        rows.append(("chain", line(found.chain)))
    rows += [("plan waits" if at == 0 else "", line(text)) for at, text in enumerate(found.blocked)]
    rows += [("to do" if at == 0 else "", line((text, Role.CODE))) for at, text in enumerate(found.to_do)]
    rows += [("known fault" if at == 0 else "", line(text)) for at, text in enumerate(found.known_faults)]
    blocks: tuple[Block, ...] = (facts(rows),)
    return (Section(title, blocks),)


def _state(found: Explanation) -> Line:
    role = {Standing.READY: Role.GOOD, Standing.NEEDS_YOU: Role.BAD}.get(found.standing, Role.BUSY)
    words = {Standing.NEEDS_YOU: "needs you", Standing.NOT_SEEN: "not seen by a controller"}
    text = words.get(found.standing, str(found.standing).lower())
    reason = f" ({found.reason})" if found.reason else ""
    return line(Span(text, role), reason)
