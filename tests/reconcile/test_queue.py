"""The queue: one run for many wake-ups, never two at once, and every lane gets its turn."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from controller.reconcile.queue import Backoff, KeyedQueue
from controller.telemetry.metrics import Metrics
from controller.telemetry.queue_watch import QueueWatch


def now() -> float:
    return asyncio.get_running_loop().time()


async def ready(queue: KeyedQueue[str]) -> list[str]:
    """All keys that are handed out without waiting."""
    found = []
    while True:
        try:
            async with asyncio.timeout(0.001):
                key = await queue.get()
        except TimeoutError:
            return found
        assert key is not None
        found.append(key)


async def test_many_wake_ups_are_one_run() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    for _ in range(5):
        queue.add("a")
    assert len(queue) == 1
    assert await ready(queue) == ["a"]
    assert len(queue) == 0


async def test_first_come_first_served() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    for key in "cab":
        queue.add(key)
    assert await ready(queue) == ["c", "a", "b"]


async def test_a_key_never_runs_twice_at_once_and_runs_once_more_afterwards() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    assert await ready(queue) == ["a"]
    queue.add("a")
    queue.add("a")
    queue.add_after("a", 0)
    assert await ready(queue) == []
    queue.done("a")
    assert await ready(queue) == ["a"]
    queue.done("a")
    assert await ready(queue) == []


async def test_later_means_later() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    began = now()
    queue.add_after("a", 30)
    assert await ready(queue) == []
    assert await queue.get() == "a"
    assert now() - began >= 30


@pytest.mark.parametrize(("first", "second"), [(30, 10), (10, 30)])
async def test_the_earlier_of_two_times_wins(first: float, second: float) -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    began = now()
    queue.add_after("a", first)
    queue.add_after("a", second)
    assert await queue.get() == "a"
    assert 10 <= now() - began < 11
    queue.done("a")
    await asyncio.sleep(60)
    assert await ready(queue) == [], "the later time was forgotten"


async def test_a_wake_up_now_makes_one_for_later_needless() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add_after("a", 30)
    queue.add("a")
    assert await ready(queue) == ["a"]
    queue.done("a")
    await asyncio.sleep(60)
    assert await ready(queue) == []


async def test_a_timer_during_a_run_is_kept() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add_after("a", 5)
    queue.done("a")
    assert await ready(queue) == []
    assert await queue.get() == "a"


async def test_failures_back_off_and_success_forgets_them() -> None:
    queue: KeyedQueue[str] = KeyedQueue(Backoff(first=1, most=4, jitter=0))
    assert [queue.retry("a") for _ in range(4)] == [1, 2, 4, 4]
    queue.succeeded("a")
    assert queue.retry("a") == 1
    assert queue.retry("b") == 1


def test_backoff_is_bounded_and_spread() -> None:
    backoff = Backoff(first=1, most=60, jitter=0.2)
    delays = [backoff.delay(1000) for _ in range(100)]
    assert all(60 <= delay <= 72 for delay in delays)
    assert len(set(delays)) > 1


async def test_a_full_lane_holds_up_no_other() -> None:
    queue: KeyedQueue[str] = KeyedQueue(lane=lambda key: key[0], lane_width=2)
    for key in ("a1", "a2", "a3", "a4", "b1"):
        queue.add(key)
    running = await ready(queue)
    assert sorted(running) == ["a1", "a2", "b1"]
    queue.done("b1")
    assert await ready(queue) == []
    queue.done("a1")
    assert await ready(queue) == ["a3"]


async def test_a_lane_with_room_again_wakes_who_waits() -> None:
    queue: KeyedQueue[str] = KeyedQueue(lane=lambda key: key[0], lane_width=1)
    queue.add("a1")
    queue.add("a2")
    assert await queue.get() == "a1"
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(1)
    assert not waiting.done()
    queue.done("a1")
    assert await waiting == "a2"


async def test_lanes_take_turns() -> None:
    queue: KeyedQueue[str] = KeyedQueue(lane=lambda key: key[0], lane_width=100)
    for key in ("a1", "a2", "a3", "b1", "c1"):
        queue.add(key)
    assert (await ready(queue))[:3] == ["a1", "b1", "c1"]


async def test_closing_ends_those_who_wait_and_takes_nothing_more() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    waiting = [asyncio.ensure_future(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.close()
    assert await asyncio.gather(*waiting) == [None, None, None]
    queue.add("a")
    queue.add_after("b", 0)
    assert await queue.get() is None


async def test_nothing_is_lost_and_nothing_doubled_under_load() -> None:
    queue: KeyedQueue[int] = KeyedQueue(lane=lambda key: key % 3, lane_width=2)
    running: set[int] = set()
    runs: Counter[int] = Counter()
    wanted = 0

    async def work() -> None:
        while (key := await queue.get()) is not None:
            assert key not in running
            running.add(key)
            runs[key] += 1
            await asyncio.sleep(0.01 * (key % 7))
            running.discard(key)
            queue.done(key)

    workers = [asyncio.ensure_future(work()) for _ in range(4)]
    last: dict[int, int] = {}
    for number in range(500):
        key = number % 20
        last[key] = runs[key]
        (queue.add if number % 4 else lambda key: queue.add_after(key, 0.02))(key)
        wanted += 1
        if number % 5 == 0:
            await asyncio.sleep(0.005)
    await asyncio.sleep(5)
    assert all(runs[key] > before for key, before in last.items()), "each key ran after its last wake-up"
    assert sum(runs.values()) <= wanted
    queue.close()
    await asyncio.gather(*workers)


async def test_a_run_that_reads_everything_anew_answers_the_wake_ups_before_it() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    assert await ready(queue) == ["a"]
    queue.add("a")
    queue.covered("a")
    queue.done("a")
    assert await ready(queue) == []


async def test_a_wake_up_after_the_last_look_is_not_lost() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    assert await ready(queue) == ["a"]
    queue.covered("a")
    queue.add("a")
    queue.done("a")
    assert await ready(queue) == ["a"]


async def test_covered_lets_go_of_no_other_key() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    queue.add("a")
    queue.add("b")
    assert await ready(queue) == ["a", "b"]
    queue.add("b")
    queue.covered("a")
    queue.done("b")
    assert await ready(queue) == ["b"]


async def test_what_happens_to_keys_is_counted_and_timed() -> None:
    clock, metrics = [0.0], Metrics()
    queue: KeyedQueue[str] = KeyedQueue(watch=QueueWatch(metrics, "q", lambda: clock[0]))

    def number(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"name": "q"})

    queue.add("a")
    queue.add("b")
    assert number("workqueue_depth") == 2
    clock[0] = 2
    assert await queue.get() == "a"
    assert number("workqueue_queue_duration_seconds_sum") == 2
    queue.add("a")  # once more afterwards
    assert number("workqueue_adds_total") == 3
    assert number("workqueue_depth") == 2
    clock[0] = 3
    assert await queue.get() == "b"
    clock[0] = 7
    assert number("workqueue_longest_running_processor_seconds") == 5
    assert number("workqueue_unfinished_work_seconds") == 5 + 4
    queue.retry("b")
    assert number("workqueue_retries_total") == 1
    queue.done("b")
    assert number("workqueue_work_duration_seconds_sum") == 4
    queue.covered("a")
    queue.done("a")
    assert number("workqueue_depth") == 0
    assert number("workqueue_longest_running_processor_seconds") == 0
    assert number("workqueue_work_duration_seconds_count") == 2
