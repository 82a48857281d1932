"""Waiting for an external process that sends no event: a bounded poll with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from lab.errors import LabError

T = TypeVar("T")


def wait_until(
    check: Callable[[], T | None],
    *,
    timeout: float,
    what: str,
    interval: float = 0.02,
    failed: Callable[[], str | None] | None = None,
) -> T:
    """Return the first true value of `check`, asked every `interval` seconds for at most `timeout` seconds.

    `failed` is asked as well: a text from it ends the wait at once (the process that was to answer is gone).
    Raises LabError with `what` in its text, naming the last value seen is the caller's business.
    """
    deadline = time.monotonic() + timeout
    pause = Event()  # never set: Event.wait is an interruptible pause
    while True:
        value = check()
        if value:
            return value
        reason = failed() if failed else None
        if reason is not None:
            raise LabError(f"{what}: {reason}")
        if time.monotonic() >= deadline:
            raise LabError(f"{what}: not within {timeout:g} s")
        pause.wait(interval)
