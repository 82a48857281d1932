"""What is told of a point: progress in steps, errors dated once, and never Reconciling beside Stalled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from controller.api.reasons import Reason
from controller.api.volumesnapshot import Resolved, VolumeSnapshot, VolumeSnapshotStatus
from controller.chain.blocked import Blocked, Why
from controller.chain.desired import Want
from controller.chain.disk import ChainEnd, Disk, Layer, Mirror
from controller.chain.journal import Operation, OperationKind, Owner, Point
from controller.chain.observation import DiskFacts, Job, JobKind
from controller.chain.plan import Standing, State
from controller.chain.source import Source
from controller.hypervisor.errors import Busy, Unreachable
from controller.reconcile.report import status_of, verdict_of
from controller.reconcile.reporter import unreadable

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OWNER = Owner("shop", "a", "u")
BASE, TOP = Layer(Source.file("/i/base"), "qcow2", 2), Layer(Source.file("/i/top"), "qcow2", 1)
MIB = 1 << 20


def snapshot(status: VolumeSnapshotStatus | None = None) -> VolumeSnapshot:
    return VolumeSnapshot.model_validate(
        {
            "metadata": {"name": "a", "namespace": "shop", "uid": "u", "generation": 4},
            "spec": {"source": {"domain": "web", "disk": "vda"}},
            "status": status.to_api() if status else {},
        }
    )


def operation(kind: OperationKind = OperationKind.COMMIT) -> Operation:
    return Operation(kind, "2026-01-01T12:00:00Z", (OWNER,), kept=BASE, merged=(TOP,))


def merging(kind: OperationKind = OperationKind.COMMIT) -> Standing:
    return Standing(Want(OWNER, "vda", deleted_at=NOON), State.MERGING, operation=operation(kind))


def facts(current: int, end: int, *, mirror: Mirror | None = None) -> DiskFacts:
    live = Disk("vda", "disk", (TOP, BASE), ChainEnd.KNOWN, mirror=mirror)
    return DiskFacts("vda", live, None, job=Job(JobKind.COMMIT, current, end))


def tell(
    standing: Standing, seen: DiskFacts | None, before: VolumeSnapshotStatus | None, seconds: float
) -> VolumeSnapshotStatus:
    return status_of(snapshot(before), standing, seen, Resolved(), NOON + timedelta(seconds=seconds))


def test_progress_is_written_in_steps_not_at_every_look() -> None:
    """An hour's job, looked at every second: twenty writes by steps, and few more by time."""
    status, writes = None, 0
    for second in range(3600):
        new = tell(merging(), facts(second * MIB, 3600 * MIB), status, second)
        writes += status is None or new.to_api() != status.to_api()
        status = new
    assert 20 <= writes <= 100
    assert status is not None
    assert status.operation is not None
    assert 95 <= (status.operation.percent or 0) <= 100


def test_a_slow_job_shows_that_it_moves() -> None:
    """Looked at every 5 s, whatever the offset: 1 % per minute is shown well before the next 5 %."""
    for offset in range(5):
        status, shown = None, []
        for second in range(offset, 600, 5):
            status = tell(merging(), facts(second * MIB, 6000 * MIB), status, second)
            assert status.operation is not None
            shown.append(status.operation.percent)
        assert len(set(shown)) >= 8, f"offset {offset}: {sorted(set(shown))}"


def test_no_progress_is_no_news() -> None:
    status = tell(merging(), facts(MIB, 100 * MIB), None, 1)
    for second in range(2, 300):
        assert tell(merging(), facts(MIB, 100 * MIB), status, second) == status


def test_what_an_operation_says() -> None:
    told = tell(merging(), facts(25 * MIB, 100 * MIB), None, 10).operation
    assert told is not None
    assert (told.kind.value, told.percent, told.current_bytes, told.total_bytes, told.eta_seconds) == (
        "Commit",
        25,
        25 * MIB,
        100 * MIB,
        30,
    )
    ready = facts(100, 100, mirror=Mirror("active-commit", True, BASE.key))
    pivot = tell(merging(OperationKind.ACTIVE_COMMIT), ready, None, 10).operation
    assert pivot is not None
    assert pivot.kind.value == "Pivot"
    pull = tell(merging(OperationKind.PULL), None, None, 10).operation
    assert pull is not None
    assert (pull.kind.value, pull.percent) == ("Pull", None)


def test_an_error_is_dated_when_it_happened_first() -> None:
    blocked = Blocked(Why.FAILED, "no space left")
    standing = Standing(Want(OWNER, "vda"), State.PENDING, blocked=blocked)
    first = tell(standing, None, None, 0)
    assert first.error is not None
    again = tell(standing, None, first, 50)
    assert again.to_api() == first.to_api(), "the same failure is not written twice"
    other = tell(Standing(Want(OWNER, "vda"), State.PENDING), None, again, 60)
    assert other.error is None


def test_what_is_not_known_now_keeps_its_value() -> None:
    point = Point(TOP.key, (OWNER,), "2026-01-01T11:00:00Z", "Paused", capacity=MIB)
    held = Standing(Want(OWNER, "vda"), State.HELD, point=point, frozen=BASE)
    before = tell(held, None, None, 0)
    unknown = Standing(Want(OWNER, "vda"), State.UNKNOWN, blocked=Blocked(Why.CHAIN_UNKNOWN, "not listed"))
    after = tell(unknown, None, before, 10)
    for field in ("ready_to_use", "creation_time", "restore_size", "consistency", "layer"):
        assert getattr(after, field) == getattr(before, field) != None  # noqa: E711 - a chain of comparisons


def test_a_spoiled_or_lost_point_is_not_ready_to_use() -> None:
    for state in (State.LOST, State.MERGING, State.LEAVING):
        want = Want(OWNER, "vda", deleted_at=None if state is State.LOST else NOON)
        assert tell(Standing(want, state), None, None, 0).ready_to_use is False


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("deleting", [False, True])
def test_every_standing_says_one_thing(state: State, suspended: bool, deleting: bool) -> None:
    """Over all states, reasons and wishes: never Reconciling and Stalled, a reason of the API, a message."""
    blocks = [None, *(Blocked(why, f"{why.value}: do this") for why in Why)]
    for blocked, run in product(blocks, (None, operation())):
        want = Want(OWNER, "vda", deleted_at=NOON if deleting else None, suspended=suspended)
        standing = Standing(want, state, operation=run, blocked=blocked)
        verdict = verdict_of(standing)
        assert verdict.reason in Reason
        assert verdict.message
        status = tell(standing, None, None, 0).to_api()
        truths = {one["type"]: one["status"] for one in status["conditions"]}
        assert not (truths["Reconciling"] == truths["Stalled"] == "True")
        assert not (truths["Ready"] == "True" and truths["Stalled"] == "True")
        assert status["observedGeneration"] == 4
        if deleting:
            assert truths["Ready"] != "True"


def test_a_machine_without_an_answer_hints_at_its_storage() -> None:
    assert "a storage server of its disks hangs" in unreadable(Busy("reading has not answered")).message
    assert "storage" not in unreadable(Unreachable("connection refused")).message
