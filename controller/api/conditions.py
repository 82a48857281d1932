"""The conditions list, built from one verdict so that no two conditions can contradict each other.

kstatus (Flux, Helm, kpt) reads the list in order: the first of Reconciling and Stalled that is True decides,
then Ready. Hence never both True, and ``Ready=False`` alone means "working on it or waiting".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from controller.api.reasons import Reason
from controller.api.schema import ApiModel, Message, Time


class ConditionType(StrEnum):
    """The conditions, in the order of the list."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    RESOLVED = "Resolved"
    CHAIN_IN_SYNC = "ChainInSync"


class Truth(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """metav1.Condition. Types and reasons are plain strings: the list may hold those of other controllers."""

    type: str = Field(max_length=316, description="What the condition is about.")
    status: Truth = Field(description="Whether it holds.")
    observed_generation: int = Field(
        default=0, ge=0, description="The metadata.generation that this condition was made from."
    )
    last_transition_time: Time = Field(description="When the status changed last.")
    reason: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="Why, as one CamelCase word; docs/api.md lists them.",
    )
    message: Message = Field(description="What is going on, why, and what to do.")


@dataclass(frozen=True)
class Fact:
    """One of the conditions beside the summary: what was found, not what is being done about it."""

    status: Truth
    reason: Reason
    message: str = ""


NOT_LOOKED_AT = Fact(Truth.UNKNOWN, Reason.PENDING, "The hypervisor has not been asked yet.")


class State(StrEnum):
    """What the object is in, as one word; each is a row of the table in docs/api.md."""

    PROGRESSING = "Progressing"
    WAITING = "Waiting"
    IN_SYNC = "InSync"
    STALLED = "Stalled"
    SUSPENDED = "Suspended"
    DELETING = "Deleting"
    DELETING_STALLED = "DeletingStalled"


@dataclass(frozen=True)
class Verdict:
    """What a pass found out about one object.

    ``reason`` and ``message`` say why it is in ``state``; a state that waits must say for what. Kinds
    that have no such condition leave out ``resolved`` and ``chain_in_sync``.
    """

    state: State
    reason: Reason
    message: str = ""
    resolved: Fact = NOT_LOOKED_AT
    chain_in_sync: Fact = NOT_LOOKED_AT


SUMMARY = (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)
SNAPSHOT_CONDITIONS = (*SUMMARY, ConditionType.RESOLVED, ConditionType.CHAIN_IN_SYNC)
HYPERVISOR_CONDITIONS = SUMMARY


def conditions(
    verdict: Verdict,
    previous: Sequence[Condition],
    generation: int,
    now: datetime,
    types: Sequence[ConditionType] = SNAPSHOT_CONDITIONS,
) -> tuple[Condition, ...]:
    """Build the whole list that our field manager applies.

    ``previous`` is the list as last read: a condition keeps its ``lastTransitionTime`` as long as its status
    stays, so an unchanged verdict gives an equal list at any ``now``. Conditions of types that are not ours
    are not repeated: server-side apply keeps those of other managers.
    """
    before = {condition.type: condition for condition in previous}
    facts = _summary(verdict, before.get(ConditionType.READY))
    facts[ConditionType.RESOLVED] = verdict.resolved
    facts[ConditionType.CHAIN_IN_SYNC] = verdict.chain_in_sync
    return tuple(_condition(kind, facts[kind], before.get(kind), generation, now) for kind in types)


def _summary(verdict: Verdict, ready_before: Condition | None) -> dict[ConditionType, Fact]:
    here = Fact(Truth.TRUE, verdict.reason, verdict.message)
    no = Fact(Truth.FALSE, verdict.reason)
    not_ready = Fact(Truth.FALSE, verdict.reason, verdict.message)
    unknown = Fact(Truth.UNKNOWN, verdict.reason, verdict.message)
    retry = Fact(Truth.TRUE, Reason.PROGRESSING_WITH_RETRY, verdict.message)
    ready, reconciling, stalled = {
        State.PROGRESSING: (unknown, here, no),
        State.WAITING: (not_ready, retry, no),
        State.IN_SYNC: (here, no, no),
        State.STALLED: (not_ready, no, here),
        State.SUSPENDED: (_unchanged(ready_before, unknown), no, no),
        State.DELETING: (not_ready, here, no),
        State.DELETING_STALLED: (not_ready, no, here),
    }[verdict.state]
    return {
        ConditionType.READY: ready,
        ConditionType.RECONCILING: reconciling,
        ConditionType.STALLED: stalled,
    }


def _unchanged(before: Condition | None, otherwise: Fact) -> Fact:
    """Keep Ready as it was: suspending says nothing about the point, and must not block a sync wave."""
    if before is None:
        return otherwise
    known = before.reason in Reason.__members__.values()
    reason = Reason(before.reason) if known else Reason.SUSPENDED
    return Fact(before.status, reason, before.message)


def _condition(
    kind: ConditionType, fact: Fact, before: Condition | None, generation: int, now: datetime
) -> Condition:
    kept = before is not None and before.status == fact.status
    return Condition(
        type=kind,
        status=fact.status,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before is not None and kept else now,
        reason=fact.reason,
        message=fact.message,
    )
