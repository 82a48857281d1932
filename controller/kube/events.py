"""Events about objects: on transitions, each once, and never in the way of a pass."""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from controller.kube.errors import KubeError
from controller.kube.kinds import Raw, uid_of
from controller.kube.port import EventType, KubeClient
from controller.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

CAPACITY = 1000
"""Events that may wait to be written; more are dropped, since conditions say the same."""

WINDOW = 600.0
"""Seconds in which the same words about the same object are not written again."""

REMEMBERED = 10_000
"""Events whose repetition is noticed; beyond, the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class _Note:
    regarding: Raw
    type: EventType
    reason: str
    action: str
    note: str


class EventRecorder:
    """Takes events at once and writes them in the background, in order, one at a time."""

    def __init__(
        self, client: KubeClient, metrics: Metrics, *, clock: Callable[[], float] = monotonic
    ) -> None:
        """Nothing is written before :meth:`start`; what was recorded until then waits."""
        self._client = client
        self._metrics = metrics
        self._clock = clock
        self._queue: asyncio.Queue[_Note] = asyncio.Queue(CAPACITY)
        self._written: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write. Needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._write_all(), name="events")

    def normal(self, regarding: Raw, reason: str, action: str, note: str) -> None:
        """Record that something went as it should. Returns at once; see :meth:`record`."""
        self.record(regarding, "Normal", reason, action, note)

    def warning(self, regarding: Raw, reason: str, action: str, note: str) -> None:
        """Record that something is wrong or waits. Returns at once; see :meth:`record`."""
        self.record(regarding, "Warning", reason, action, note)

    def record(self, regarding: Raw, type_: EventType, reason: str, action: str, note: str) -> None:
        """Record an event; ``reason`` and ``action`` are CamelCase, ``note`` is a sentence for people.

        Dropped when the same reason and note were recorded about the object within :data:`WINDOW`, or (with a
        log line and a metric) when too many wait.
        """
        key = (uid_of(regarding), reason, note)
        now = self._clock()
        last = self._written.get(key)
        if last is not None and now - last < WINDOW:
            return
        try:
            self._queue.put_nowait(_Note(_reference(regarding), type_, reason, action, note))
        except asyncio.QueueFull:
            self._drop("overfull", reason, "too many events wait to be written")
            return
        self._written[key] = now
        self._written.move_to_end(key)
        if len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    async def stop(self, seconds: float) -> None:
        """Write what waits, for at most so many seconds, then end."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), seconds)
        if left := self._queue.qsize():
            log.warning("events were not written before the end", extra={"count": left})
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _write_all(self) -> None:
        while True:
            note = await self._queue.get()
            try:
                await self._client.create_event(
                    note.regarding, note.type, note.reason, note.action, note.note
                )
            except KubeError as error:
                self._drop("failed", note.reason, str(error))
            finally:
                self._queue.task_done()

    def _drop(self, cause: str, reason: str, problem: str) -> None:
        self._metrics.events_dropped.labels(cause).inc()
        log.warning("an event was dropped", extra={"reason": reason, "problem": problem})


def _reference(raw: Raw) -> Raw:
    """What an Event needs to know of its object, so that a waiting one does not keep it in memory."""
    meta = raw["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in meta}
    return {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": kept}
