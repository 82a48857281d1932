"""The conditions list: every row of the table, and what kstatus makes of it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.conditions import (
    HYPERVISOR_CONDITIONS,
    SNAPSHOT_CONDITIONS,
    Condition,
    ConditionType,
    Fact,
    State,
    Truth,
    Verdict,
    conditions,
)
from controller.api.reasons import Reason
from tests.api.kstatus import evaluate

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


def _kstatus(built: tuple[Condition, ...], *, deleting: bool = False, generation: int = 3) -> str:
    metadata = {"generation": generation}
    if deleting:
        metadata["deletionTimestamp"] = NOW.isoformat()
    listed = [condition.to_api() for condition in built]
    return evaluate({"metadata": metadata, "status": {"observedGeneration": 3, "conditions": listed}})


def _row(built: tuple[Condition, ...]) -> list[str]:
    return [f"{condition.status}/{condition.reason}" for condition in built[:3]]


WAITING = "ProgressingWithRetry"

TABLE = [
    (State.PROGRESSING, Reason.TAKING, ["Unknown/Taking", "True/Taking", "False/Taking"], "InProgress"),
    (
        State.WAITING,
        Reason.DOMAIN_NOT_FOUND,
        ["False/DomainNotFound", f"True/{WAITING}", "False/DomainNotFound"],
        "InProgress",
    ),
    (State.IN_SYNC, Reason.IN_SYNC, ["True/InSync", "False/InSync", "False/InSync"], "Current"),
    (State.STALLED, Reason.LOST, ["False/Lost", "False/Lost", "True/Lost"], "Failed"),
    (
        State.SUSPENDED,
        Reason.SUSPENDED,
        ["Unknown/Suspended", "False/Suspended", "False/Suspended"],
        "InProgress",
    ),
    (
        State.DELETING,
        Reason.COMMITTING,
        ["False/Committing", "True/Committing", "False/Committing"],
        "Terminating",
    ),
    (
        State.DELETING_STALLED,
        Reason.IMAGE_PROTECTED,
        ["False/ImageProtected", "False/ImageProtected", "True/ImageProtected"],
        "Terminating",
    ),
]


def test_the_table_has_every_state() -> None:
    assert {row[0] for row in TABLE} == set(State)


@pytest.mark.parametrize(("state", "reason", "expected", "kstatus"), TABLE)
def test_each_state(state: State, reason: Reason, expected: list[str], kstatus: str) -> None:
    built = conditions(Verdict(state, reason, "why"), (), 3, NOW)
    assert _row(built) == expected
    assert _kstatus(built, deleting=state in {State.DELETING, State.DELETING_STALLED}) == kstatus
    assert tuple(condition.type for condition in built) == SNAPSHOT_CONDITIONS
    assert {condition.observed_generation for condition in built} == {3}


def test_an_object_that_nobody_looked_at_is_in_progress() -> None:
    assert evaluate({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}}) == "InProgress"


def test_a_changed_spec_is_in_progress_until_it_is_looked_at() -> None:
    built = conditions(Verdict(State.IN_SYNC, Reason.IN_SYNC), (), 3, NOW)
    assert _kstatus(built, generation=4) == "InProgress"


@pytest.mark.parametrize(
    ("before", "kstatus"),
    [
        (Verdict(State.IN_SYNC, Reason.IN_SYNC, "good"), "Current"),
        (Verdict(State.WAITING, Reason.DOMAIN_NOT_FOUND, "no web-1"), "InProgress"),
        (Verdict(State.STALLED, Reason.LOST, "gone"), "InProgress"),
    ],
)
def test_suspending_leaves_ready_as_it_was(before: Verdict, kstatus: str) -> None:
    was = conditions(before, (), 2, NOW)
    built = conditions(Verdict(State.SUSPENDED, Reason.SUSPENDED), was, 3, LATER)
    ready = built[0]
    assert (ready.status, ready.reason, ready.message) == (was[0].status, was[0].reason, was[0].message)
    assert (ready.observed_generation, ready.last_transition_time) == (3, NOW)
    assert [condition.status for condition in built[1:3]] == [Truth.FALSE, Truth.FALSE]
    assert _kstatus(built) == kstatus


def test_suspending_keeps_a_ready_whose_reason_a_later_version_wrote() -> None:
    was = (
        Condition(
            type="Ready", status=Truth.TRUE, last_transition_time=NOW, reason="Splendid", message="yes"
        ),
    )
    ready = conditions(Verdict(State.SUSPENDED, Reason.SUSPENDED), was, 3, LATER)[0]
    assert (ready.status, ready.reason, ready.last_transition_time) == (Truth.TRUE, "Suspended", NOW)


def test_facts_are_reported_beside_the_summary() -> None:
    verdict = Verdict(
        State.STALLED,
        Reason.CHAIN_DIVERGED,
        "the chain was changed",
        resolved=Fact(Truth.TRUE, Reason.RESOLVED, "vda of web-1 on host-a"),
        chain_in_sync=Fact(Truth.FALSE, Reason.CHAIN_DIVERGED, "layer missing"),
    )
    resolved, chain = conditions(verdict, (), 1, NOW)[3:]
    assert (resolved.type, resolved.status, resolved.reason) == ("Resolved", "True", "Resolved")
    assert (chain.type, chain.status, chain.message) == ("ChainInSync", "False", "layer missing")


def test_a_fact_that_nobody_looked_at_is_unknown() -> None:
    built = conditions(Verdict(State.WAITING, Reason.HYPERVISOR_UNREACHABLE), (), 1, NOW)
    assert [condition.status for condition in built[3:]] == ["Unknown", "Unknown"]


def test_a_hypervisor_has_the_summary_only() -> None:
    built = conditions(Verdict(State.IN_SYNC, Reason.CONNECTED), (), 1, NOW, HYPERVISOR_CONDITIONS)
    assert [condition.type for condition in built] == ["Ready", "Reconciling", "Stalled"]


_VERDICTS = st.builds(
    Verdict,
    state=st.sampled_from(State),
    reason=st.sampled_from(Reason),
    message=st.text(max_size=40),
    chain_in_sync=st.builds(Fact, st.sampled_from(Truth), st.sampled_from(Reason)),
)


@given(_VERDICTS, _VERDICTS)
def test_never_reconciling_and_stalled_at_once(first: Verdict, second: Verdict) -> None:
    built = conditions(second, conditions(first, (), 1, NOW), 2, LATER)
    true = {condition.type for condition in built if condition.status is Truth.TRUE}
    assert not {ConditionType.RECONCILING, ConditionType.STALLED} <= true
    assert not {ConditionType.READY, ConditionType.STALLED} <= true


@given(_VERDICTS)
def test_the_same_verdict_again_is_an_equal_list(verdict: Verdict) -> None:
    was = conditions(verdict, (), 1, NOW)
    read_back = tuple(Condition.model_validate(condition.to_api()) for condition in was)
    assert conditions(verdict, read_back, 1, LATER) == was


@given(_VERDICTS, _VERDICTS)
def test_the_transition_time_moves_exactly_with_the_status(first: Verdict, second: Verdict) -> None:
    was = conditions(first, (), 1, NOW)
    for before, after in zip(was, conditions(second, was, 2, LATER), strict=True):
        assert after.last_transition_time == (NOW if before.status == after.status else LATER)


def test_conditions_of_other_controllers_are_left_to_them() -> None:
    foreign = Condition(type="Backup", status=Truth.TRUE, last_transition_time=NOW, reason="Fine", message="")
    built = conditions(Verdict(State.IN_SYNC, Reason.IN_SYNC), (foreign,), 1, LATER)
    assert "Backup" not in {condition.type for condition in built}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * 2000, "x" * 1023 + "…"),
        ("é" * 1024, "é" * 1024),
        ("line\nbreak\t\there", "line break here"),
        ("bell\x07 escape\x1b[31m \udcff", "bell? escape?[31m ?"),
    ],
)
def test_any_text_becomes_a_message(text: str, expected: str) -> None:
    ready = conditions(Verdict(State.STALLED, Reason.FAILED, text), (), 1, NOW)[0]
    assert ready.message == expected
    ready.to_api()["message"].encode()


@given(st.text(max_size=3000))
def test_a_message_is_bounded_and_encodable(text: str) -> None:
    message = conditions(Verdict(State.STALLED, Reason.FAILED, text), (), 1, NOW)[0].message
    assert len(message) <= 1024
    assert message.encode().decode() == message
