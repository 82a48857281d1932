"""A coalescing keyed queue: many wake-ups for one key become one run, and one key never runs twice at once.

A key that is added while it runs is run once more afterwards. Keys may be added for later; an earlier wake-up
wins. Failures back off per key. Keys run in lanes, which take turns and have room for so many each: what
hangs fills its own lane and no other.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from controller.telemetry.metrics import Metrics
from controller.telemetry.queue_watch import QueueWatch

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Backoff:
    """Exponential delays in seconds, with jitter so that many keys do not come back at once."""

    first: float = 0.5
    most: float = 60.0
    factor: float = 2.0
    jitter: float = 0.2

    def delay(self, failures: int) -> float:
        """Delay after so many failures in a row (1 or more)."""
        plain = min(self.most, self.first * self.factor ** min(failures - 1, 30))
        return plain * (1 + self.jitter * random.random())  # noqa: S311 - spreading load, not a secret


class KeyedQueue(Generic[K]):
    """Use from one event loop only."""

    def __init__(
        self,
        backoff: Backoff | None = None,
        *,
        lane: Callable[[K], Hashable] = lambda key: None,
        lane_width: int = 1_000_000,
        watch: QueueWatch | None = None,
    ) -> None:
        """``lane`` tells the lane of a key, ``lane_width`` how many keys of one lane may run at once;
        ``watch`` is told of everything."""
        self._watch = watch or QueueWatch(Metrics(), "")
        self._backoff = backoff or Backoff()
        self._lane = lane
        self._lane_width = lane_width
        self._lanes: OrderedDict[Hashable, deque[K]] = OrderedDict()
        self._busy: Counter[Hashable] = Counter()
        self._waiting: set[K] = set()
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._timers: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._order = count()
        self._wake = asyncio.Event()
        self._closed = False
        self.since: dict[K, float] = {}
        """When each running key was handed out (loop time), for the liveness probe."""

    def __len__(self) -> int:
        """Keys that wait for their run now."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Run this key as soon as its lane has room."""
        if self._closed:
            return
        self._watch.added(key)
        self._enqueue(key)

    def _enqueue(self, key: K) -> None:
        self._due.pop(key, None)
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._lanes.setdefault(self._lane(key), deque()).append(key)
            self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Run this key after so many seconds, unless it is due earlier already."""
        if self._closed:
            return
        due = asyncio.get_running_loop().time() + max(seconds, 0.0)
        if key in self._waiting or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._timers, (due, next(self._order), key))
        self._wake.set()

    def retry(self, key: K) -> float:
        """Run a key that failed again after its backoff; returns the delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._backoff.delay(failures)
        self._watch.retried()
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: K) -> None:
        """Forget earlier failures of this key."""
        self._failures.pop(key, None)

    async def get(self) -> K | None:
        """The next key; None once the queue is closed. The caller must call :meth:`done` for it."""
        while not self._closed:
            pause = self._release_due()
            key = self._take()
            if key is not None:
                self.since[key] = asyncio.get_running_loop().time()
                return key
            self._wake.clear()
            await self._sleep(pause)
        return None

    def _take(self) -> K | None:
        """The next key of the next lane with room, which then goes to the end of the lanes."""
        lanes = [lane for lane in self._lanes if self._busy[lane] < self._lane_width]
        if not lanes:
            return None
        lane, keys = lanes[0], self._lanes[lanes[0]]
        key = keys.popleft()
        if keys:
            self._lanes.move_to_end(lane)
        else:
            del self._lanes[lane]
        self._busy[lane] += 1
        self._waiting.discard(key)
        self._running.add(key)
        self._watch.begun(key)
        return key

    def covered(self, key: K) -> None:
        """What the run of this key reads from here on answers all wake-ups until now."""
        self._again.discard(key)
        self._watch.covered(key)

    def done(self, key: K) -> None:
        """The run of this key has ended."""
        self._running.discard(key)
        self.since.pop(key, None)
        self._watch.ended(key)
        lane = self._lane(key)
        self._busy[lane] -= 1
        if not self._busy[lane]:
            del self._busy[lane]
        if self._lanes:
            self._wake.set()
        if key in self._again:
            self._again.discard(key)
            self._enqueue(key)

    def close(self) -> None:
        """Let all workers end after what they run now."""
        self._closed = True
        self._wake.set()

    def _release_due(self) -> float | None:
        """Move timers that are due to the ready keys; seconds until the next one."""
        now = asyncio.get_running_loop().time()
        while self._timers:
            due, _, key = self._timers[0]
            if self._due.get(key) != due:
                heapq.heappop(self._timers)  # superseded by an earlier wake-up
            elif due <= now:
                heapq.heappop(self._timers)
                self.add(key)
            else:
                return due - now
        return None

    async def _sleep(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            if self._closed:
                self._wake.set()
