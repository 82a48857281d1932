"""One connection to the simulated daemon: the events that it delivers, and what every call goes through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

from controller.chain.observation import JobKind
from controller.hypervisor.driver import Disconnected, Event, EventSink, Lifecycle, LifecycleKind
from controller.hypervisor.errors import (
    Busy,
    HypervisorError,
    NoStorageDriver,
    OutcomeUnknown,
    Unreachable,
)
from controller.hypervisor.misread import misread
from controller.hypervisor.simulated.faults import Killed, Moment, Side
from controller.hypervisor.simulated.machine import Machine
from controller.hypervisor.simulated.notes import Notes

if TYPE_CHECKING:
    from controller.hypervisor.simulated.host import SimulatedHost

NO_STORAGE_DAEMON = "Failed to connect socket to '/run/libvirt/virtstoraged-sock': No such file or directory"
_SAME = frozenset({LifecycleKind.SUSPENDED, LifecycleKind.RESUMED, LifecycleKind.OTHER})


class Connection:
    """One connection. Without a sink it is somebody else's: its calls are neither recorded nor struck."""

    def __init__(self, host: SimulatedHost, sink: EventSink | None) -> None:
        self._host = host
        self._sink = sink
        self._broken: BaseException | None = None
        self._deaf = False
        self._said: dict[str, tuple[str, ...]] = {}
        """What each machine last said of itself, unless an event tells that it may be different by now."""
        self._loop = asyncio.get_running_loop() if sink is not None else None

    # Events -------------------------------------------------------------------------------------------

    def deliver(self, event: Event) -> None:
        """Hand an event to the sink on the loop's next iteration, as a libvirt event arrives from outside."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(self._arrive, event)

    def _arrive(self, event: Event) -> None:
        if isinstance(event, Lifecycle) and event.kind not in _SAME:
            self._said.pop(event.uuid, None)
        if self._sink is not None and not self._deaf:
            self._sink(event)

    def drop(self, event: Disconnected) -> None:
        """The connection is lost."""
        self.deliver(event)
        self._broken = Unreachable(f"the connection is closed: {event.reason}", code=38)

    def bury(self) -> None:
        """The process that owned this connection is dead."""
        self._broken = Killed("killed earlier")
        self._deaf = True

    # Every call ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _call(self, name: str, /, *, changing: bool, **arguments: object) -> AsyncIterator[None]:
        """Let others run, record the call, strike it if a fault is due on either side of its effect."""
        await asyncio.sleep(0)
        if self._broken is not None:
            raise self._broken
        if self._sink is None:
            yield
            return
        faults = self._host.faults
        call = faults.record(name, arguments, changing=changing)
        noted = self._host.notes() if faults.dies_in(call) else None
        for side in Side:
            if side is Side.AFTER:
                yield
            fault = faults.strike(call, side)
            if fault is not None and fault.moment is not None:
                self._die(fault.moment, noted, changing=changing)
            elif fault is not None:
                self._strike(fault.error, f"{side} {call}", changing=changing)

    def _die(self, moment: Moment, noted: Notes | None, *, changing: bool = True) -> NoReturn:
        """libvirtd is killed in the middle of a call."""
        self._host.die(moment, noted)
        error = OutcomeUnknown if changing else Unreachable
        raise error("End of file while reading data: Input/output error", code=38)

    def _strike(self, error: Exception | None, where: str, *, changing: bool) -> None:
        if error is not None:
            known = isinstance(error, HypervisorError)
            raise error if known else misread(error, where, changing=changing)
        self._host.bury()
        raise Killed(where)

    def _apart_from_pulls(self, uuid: str, *, pulling: bool = False) -> Machine:
        """The domain, left alone while a disk is pulled; no pull begins beside any job. As the real driver,
        which keeps QEMU 7.2 from crashing so (ADR 6)."""
        machine = self._unlocked(uuid)
        busy = [disk.target for disk, job in machine.jobs() if pulling or job.kind is JobKind.PULL]
        if busy:
            raise Busy(f"disk {', '.join(busy)} of this machine has a job that must end first")
        return machine

    def _unlocked(self, uuid: str) -> Machine:
        """The domain, with its lock. Raises DomainGone, or Busy as libvirt does after 30 s of waiting."""
        machine = self._host.machine(uuid)
        held = machine.process.job_active if machine.process else ""
        require_lock(machine.locked_by or held or ("a job that does not end" if machine.hung else ""))
        return machine

    def _require_storage_daemon(self) -> None:
        if not self._host.storage_daemon:
            raise NoStorageDriver(NO_STORAGE_DAEMON)

    async def _documents_of(self, machine: Machine, deadline: float) -> bool:
        """Wait until libvirt gives the documents of the domain; False when it has not for so many seconds."""
        if machine.hung is None:
            return True
        try:
            async with asyncio.timeout(deadline):
                await machine.hung.wait()
        except TimeoutError:
            machine.given_up = True
            return False
        return True


def require_lock(holder: str) -> None:
    if holder:
        raise Busy(
            f"Timed out during operation: cannot acquire state change lock (held by monitor={holder})",
            code=68,
        )
