"""An event loop whose clock skips the time in which nothing would happen: a minute passes at once.

Everything here is in memory, so when no callback is ready, nothing can happen before the next timer is due.
Backoffs, settling and the 60 seconds of a vanished domain run with their real values, and no test sleeps.
"""

from __future__ import annotations

import asyncio
import selectors
from concurrent.futures import Executor
from typing import Any


class _SkippingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, sets the clock to it. A thread that works is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0
        self.threads = 0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0 or self.threads:
            return super().select(timeout)
        found = super().select(0)
        if not found:
            self.skipped += timeout
        return found


class SkippingLoop(asyncio.SelectorEventLoop):
    """See the module's docstring."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Seconds of a clock that runs on, and skips."""
        return super().time() + self._skipping.skipped

    def run_in_executor(self, executor: Executor | None, func: Any, *args: Any) -> asyncio.Future[Any]:
        """Let the clock run at its own pace while a thread works."""
        self._skipping.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self._skipping.threads -= 1
