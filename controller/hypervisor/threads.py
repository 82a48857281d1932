"""Blocking calls on threads of their own, with deadlines, so that one that never returns harms nobody else.

A libvirt call can hang for as long as a daemon, a QEMU or a storage server does, and a hung call cannot be
taken back. So every connection has its own few daemon threads (they never hold up the exit of the process),
every call has a deadline, and a call that passed it is remembered by what it was about until it returns:
nothing more is sent to that domain meanwhile. At most one thread is lost for each thing that hangs.

(``concurrent.futures.ThreadPoolExecutor`` would join its threads at exit, hung or not.)
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, TypeVar

from controller.hypervisor.errors import Busy, HypervisorError, OutcomeUnknown, Unreachable

T = TypeVar("T")

CONNECTION = "connection"
"""The key of calls about the connection itself. Unanswered, they mean Unreachable and not Busy."""

_MOST_GIVEN_UP = 3
"""How many calls of one key may hang at once when ``retry_after`` allows another one."""


class _State(Enum):
    WAITING = auto()
    RUNNING = auto()
    GIVEN_UP = auto()
    FINISHED = auto()


@dataclass(eq=False)
class Call:
    """One blocking call. ``began`` is the wall clock when a thread took it, ``taken`` the monotonic one."""

    key: str
    what: str
    function: Callable[[], Any]
    future: asyncio.Future[Any]
    state: _State = _State.WAITING
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    taken: float = field(default_factory=time.monotonic)

    def describe(self) -> str:
        """For people: what has not answered, and since when. The same words each time: they are compared."""
        return f"{self.what} has not answered since {self.began:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(eq=False)
class Progress:
    """What a call that asks about one thing after the other is at. Written by the call's thread."""

    key: str
    what: str
    steps: int = 0
    given_up: bool = False
    """Nobody waits for the call any more: it should ask no further."""

    def at(self, key: str, what: str) -> None:
        """The next question is about ``key``."""
        self.key, self.what = key, what
        self.steps += 1


