"""The Lease in a thread with an event loop and connections of its own: renewed whatever the main loop does.

A main loop that is busy for seconds must not lose the Lease, and one that hangs must not keep it: it is
watched from here, and when it has made no turn for :data:`SILENCE` the Lease counts as lost.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar

from controller.kube.lease import Lease

log = logging.getLogger(__name__)

T = TypeVar("T")

SILENCE = 60.0
"""Seconds without a turn of the main loop after which nobody believes in it any more. The liveness probe,
which the main loop answers, is faster where somebody asks it."""

_BEAT = 1.0
"""Seconds between two questions to the main loop."""


class LeaseThread:
    """To be made, and used, in the main loop."""

    def __init__(
        self,
        lease: Lease,
        *,
        on_lost: Callable[[str], object],
        close: Callable[[], Awaitable[None]],
        silence: float = SILENCE,
        beat: float = _BEAT,
    ) -> None:
        """``on_lost`` is called in the thread, with the reason; ``close`` ends the Lease's connections."""
        self._lease = lease
        self._on_lost = on_lost
        self._close = close
        self._silence = silence
        self._beat = beat
        self._main = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lease", daemon=True)
        self._keeping: asyncio.Task[None] | None = None
        self._turned = monotonic()

    async def acquire(self) -> None:
        """Wait until the Lease is held; from then on it is kept."""
        self._thread.start()
        await self._there(self._take())

    async def release(self) -> None:
        """Give the Lease back, and end the thread."""
        await self._there(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    # In the thread.

    async def _take(self) -> None:
        await self._lease.acquire()
        self._turned = monotonic()
        self._keeping = self._loop.create_task(self._keep(), name="lease")

    async def _keep(self) -> None:
        """Renew and watch until one of them says that it is over. Any error is the end as well."""
        both = {self._loop.create_task(work) for work in (self._lease.keep(), self._watch())}
        try:
            ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
        first = ended.pop()
        self._on_lost(repr(first.exception()) if first.exception() else first.result())

    async def _watch(self) -> str:
        """Return when the main loop is dead."""
        while monotonic() - self._turned < self._silence:
            self._main.call_soon_threadsafe(self._turn)
            await asyncio.sleep(self._beat)
        return f"the event loop has made no turn for {self._silence:g} s"

    def _turn(self) -> None:
        """Called in the main loop."""
        self._turned = monotonic()

    async def _end(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        await self._lease.release()
        await self._close()
