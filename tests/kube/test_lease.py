"""The Lease: who holds it when, by a clock that only the test moves."""

import asyncio
import contextlib
from typing import Any

import pytest

from controller.kube.errors import Conflict, Unavailable
from controller.kube.fake import FakeKube
from controller.kube.identity import is_dead, own_identity
from controller.kube.kinds import LEASE, Raw
from controller.kube.lease import Lease, LeaseTiming, lease_name

from .conftest import FakeClock, until

WHERE = ("varve-system", "varve")
DOWN = Unavailable("connection refused")


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


def candidate(kube: FakeKube, clock: FakeClock, identity: str, **more: Any) -> Lease:
    return Lease(kube, *WHERE, identity, clock=clock, sleep=clock.sleep, **more)


def record(kube: FakeKube) -> Raw:
    found = kube.object(LEASE, *WHERE)
    assert found is not None
    spec: Raw = found["spec"]
    return spec


def held_by(kube: FakeKube, holder: str, *, duration: int = 15) -> None:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": duration, "leaseTransitions": 3}
    meta = {"namespace": WHERE[0], "name": WHERE[1]}
    kube.create_object(LEASE, {"metadata": meta, "spec": spec | {"renewTime": "2001-01-01T00:00:00.000000Z"}})


async def test_a_missing_lease_is_made_and_held(kube: FakeKube, clock: FakeClock) -> None:
    await candidate(kube, clock, "a").acquire()
    assert record(kube)["holderIdentity"] == "a"
    assert record(kube)["leaseDurationSeconds"] == 15
    assert record(kube)["leaseTransitions"] == 0
    assert clock.slept == []


async def test_a_silent_holder_is_waited_for_by_ones_own_clock(kube: FakeKube, clock: FakeClock) -> None:
    held_by(kube, "dead")  # its renewTime is 25 years old, which proves nothing
    await candidate(kube, clock, "b").acquire()
    assert 15 <= sum(clock.slept) <= 17
    assert record(kube)["holderIdentity"] == "b"
    assert record(kube)["leaseTransitions"] == 4


async def test_a_holder_that_renews_is_waited_for_without_end(kube: FakeKube, clock: FakeClock) -> None:
    first = candidate(kube, clock, "a")
    await first.acquire()
    second = asyncio.create_task(candidate(kube, clock, "b").acquire())
    keeping = asyncio.create_task(first.keep())
    await until(lambda: clock.now >= 1200)
    assert not second.done()
    assert not keeping.done()
    for task in (second, keeping):
        task.cancel()


async def test_a_holder_that_is_known_to_be_dead_is_not_waited_for(kube: FakeKube, clock: FakeClock) -> None:
    held_by(kube, "dead")
    await candidate(kube, clock, "b", is_dead=lambda identity: identity == "dead").acquire()
    assert clock.slept == []


async def test_a_released_lease_is_taken_at_once(kube: FakeKube, clock: FakeClock) -> None:
    first = candidate(kube, clock, "a")
    await first.acquire()
    await first.release()
    assert record(kube)["holderIdentity"] == ""
    await candidate(kube, clock, "b").acquire()
    assert record(kube)["holderIdentity"] == "b"
    assert clock.slept == []


async def test_releasing_what_is_not_held_writes_nothing(kube: FakeKube, clock: FakeClock) -> None:
    await candidate(kube, clock, "a").release()
    assert kube.calls == []


async def test_releasing_without_an_api_server_is_no_error(kube: FakeKube, clock: FakeClock) -> None:
    lease = candidate(kube, clock, "a")
    await lease.acquire()
    kube.fail("replace", DOWN)
    await lease.release()
    assert record(kube)["holderIdentity"] == "a"


async def test_renewing_is_one_request_and_keeps_when_it_began(kube: FakeKube, clock: FakeClock) -> None:
    lease = candidate(kube, clock, "a")
    await lease.acquire()
    began = record(kube)["acquireTime"]
    kube.forget_calls()
    keeping = asyncio.create_task(lease.keep())
    await until(lambda: len(kube.calls) >= 5)
    keeping.cancel()
    assert {call.verb for call in kube.calls} == {"replace"}
    assert record(kube)["acquireTime"] == began
    assert record(kube)["leaseTransitions"] == 0


@pytest.mark.parametrize("failures", [1, 3])
async def test_a_short_outage_loses_nothing(kube: FakeKube, clock: FakeClock, failures: int) -> None:
    lease = candidate(kube, clock, "a")
    await lease.acquire()
    for _ in range(failures):
        kube.fail("replace", DOWN)
    keeping = asyncio.create_task(lease.keep())
    await until(lambda: len(kube.calls) >= 12)
    assert not keeping.done()
    keeping.cancel()


