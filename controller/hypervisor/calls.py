"""Calls to one daemon: each is one hop to a thread of this connection, with a deadline, and its errors
translated."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import libvirt

from controller.hypervisor.connections import Connections
from controller.hypervisor.events import Take
from controller.hypervisor.threads import CONNECTION, CallThreads, Progress, Unanswered
from controller.hypervisor.timing import Timing

T = TypeVar("T")
Function = Callable[[libvirt.virConnect], T]


class Calls:
    """Use from one event loop."""

    def __init__(
        self, uri: str, unanswered: Unanswered, timing: Timing, *, late: Callable[[str], object]
    ) -> None:
        """``late`` gets the key of each call that returned after it was given up, on the call's thread."""
        self._timing = timing
        self._loop = asyncio.get_running_loop()
        self._connections = Connections(
            uri, keepalive_interval=timing.keepalive_interval, keepalive_count=timing.keepalive_count
        )
        self._threads = CallThreads(uri, unanswered, ending=self._connections.hang_up, late=late)
        self._closed: asyncio.Future[None] | None = None

    async def open(self, take: Take, *, retry_after: float) -> None:
        """Connect; ``take`` gets the events, on libvirt's thread. ``retry_after``: see
        :meth:`CallThreads.run`."""
        await self._threads.run(
            lambda: self._connections.open(take),
            key=CONNECTION,
            what="opening the connection",
            deadline=self._timing.connect,
            retry_after=retry_after,
        )

    @property
    def ended(self) -> bool:
        """Whether :meth:`end` was called."""
        return self._closed is not None

    def end(self) -> asyncio.Future[None]:
        """Let the threads end and the last one close the connection; done when it has."""
        if self._closed is None:
            self._closed = self._loop.create_future()
            self._threads.close(self._disconnect)
        return self._closed

    def _disconnect(self) -> None:
        """On the last thread to end: nothing uses the connections any more."""
        self._connections.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._closed_now)

    def _closed_now(self) -> None:
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    async def ask(
        self, what: str, function: Function[T], *, key: str = CONNECTION, deadline: float | None = None
    ) -> T:
        """A call that changes nothing. ``what`` names it for people, ``key`` what it is about."""
        return await self.run(what, function, key=key, deadline=deadline or self._timing.read, changing=False)

    async def change(self, uuid: str, what: str, function: Callable[[libvirt.virDomain], object]) -> None:
        """A call that changes a domain."""

        def call(connection: libvirt.virConnect) -> None:
            function(connection.lookupByUUIDString(uuid))

        await self.run(f"{what} (domain {uuid})", call, key=uuid, deadline=self._timing.change, changing=True)

    async def definitions(
        self, what: str, function: Function[T], *, key: str, progress: Progress | None = None
    ) -> T:
        """A call about one machine after the other, each of which is waited for only so long."""
        patience = self._timing.definition
        deadline = patience if progress is None else self._timing.sweep
        return await self.run(
            what, function, key=key, deadline=deadline, changing=False, progress=progress, patience=patience
        )

    async def run(
        self,
        what: str,
        function: Function[T],
        *,
        key: str,
        deadline: float,
        changing: bool,
        progress: Progress | None = None,
        patience: float = 0.0,
    ) -> T:
        """Any call. Raises HypervisorError, see :meth:`CallThreads.run`."""
        return await self._threads.run(
            lambda: self._connections.ask(what, function, changing=changing),
            key=key,
            what=what,
            deadline=deadline,
            changing=changing,
            progress=progress,
            patience=patience,
        )
