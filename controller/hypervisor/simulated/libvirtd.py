"""The simulated daemon's side of connections: who is connected, what they hear, what strikes their calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from controller.hypervisor.driver import Disconnected, Event
from controller.hypervisor.simulated.faults import Faults, Moment, Side

if TYPE_CHECKING:
    from controller.hypervisor.simulated.driver import SimulatedDriver


class Libvirtd:
    """Connections, events and faults. The base of :class:`SimulatedHost`."""

    def __init__(self, hostname: str) -> None:
        self.hostname = hostname
        self.faults = Faults()
        self.libvirtd_runs = True
        self.revives_after: float | None = None
        """Seconds after which a libvirtd that was killed by a fault is started again; None: by the test."""
        self._drivers: list[SimulatedDriver] = []

    # Connections --------------------------------------------------------------------------------------

    def disconnect(self, reason: str = "Cannot recv data: Connection reset by peer") -> None:
        """Break all connections; everything else goes on."""
        for driver in self._drivers:
            driver.drop(Disconnected(reason))
        self._drivers.clear()

    def bury(self) -> None:
        """The controller is dead: nothing reaches it any more, and it reaches nothing."""
        for driver in self._drivers:
            driver.bury()
        self._drivers.clear()

    def leave(self, driver: SimulatedDriver) -> None:
        """A connection was closed."""
        if driver in self._drivers:
            self._drivers.remove(driver)

    def emit(self, event: Event) -> None:
        """Send an event to every connection."""
        for driver in tuple(self._drivers):
            driver.deliver(event)

    # Faults -------------------------------------------------------------------------------------------

    def fail_before(self, n: int, error: Exception, *, on: str | None = None, lasting: bool = False) -> None:
        """The ``n``-th changing call from now (or the ``n``-th call named ``on``) fails without effect; with
        ``lasting`` all later ones too, until ``faults.mend()``. An ``error`` that is no HypervisorError is
        one that the binding raises by itself, such as UnicodeDecodeError."""
        self.faults.add(n, Side.BEFORE, error, on, lasting=lasting)

    def fail_after(self, n: int, error: Exception, *, on: str | None = None) -> None:
        """The same call takes effect, and the caller gets ``error`` (OutcomeUnknown, as a rule)."""
        self.faults.add(n, Side.AFTER, error, on)

    def libvirtd_dies(self, n: int, moment: Moment, *, on: str | None = None) -> None:
        """libvirtd is killed at that call, when it has come so far with it. All callers see the connection
        break; QEMU goes on. It is back by itself if ``revives_after`` says so."""
        self.faults.add_death(n, moment, on)

    def before_call(self, name: str, act: Callable[[], None]) -> None:
        """Somebody else does ``act`` just before the next call of this name reaches the daemon."""
        self.faults.meanwhile.append((name, act))

    def kill_before(self, n: int, *, on: str | None = None) -> None:
        """The controller is killed as it makes that call: :class:`Killed`, without effect."""
        self.faults.add(n, Side.BEFORE, None, on)

    def kill_after(self, n: int, *, on: str | None = None) -> None:
        """The controller is killed after that call took effect, before it learns so."""
        self.faults.add(n, Side.AFTER, None, on)