async def test_the_holder_gives_up_before_another_may_begin(kube: FakeKube, clock: FakeClock) -> None:
    lease = candidate(kube, clock, "a")
    await lease.acquire()
    since = clock.now
    for _ in range(100):
        kube.fail("replace", DOWN)
    reason = await lease.keep()
    assert "could not be renewed for 10 s" in reason
    assert 10 <= clock.now - since < 15


async def test_a_hanging_api_server_does_not_stretch_the_deadline(kube: FakeKube) -> None:
    timing = LeaseTiming(duration=0.3, renew_deadline=0.2, retry_period=0.02)
    lease = Lease(kube, *WHERE, "a", timing=timing)
    await lease.acquire()

    async def hang(*_: object, **__: object) -> Raw:
        await asyncio.Event().wait()
        raise AssertionError

    kube.replace = hang  # type: ignore[method-assign]
    assert "could not be renewed" in await asyncio.wait_for(lease.keep(), 5)


async def test_a_lease_that_another_took_is_lost(kube: FakeKube, clock: FakeClock) -> None:
    lease = candidate(kube, clock, "a")
    await lease.acquire()

    def steal(raw: Raw) -> None:
        raw["spec"]["holderIdentity"] = "thief"

    kube.edit(LEASE, *WHERE, steal)
    assert "taken by thief" in await lease.keep()
    await lease.release()
    assert record(kube)["holderIdentity"] == "thief"


async def test_an_answer_that_was_lost_does_not_lose_the_lease(kube: FakeKube, clock: FakeClock) -> None:
    lease = candidate(kube, clock, "a")
    await lease.acquire()
    kube.fail("replace", DOWN, phase="after")
    keeping = asyncio.create_task(lease.keep())
    await until(lambda: len(kube.calls) >= 8)
    assert not keeping.done()
    keeping.cancel()
    assert record(kube)["leaseTransitions"] == 0


async def test_a_deleted_lease_is_made_again_by_its_holder(kube: FakeKube, clock: FakeClock) -> None:
    lease = candidate(kube, clock, "a")
    await lease.acquire()
    kube.delete(LEASE, *WHERE)
    keeping = asyncio.create_task(lease.keep())
    await until(lambda: kube.object(LEASE, *WHERE) is not None)
    assert not keeping.done()
    keeping.cancel()


async def test_of_two_that_begin_at_once_one_holds(kube: FakeKube, clock: FakeClock) -> None:
    tasks = [asyncio.create_task(candidate(kube, clock, name).acquire()) for name in "ab"]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert sum(task.done() for task in tasks) == 1
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Conflict):
            await task


async def test_a_lease_held_before_by_the_same_identity_is_taken_at_once(
    kube: FakeKube, clock: FakeClock
) -> None:
    held_by(kube, "a")
    await candidate(kube, clock, "a").acquire()
    assert clock.slept == []
    assert record(kube)["leaseTransitions"] == 3


@pytest.mark.parametrize(
    ("duration", "deadline", "retry"), [(10, 10, 2), (15, 2, 2), (15, 10, 0), (5, 10, 2)]
)
def test_a_timing_that_lets_two_work_is_refused(duration: float, deadline: float, retry: float) -> None:
    with pytest.raises(ValueError, match="renew deadline"):
        LeaseTiming(duration, deadline, retry)


def test_shards_do_not_wait_for_each_other() -> None:
    names = {lease_name(selector) for selector in ("", "site=a", "site=b")}
    assert len(names) == 3
    assert lease_name("") == "varve"
    assert lease_name("site=a") == lease_name("site=a")


async def test_a_process_is_known_to_be_dead_only_when_it_is() -> None:
    process = await asyncio.create_subprocess_exec(
        *("python3", "-c", "import sys; sys.stdin.read()"), stdin=asyncio.subprocess.PIPE
    )
    *here, pid, _ = own_identity().split("_")
    started = (
        (await asyncio.to_thread(open, f"/proc/{process.pid}/stat")).read().rpartition(")")[2].split()[19]
    )
    other = "_".join([*here, str(process.pid), started])
    assert not is_dead(other)
    assert not is_dead(own_identity())
    assert is_dead("_".join([*here, pid, "1"]))  # the PID was given out again
    await process.communicate(b"")
    assert is_dead(other)


@pytest.mark.parametrize("identity", ["", "pod-7f", "host_otherboot_1_2_3", "a_b_c_d_e_f", "host_x_y_z_0"])
def test_of_a_foreign_identity_nothing_is_known(identity: str) -> None:
    assert not is_dead(identity)
