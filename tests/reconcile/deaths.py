"""At which moments libvirtd can be killed, so that it makes a difference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.hypervisor.simulated import Call, Moment, SimulatedHost

WHOLE = (Moment.BEFORE, Moment.AFTER)
"""Moments at which libvirt and QEMU agree."""
_MOMENTS = {
    "create_snapshot": (Moment.BEFORE, Moment.STARTED, Moment.UNNOTED, Moment.LIVE, Moment.AFTER),
    "pivot": (Moment.BEFORE, Moment.UNNOTED, Moment.LIVE, Moment.AFTER),
    "set_metadata": (Moment.BEFORE, Moment.LIVE, Moment.AFTER),
}
_AT_AN_END = (Moment.UNNOTED, Moment.CLEANED, Moment.LIVE, Moment.AFTER)


@dataclass(frozen=True)
class Death:
    """libvirtd is killed at the call of this number, or at the end of the job of this number."""

    number: int
    moment: Moment
    what: str
    at_an_end: bool = False

    def __str__(self) -> str:
        return f"killed at {self.what} (number {self.number}): {self.moment}"

    def arm(self, host: SimulatedHost) -> None:
        if self.at_an_end:
            host.libvirtd_dies_at_an_end(self.number, self.moment)
        else:
            host.libvirtd_dies(self.number, self.moment)


def moments(call: Call) -> tuple[Moment, ...]:
    """At which moments of a call libvirtd can die so that it makes a difference."""
    if call.arguments.get("relative"):
        return (Moment.BEFORE,)  # refused by these chains of absolute names
    if call.name == "commit" and call.arguments["top"] is None:
        return (Moment.BEFORE, Moment.UNNOTED, Moment.AFTER)
    return _MOMENTS.get(call.name, WHOLE)


def deaths(calls: Iterable[Call], ends: int) -> list[Death]:
    """All of them, on a way that makes these calls and ends so many commits below and pulls."""
    found = [
        Death(number, moment, str(call)) for number, call in enumerate(calls, 1) for moment in moments(call)
    ]
    return found + [
        Death(number, moment, "the end of a job", at_an_end=True)
        for number in range(1, ends + 1)
        for moment in _AT_AN_END
    ]
