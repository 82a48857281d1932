"""Runs the controller and counts what it changes on hypervisors; can have it killed at one of these calls.

    python -m tests.e2e.launcher CALLS [before|after METHOD NUMBER] -- FLAGS OF THE CONTROLLER

Every changing call of the libvirt driver is appended to the file CALLS, one method a line. With a kill
point, the process ends itself with SIGKILL before the NUMBER-th call of METHOD, or after the NUMBER-th one
that succeeded.
"""

from __future__ import annotations

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

CHANGING = ("set_metadata", "create_snapshot", "commit", "pull", "pivot", "abort", "flush", "remove_image")
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


def program(calls: Path, kill_point: KillPoint | None = None) -> list[str]:
    """For `lab.controller.Controller(program=…)`."""
    point = kill_point.arguments() if kill_point else []
    return [sys.executable, "-m", "tests.e2e.launcher", str(calls), *point, "--"]


def watch(calls: Path, kill_point: KillPoint | None) -> None:
    """Wrap the driver's methods. Raises AttributeError when the port has changed."""
    counts: Counter[tuple[str, str]] = Counter()

    def reached(side: str, method: str) -> None:
        counts[side, method] += 1
        if kill_point == KillPoint(side, method, counts[side, method]):
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(method: str, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def call(*arguments: Any, **named: Any) -> Any:
            with calls.open("a", encoding="ascii") as log:
                log.write(f"{method}\n")
            reached("before", method)
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
    kill_point = KillPoint(point[0], point[1], int(point[2])) if point else None
    Path(calls).touch()
    watch(Path(calls), kill_point)
    sys.argv[1:] = arguments[end + 1 :]
    run_controller()


if __name__ == "__main__":
    main(sys.argv[1:])
