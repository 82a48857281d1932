"""What is told of the work queue, under the names that dashboards know from client-go."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import monotonic

from controller.telemetry.metrics import Metrics


class QueueWatch:
    """Told by one queue of all that happens to its keys. Ages are told when somebody asks for the metrics, so
    a pass that hangs shows although nothing happens any more."""

    def __init__(self, metrics: Metrics, name: str, clock: Callable[[], float] = monotonic) -> None:
        """``name`` is the queue's, in the label ``name``; ``clock`` gives seconds."""
        self._clock = clock
        self._waiting: dict[Hashable, float] = {}
        self._running: dict[Hashable, float] = {}
        self._adds = metrics.queue_adds.labels(name)
        self._retries = metrics.queue_retries.labels(name)
        self._wait = metrics.queue_wait.labels(name)
        self._work = metrics.queue_work.labels(name)
        metrics.queue_depth.labels(name).set_function(lambda: len(self._waiting))
        metrics.queue_unfinished.labels(name).set_function(lambda: sum(self._ages()))
        metrics.queue_longest.labels(name).set_function(lambda: max(self._ages(), default=0.0))

    def added(self, key: Hashable) -> None:
        """A wake-up; the key waits from here on, unless it did already."""
        self._adds.inc()
        self._waiting.setdefault(key, self._clock())

    def covered(self, key: Hashable) -> None:
        """The run that is under way answers what the key waited for."""
        self._waiting.pop(key, None)

    def retried(self) -> None:
        """A run failed and is to be repeated."""
        self._retries.inc()

    def begun(self, key: Hashable) -> None:
        """The key's run begins."""
        now = self._clock()
        self._wait.observe(now - self._waiting.pop(key, now))
        self._running[key] = now

    def ended(self, key: Hashable) -> None:
        """The key's run has ended."""
        now = self._clock()
        self._work.observe(now - self._running.pop(key, now))

    def _ages(self) -> list[float]:
        now = self._clock()
        return [now - since for since in self._running.values()]
