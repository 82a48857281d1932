"""Runs the controller and counts what it changes on hypervisors; can have it killed at one of these calls.

    python -m tests.e2e.launcher CALLS [before|after|hold METHOD WHAT] -- FLAGS OF THE CONTROLLER

Every changing call of the libvirt driver is appended to the file CALLS, one method a line. With a kill
point, the process ends itself with SIGKILL before the WHAT-th call of METHOD, or after the WHAT-th one
that succeeded. With a hold, the first call of METHOD waits until somebody opens the FIFO called WHAT for
writing.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.__main__ import main as run_controller
from controller.hypervisor.libvirt_driver import LibvirtDriver

CHANGING = (
    "set_metadata",
    "define",
    "create_snapshot",
    "commit",
    "pull",
    "pivot",
    "abort",
    "flush",
    "remove_image",
)
"""The methods of the port that change something (`controller.hypervisor.driver`)."""


@dataclass(frozen=True)
class KillPoint:
    """`side`: "before" the `number`-th call (from 1) of `method`, or "after" the `number`-th success."""

    side: str
    method: str
    number: int

    def arguments(self) -> list[str]:
        """As this program takes it."""
        return [self.side, self.method, str(self.number)]


@dataclass(frozen=True)
class Hold:
    """The first call of `method` waits until `fifo` is opened for writing."""

    method: str
    fifo: Path

    def arguments(self) -> list[str]:
        """As this program takes it."""
        return ["hold", self.method, str(self.fifo)]

    def release(self) -> None:
        """Let it go on; waits until it is there."""
        self.fifo.write_text("go", encoding="ascii")


def program(calls: Path, at: KillPoint | Hold | None = None) -> list[str]:
    """For `lab.controller.Controller(program=…)`."""
    point = at.arguments() if at else []
    return [sys.executable, "-m", "tests.e2e.launcher", str(calls), *point, "--"]


def watch(calls: Path, at: KillPoint | Hold | None) -> None:
    """Wrap the driver's methods. Raises AttributeError when the port has changed."""
    counts: Counter[tuple[str, str]] = Counter()

    def reached(side: str, method: str) -> None:
        counts[side, method] += 1
        if at == KillPoint(side, method, counts[side, method]):
            os.kill(os.getpid(), signal.SIGKILL)

    async def held(method: str) -> None:
        if isinstance(at, Hold) and at.method == method and counts["before", method] == 1:
            await asyncio.to_thread(at.fifo.read_text, encoding="ascii")

    def wrapped(method: str, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def call(*arguments: Any, **named: Any) -> Any:
            with calls.open("a", encoding="ascii") as log:
                log.write(f"{method}\n")
            reached("before", method)
            await held(method)
            result = await original(*arguments, **named)
            reached("after", method)
            return result

        return call

    for method in CHANGING:
        setattr(LibvirtDriver, method, wrapped(method, getattr(LibvirtDriver, method)))


def main(arguments: Sequence[str]) -> None:
    """Take our own arguments off and become the controller."""
    end = arguments.index("--")
    calls, *point = arguments[:end]
    Path(calls).touch()
    watch(Path(calls), _parsed(*point) if point else None)
    sys.argv[1:] = arguments[end + 1 :]
    run_controller()


def _parsed(side: str, method: str, what: str) -> KillPoint | Hold:
    return Hold(method, Path(what)) if side == "hold" else KillPoint(side, method, int(what))


if __name__ == "__main__":
    main(sys.argv[1:])