class Unanswered:
    """The calls that were given up and still run, by key. Shared by successive connections to one hypervisor:
    a new connection must not send what the old one still waits for. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def remove(self, call: Call) -> None:
        with self._lock:
            self._calls.remove(call)

    def calls(self, key: str) -> list[Call]:
        """The calls about ``key`` that still hang, oldest first."""
        with self._lock:
            return [call for call in self._calls if call.key == key]

    def refuse(self, key: str, *, retry_after: float | None = None) -> None:
        """Raise Busy (or Unreachable for the connection) while a call about ``key`` hangs.

        With ``retry_after`` (seconds) a hanging call stops blocking at that age, unless too many hang: the
        answer of a machine that lost its power in mid-sentence never comes.
        """
        calls = self.calls(key)
        if not calls:
            return
        old = retry_after is not None and time.monotonic() - calls[-1].taken > retry_after
        if old and len(calls) < _MOST_GIVEN_UP:
            return
        error = Unreachable if key == CONNECTION else Busy
        raise error(f"{calls[0].describe()}; nothing more is sent there until it does")


class CallThreads:
    """A few daemon threads for the calls to one hypervisor.

    ``size`` leaves most of libvirtd's 20 workers (its default) to others. One thread is kept for calls about
    the connection, so that slow or hung domains do not make the whole hypervisor look dead.
    """

    def __init__(
        self,
        name: str,
        unanswered: Unanswered,
        *,
        size: int = 8,
        ending: Callable[[], object] = lambda: None,
        late: Callable[[str], object] = lambda _: None,
    ) -> None:
        """``ending`` runs on each thread before it ends, to let go of what belongs to the thread. ``late``
        gets the key of each call that returned after it was given up, on the call's thread."""
        self._ending = ending
        self._late_answer = late
        self._name = name
        self._unanswered = unanswered
        self._size = size
        self._wake = threading.Condition()
        self._waiting: deque[Call] = deque()
        self._threads = 0
        self._running = 0
        self._busy = 0
        self._given_up = 0
        self._closed = False
        self._last: Callable[[], object] | None = None

    async def run(
        self,
        function: Callable[[], T],
        *,
        key: str,
        what: str,
        deadline: float,
        changing: bool = False,
        retry_after: float | None = None,
        progress: Progress | None = None,
        patience: float = 0.0,
    ) -> T:
        """Run ``function`` on a thread and return what it returns or raise what it raises.

        ``what`` names the call for people. After ``deadline`` seconds, or when the caller is cancelled, the
        call is given up: it goes on, its result is dropped, and until it returns :class:`Unanswered` refuses
        its ``key``. One with ``progress`` is given up as well when it makes none for ``patience`` seconds,
        and what it is at is refused then. Raises OutcomeUnknown when a ``changing`` call is given up,
        Busy or Unreachable when a reading one is or when nothing was sent.
        """
        self._refuse(key, what, retry_after)
        call = Call(key, what, function, asyncio.get_running_loop().create_future())
        # An answer that comes while its caller is being cancelled has no reader: mark it as seen.
        call.future.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._submit(call)
        try:
            waited = await _wait(call, deadline, progress, patience)
        except asyncio.CancelledError:
            self._give_up(call, progress)
            raise
        if waited is not None:
            before = self._give_up(call, progress)
            if before is not _State.FINISHED:
                raise self._late(call, before, waited, changing=changing)
        return await call.future  # type: ignore[no-any-return]  # Call is not generic: the deque mixes them

    def close(self, last: Callable[[], object]) -> None:
        """End the idle threads; a thread in a call ends when the call returns. Waiting calls are not sent.

        ``last`` runs on the last thread to end: nothing uses the connection any more. Closing twice is
        allowed; only the first ``last`` counts.
        """
        with self._wake:
            if self._closed:
                return
            self._closed, self._last = True, last
            waiting, self._waiting = list(self._waiting), deque()
            for call in waiting:
                call.state = _State.FINISHED
            if not self._threads:
                self._start()
            self._wake.notify_all()
        for call in waiting:
            _deliver(call, None, Unreachable("the connection was closed before the call was sent"))

    @property
    def threads(self) -> int:
        """How many threads exist now, hung ones included."""
        with self._wake:
            return self._threads

    def _refuse(self, key: str, what: str, retry_after: float | None) -> None:
        self._unanswered.refuse(key, retry_after=retry_after)
        with self._wake:
            if self._closed:
                raise Unreachable("the connection is closed")
            if key != CONNECTION and self._given_up >= self._size - 1:
                raise Busy(
                    f"{what} is not sent: {self._given_up} calls on this hypervisor have no answer yet"
                )

    def _submit(self, call: Call) -> None:
        with self._wake:
            self._waiting.append(call)
            if self._threads - self._running < len(self._waiting) and self._threads < self._size:
                self._start()
            self._wake.notify()

    def _start(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=f"libvirt-{self._name}", daemon=True).start()

    def _give_up(self, call: Call, progress: Progress | None) -> _State:
        """Stop waiting for ``call``; return the state that it was in."""
        with self._wake:
            before = call.state
            if before is _State.WAITING:
                with contextlib.suppress(ValueError):  # closed meanwhile
                    self._waiting.remove(call)
            elif before is _State.RUNNING:
                if progress is not None:
                    progress.given_up = True
                    call.key, call.what = progress.key, progress.what
                self._given_up += call.key != CONNECTION
                self._unanswered.add(call)
                call.state = _State.GIVEN_UP
            return before

    def _late(self, call: Call, before: _State, deadline: float, *, changing: bool) -> HypervisorError:
        if before is _State.WAITING:
            return Busy(f"{call.what} was not sent: other calls on this hypervisor took {deadline:g} s")
        message = f"{call.what} has not answered for {deadline:g} s"
        if changing:
            return OutcomeUnknown(message)
        return Unreachable(message) if call.key == CONNECTION else Busy(message)

    # On the threads -----------------------------------------------------------------------------------

    def _work(self) -> None:
        while (call := self._next()) is not None:
            self._perform(call)
            del call  # or the last result would live on while the thread is idle
        self._ending()
        with self._wake:
            self._threads -= 1
            last = self._last if not self._threads else None
        if last is not None:
            last()

    def _next(self) -> Call | None:
        with self._wake:
            while (call := self._sendable()) is None and not self._closed:
                self._wake.wait()
            if call is None:
                return None
            self._waiting.remove(call)
            self._running += 1
            self._busy += call.key != CONNECTION
            call.state, call.began, call.taken = _State.RUNNING, datetime.now(UTC), time.monotonic()
            return call

    def _sendable(self) -> Call | None:
        """The first waiting call that may go now, leaving one thread to calls about the connection."""
        full = self._busy >= self._size - 1
        return next((call for call in self._waiting if call.key == CONNECTION or not full), None)

    def _perform(self, call: Call) -> None:
        result, error = None, None
        try:
            result = call.function()
        except BaseException as raised:  # noqa: BLE001 (handed to the caller, whatever it is)
            error = raised
        with self._wake:
            given_up = call.state is _State.GIVEN_UP
            call.state = _State.FINISHED
            self._running -= 1
            self._busy -= call.key != CONNECTION
            self._given_up -= given_up and call.key != CONNECTION
            self._wake.notify()  # one that had to wait because of this one may go
        if not given_up:
            _deliver(call, result, error)
            return
        self._unanswered.remove(call)
        self._late_answer(call.key)


async def _wait(call: Call, deadline: float, progress: Progress | None, patience: float) -> float | None:
    """Wait for the answer; how many seconds in vain when there is none, else None."""
    clock = asyncio.get_running_loop().time
    end = clock() + deadline
    while True:
        steps = progress.steps if progress is not None else 0
        pause = end - clock() if progress is None else min(patience, end - clock())
        done, _ = await asyncio.wait({call.future}, timeout=max(pause, 0.0))
        if done:
            return None
        if clock() >= end:
            return deadline
        if progress is not None and progress.steps == steps > 0:
            return patience


def _deliver(call: Call, result: object, error: BaseException | None) -> None:
    """Complete the future on its loop's thread."""

    def complete() -> None:
        if call.future.done():
            return
        if error is not None:
            call.future.set_exception(error)
        else:
            call.future.set_result(result)

    # A closed loop has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        call.future.get_loop().call_soon_threadsafe(complete)
