"""Blocking calls that never return: what they cost, and what still works beside them. No daemon needed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from controller.hypervisor.errors import Busy, HypervisorError, OutcomeUnknown, Unreachable
from controller.hypervisor.threads import CONNECTION, CallThreads, Unanswered

SOON = 0.05
LONG = 20.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Calls that wait for it hang until the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def unanswered() -> Unanswered:
    return Unanswered()


@pytest.fixture
def pool(unanswered: Unanswered) -> Iterator[CallThreads]:
    made = CallThreads("test", unanswered, size=4)
    yield made
    made.close(lambda: None)


async def hang(pool: CallThreads, gate: threading.Event, key: str, *, changing: bool = False) -> None:
    await pool.run(gate.wait, key=key, what=f"the call on {key}", deadline=SOON, changing=changing)


async def answer(pool: CallThreads, key: str, deadline: float = LONG) -> str:
    return await pool.run(lambda: "answer", key=key, what=f"asking {key}", deadline=deadline)


async def until(condition: Callable[[], object], deadline: float = LONG) -> None:
    """Threads have no event that asyncio could wait for: a bounded poll."""
    async with asyncio.timeout(deadline):
        while not condition():  # noqa: ASYNC110 (see above)
            await asyncio.sleep(0.005)


async def test_results_and_errors_come_back(pool: CallThreads) -> None:
    def fail() -> None:
        raise HypervisorError("no")

    assert await answer(pool, "a") == "answer"
    with pytest.raises(HypervisorError, match="no"):
        await pool.run(fail, key="a", what="failing", deadline=LONG)


@pytest.mark.parametrize(
    ("key", "changing", "kind"),
    [("a", True, OutcomeUnknown), ("a", False, Busy), (CONNECTION, False, Unreachable)],
)
async def test_a_late_call_is_given_up(
    pool: CallThreads, gate: threading.Event, key: str, changing: bool, kind: type[HypervisorError]
) -> None:
    with pytest.raises(kind, match=r"has not answered for 0\.05 s"):
        await hang(pool, gate, key, changing=changing)


async def test_calls_one_after_the_other_need_one_thread(pool: CallThreads) -> None:
    for _ in range(100):
        await answer(pool, "a")
    assert pool.threads == 1


async def test_nothing_more_is_sent_to_what_hangs_and_all_else_goes_on(
    pool: CallThreads, gate: threading.Event, unanswered: Unanswered
) -> None:
    with pytest.raises(OutcomeUnknown):
        await hang(pool, gate, "a", changing=True)
    sent = []
    for _ in range(3):
        with pytest.raises(Busy, match=r"the call on a has not answered since .* nothing more is sent"):
            await pool.run(lambda: sent.append(1), key="a", what="again", deadline=LONG)
    assert sent == []
    assert await answer(pool, "b") == "answer"
    assert pool.threads == 2
    gate.set()
    await until(lambda: not unanswered.calls("a"))
    assert await answer(pool, "a") == "answer"


async def test_what_hangs_is_remembered_by_the_next_connection(
    pool: CallThreads, gate: threading.Event, unanswered: Unanswered
) -> None:
    with pytest.raises(Busy):
        await hang(pool, gate, "a")
    other = CallThreads("next", unanswered)
    with pytest.raises(Busy, match="the call on a has not answered since"):
        await answer(other, "a")
    assert await answer(other, "b") == "answer"
    other.close(lambda: None)


async def test_an_answer_that_comes_late_is_told(unanswered: Unanswered, gate: threading.Event) -> None:
    told: list[str] = []
    pool = CallThreads("test", unanswered, late=told.append)
    with pytest.raises(Busy):
        await hang(pool, gate, "a")
    assert await answer(pool, "b") == "answer"
    assert told == []
    gate.set()
    await until(lambda: told)
    assert await answer(pool, "a") == "answer"
    assert told == ["a"]
    pool.close(lambda: None)


async def test_hung_domains_leave_a_thread_for_the_connection(
    pool: CallThreads, gate: threading.Event
) -> None:
    for key in "abc":
        with pytest.raises(Busy):
            await hang(pool, gate, key)
    with pytest.raises(Busy, match="3 calls on this hypervisor have no answer"):
        await answer(pool, "d")
    assert await answer(pool, CONNECTION) == "answer"
    assert pool.threads == 4


async def test_slow_domains_leave_a_thread_for_the_connection(
    pool: CallThreads, gate: threading.Event
) -> None:
    slow = [asyncio.create_task(pool.run(gate.wait, key=key, what=key, deadline=LONG)) for key in "abcdef"]
    await asyncio.sleep(0)
    assert await answer(pool, CONNECTION) == "answer"
    with pytest.raises(Busy, match="was not sent"):
        await answer(pool, "g", deadline=SOON)
    gate.set()
    assert await asyncio.gather(*slow) == [True] * 6


async def test_a_cancelled_call_still_blocks_its_domain(
    pool: CallThreads, gate: threading.Event, unanswered: Unanswered
) -> None:
    began = threading.Event()

    def call() -> None:
        began.set()
        gate.wait()

    task = asyncio.create_task(pool.run(call, key="a", what="the call", deadline=LONG, changing=True))
    await until(began.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(Busy, match="the call has not answered"):
        await answer(pool, "a")
    gate.set()
    await until(lambda: not unanswered.calls("a"))


async def test_another_try_after_a_long_time_but_not_many(gate: threading.Event) -> None:
    unanswered = Unanswered()
    pools = [CallThreads(str(number), unanswered) for number in range(4)]

    async def attempt(pool: CallThreads) -> None:
        await pool.run(gate.wait, key=CONNECTION, what="opening", deadline=SOON, retry_after=0)

    for pool in pools[:3]:
        with pytest.raises(Unreachable, match=r"for 0\.05 s"):
            await attempt(pool)
    with pytest.raises(Unreachable, match="nothing more is sent"):
        await attempt(pools[3])
    assert pools[3].threads == 0
    for pool in pools:
        pool.close(lambda: None)


async def test_the_last_thread_closes_after_the_last_call(pool: CallThreads, gate: threading.Event) -> None:
    with pytest.raises(Busy):
        await hang(pool, gate, "a")
    await answer(pool, "b")
    closed = threading.Event()
    pool.close(closed.set)
    await until(lambda: pool.threads == 1)
    assert not closed.is_set(), "a call still uses the connection"
    with pytest.raises(Unreachable, match="closed"):
        await answer(pool, "b")
    gate.set()
    await until(closed.is_set)
    await until(lambda: pool.threads == 0)


async def test_a_pool_that_was_never_used_closes_too(unanswered: Unanswered) -> None:
    closed = threading.Event()
    CallThreads("unused", unanswered).close(closed.set)
    await until(closed.is_set)


async def test_waiting_calls_are_told_that_nothing_was_sent(pool: CallThreads, gate: threading.Event) -> None:
    slow = [asyncio.create_task(pool.run(gate.wait, key=key, what=key, deadline=LONG)) for key in "abc"]
    waiting = asyncio.create_task(pool.run(gate.wait, key="d", what="d", deadline=LONG, changing=True))
    await until(lambda: pool._running >= 3)
    pool.close(lambda: None)
    with pytest.raises(Unreachable, match="closed before"):
        await waiting
    gate.set()
    await asyncio.gather(*slow)


def test_a_hung_call_does_not_hold_up_the_exit_of_the_process() -> None:
    program = """
import asyncio, threading
from controller.hypervisor.errors import HypervisorError
from controller.hypervisor.threads import CallThreads, Unanswered

async def main():
    pool = CallThreads("x", Unanswered())
    try:
        await pool.run(threading.Event().wait, key="a", what="hanging", deadline=0.05)
    except HypervisorError as error:
        print(error.message)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=LONG
    )
    assert done.stdout == "hanging has not answered for 0.05 s\n"
