"""What a test can make go wrong at a call, and the record of all calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Killed(BaseException):
    """The controller process was ended by SIGKILL at this instant.

    Not an Exception, because no handler of the controller gets to run. A driver that raised it answers every
    later call with it, so that no ``finally`` of the dead controller reaches the host either.
    """


class Side(StrEnum):
    """On which side of its effect a call is struck."""

    BEFORE = "before"
    AFTER = "after"


class Moment(StrEnum):
    """How far libvirtd had come with a call, or with the end of a job, when it was killed."""

    BEFORE = "before"
    """Nothing was done."""
    STARTED = "prepared in QEMU"
    """A take: its overlay is made and open in QEMU, and no disk uses it. For the rest there is no such
    moment."""
    UNNOTED = "in QEMU, not noted"
    """QEMU has done it, and libvirt has noted nothing of it."""
    CANCELED = "in QEMU, noted that it is canceled"
    """An abort of an active commit: libvirt has noted that, and not yet that the job has ended."""
    CLEANED = "cleaned up in QEMU, not noted"
    """The same for the end of a merge, and QEMU has closed what left the chain."""
    LIVE = "noted live, not stored"
    """The state of the running machine is noted, the stored definition is as it was."""
    AFTER = "after"
    """All is noted; only the answer was not given."""


@dataclass(frozen=True)
class Call:
    """One call on a driver. ``number`` counts the changing calls from 1; 0 for a call that only reads."""

    name: str
    arguments: Mapping[str, object]
    number: int

    @property
    def changing(self) -> bool:
        """Whether the call may change the host."""
        return self.number > 0

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"


@dataclass
class _Fault:
    remaining: int
    """Matching calls until it strikes."""
    side: Side
    error: Exception | None
    """None kills the controller."""
    on: str | None
    lasting: bool
    """It strikes every call from then on, until it is mended."""
    moment: Moment | None = None
    """libvirtd is what dies, when it has come so far."""

    def matches(self, call: Call) -> bool:
        return call.changing if self.on is None else call.name == self.on


@dataclass
class Faults:
    """The calls made so far and the faults still to come."""

    calls: list[Call] = field(default_factory=list)
    struck: list[Call] = field(default_factory=list)
    """Calls at which a fault happened, oldest first."""
    deaths: list[Moment] = field(default_factory=list)
    """Moments at which libvirtd was killed by a fault, oldest first."""
    meanwhile: list[tuple[str, Callable[[], None]]] = field(default_factory=list)
    """What somebody else does just before a call of this name; see :meth:`Libvirtd.before_call`."""
    _numbered: int = 0
    _waiting: list[_Fault] = field(default_factory=list)

    @property
    def changes(self) -> list[Call]:
        """The calls that may have changed something."""
        return [call for call in self.calls if call.changing]

    def forget(self) -> None:
        """Start counting anew; waiting faults are dropped."""
        self.calls.clear()
        self.struck.clear()
        self._waiting.clear()
        self._numbered = 0

    def mend(self) -> None:
        """Nothing goes wrong any more; the record stays."""
        self._waiting.clear()

    def add(
        self, n: int, side: Side, error: Exception | None, on: str | None = None, *, lasting: bool = False
    ) -> None:
        """Strike the ``n``-th call from now: of the changing ones, or of those named ``on``; with ``lasting``
        that one and all later ones, until :meth:`mend`."""
        if n < 1:
            raise ValueError(f"calls are counted from 1, got {n}")
        self._waiting.append(_Fault(n, side, error, on, lasting))

    def add_death(self, n: int, moment: Moment, on: str | None = None) -> None:
        """libvirtd dies at the ``n``-th call, counted as for :meth:`add`."""
        side = Side.BEFORE if moment is Moment.BEFORE else Side.AFTER
        self._waiting.append(_Fault(n, side, None, on, False, moment))

    def record(self, name: str, arguments: Mapping[str, object], *, changing: bool) -> Call:
        """Log a call that is about to be made."""
        if changing:
            self._numbered += 1
        call = Call(name, arguments, self._numbered if changing else 0)
        self.calls.append(call)
        for waiting in [one for one in self.meanwhile if one[0] == name]:
            self.meanwhile.remove(waiting)
            waiting[1]()
        for fault in self._waiting:
            if fault.matches(call) and (fault.remaining or not fault.lasting):
                fault.remaining -= 1
        return call

    def dies_in(self, call: Call) -> bool:
        """Whether libvirtd dies in the middle of this call or at its end."""
        return any(
            fault.remaining == 0 and fault.moment and fault.side is Side.AFTER and fault.matches(call)
            for fault in self._waiting
        )

    def strike(self, call: Call, side: Side) -> _Fault | None:
        """The fault that is due at this side of ``call``; once, unless it lasts."""
        for fault in self._waiting:
            if fault.remaining == 0 and fault.side is side and fault.matches(call):
                if not fault.lasting:
                    self._waiting.remove(fault)
                self.struck.append(call)
                return fault
        return None
