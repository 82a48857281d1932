"""What the watches heard, on its way to the loop that acts on it: newest only, in turns, a little at a time.

The watches have a thread of their own and bring as much as there is. Handed over event by event, 5,000 of
them would run in one turn of the main loop, and everything else would wait for the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from time import perf_counter

from controller.kube.kinds import Kind, Raw

log = logging.getLogger(__name__)

PIECE_SECONDS = 0.01
"""So long events are taken in one turn of the loop."""

_Event = tuple[Kind, str | None, Raw]
_Key = tuple[Kind, str]


class Inbox:
    """Put from any thread; taken in the loop that it was made in."""

    def __init__(
        self, take: Callable[[Kind, str | None, Raw], None], *, clock: Callable[[], float] = perf_counter
    ) -> None:
        self._take = take
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._lanes: OrderedDict[str, OrderedDict[_Key, _Event]] = OrderedDict()
        """By namespace, the newest event of each object, in the order in which the objects came."""
        self._due = False

    def put(self, kind: Kind, type_: str | None, raw: Raw) -> None:
        """Hand over an event; an older one of the same object that was not taken yet is forgotten."""
        meta = raw["metadata"]
        with self._lock:
            lane = self._lanes.setdefault(meta.get("namespace") or "", OrderedDict())
            lane[kind, meta["uid"]] = (kind, type_, raw)
            due, self._due = self._due, True
        if not due:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody wants to hear any more
                self._loop.call_soon_threadsafe(self._some)

    def _some(self) -> None:
        """Take what can be taken in one turn; the rest in the next one."""
        until = self._clock() + PIECE_SECONDS
        while (event := self._next()) is not None:
            try:
                self._take(*event)
            except Exception:  # a defect with one object must not end the hearing of all others
                log.exception("an event was not understood")
            if self._clock() >= until:
                self._loop.call_soon(self._some)
                return

    def _next(self) -> _Event | None:
        """The oldest of the next namespace."""
        with self._lock:
            if not self._lanes:
                self._due = False
                return None
            name, lane = next(iter(self._lanes.items()))
            _, event = lane.popitem(last=False)
            if lane:
                self._lanes.move_to_end(name)
            else:
                del self._lanes[name]
            return event
