"""One hypervisor, kept connected: the reconciler's view of a daemon that comes and goes.

A :class:`Host` connects, reconnects with backoff, keeps the inventory of domains and says in words why it
has no connection. It works with anything that implements the port, real or simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from controller.hypervisor.driver import (
    Disconnected,
    DomainRef,
    Driver,
    Event,
    EventSink,
    Facts,
    Lifecycle,
    LifecycleKind,
)
from controller.hypervisor.errors import HypervisorError, Unreachable

_log = logging.getLogger(__name__)

Connector = Callable[[EventSink], Awaitable[Driver]]
"""Opens one connection whose events go to the sink. Raises Unreachable with a message for people; it must
raise within some seconds whatever the other side does."""

Doorbell = Callable[[], Awaitable[bool]]
"""Whether there is somebody to connect to, by a question so cheap that it may be asked each second. It says
nothing of whether a connection will work."""

_CHASES = 5
"""How often a listing is repeated at once because the inventory changed while it was made."""


@dataclass(frozen=True)
class Supervision:
    """Times in seconds. Delays are drawn between half and the whole of the backoff."""

    first_delay: float = 0.5
    most_delay: float = 30
    ring_every: float = 1.5
    """How often the doorbell is rung while there is no connection, where there is one."""
    check_every: float = 20
    """How often the inventory is listed without a cause. It repairs lost events, and a daemon that does not
    answer it is taken for dead."""


@dataclass(frozen=True)
class HostStatus:
    """The connection as it is now. ``message`` is for people; ``since``: last change of ``connected``."""

    connected: bool
    message: str
    since: datetime
    facts: Facts | None = None
    """What the daemon said of itself, now or when it was last connected."""
    synced: bool = False
    """The inventory is complete and current: what it does not list is not there."""
    tried: bool = False
    """The first attempt to connect has ended, well or not."""


@dataclass
class _Link:
    """One connection from its first event to its loss."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    lost: str | None = None


class Host:
    """Supervises the connection to the hypervisor ``name``.

    ``on_event`` gets every event of the connection, ``on_change`` a call whenever :attr:`status` or the
    inventory changed; both get the name first, run on the loop and must not block or raise.
    """

    def __init__(
        self,
        name: str,
        connect: Connector,
        *,
        on_event: Callable[[str, Event], None],
        on_change: Callable[[str], None],
        supervision: Supervision | None = None,
        doorbell: Doorbell | None = None,
    ) -> None:
        self.name = name
        self._connect = connect
        self._doorbell = doorbell
        self._on_event = on_event
        self._on_change = on_change
        self._supervision = supervision or Supervision()
        self._status = HostStatus(connected=False, message="not connected yet", since=datetime.now(UTC))
        self._driver: Driver | None = None
        self._link = _Link()
        self._worked = False
        """Whether this attempt to connect has come to a connection."""
        self._task: asyncio.Task[None] | None = None
        self._domains: Mapping[str, DomainRef] = {}
        self._names: Mapping[str, DomainRef] = {}
        self._revision = 0
        self._listing = asyncio.Lock()

    def start(self) -> None:
        """Begin to connect, and stay connected until :meth:`stop`."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._supervise(), name=f"host {self.name}")

    async def stop(self) -> None:
        """Disconnect. Running jobs go on."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._disconnected("the connection was closed on purpose")

    @property
    def status(self) -> HostStatus:
        """The connection as it is now."""
        return self._status

    @property
    def driver(self) -> Driver:
        """The open connection. Raises Unreachable, with the reason, while there is none."""
        if self._driver is None or not self._status.connected:
            raise Unreachable(f"hypervisor {self.name}: {self._status.message}")
        return self._driver

    @property
    def domains(self) -> tuple[DomainRef, ...]:
        """The inventory; without :attr:`HostStatus.synced` it may be old or incomplete."""
        return tuple(self._domains.values())

    def find_by_name(self, name: str) -> DomainRef | None:
        """The domain of this name (unique per hypervisor)."""
        return self._names.get(name)

    def find_by_uuid(self, uuid: str) -> DomainRef | None:
        """The domain of this UUID."""
        return self._domains.get(uuid)

    async def refresh(self) -> None:
        """List the domains now. Raises Unreachable without a connection."""
        await self._list(self.driver)

    # Supervision --------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        delay = self._supervision.first_delay
        while True:
            self._worked = False
            try:
                message = await self._live()
            except HypervisorError as error:
                # A call that met the end of the connection tells less of it than the close callback did.
                message = self._link.lost or error.message
            except Exception:  # noqa: BLE001 (a defect must not end the supervision for good: logged, retried)
                _log.exception("hypervisor %s: the connection was dropped", self.name)
                message = "an internal error, see the log of the controller"
            self._disconnected(message)
            if self._worked:  # what failed before it is over
                delay = self._supervision.first_delay
            # Jitter spreads the reconnections of many hosts; nothing secret hangs on it.
            await self._pause(delay * random.uniform(0.5, 1))  # noqa: S311
            delay = min(delay * 2, self._supervision.most_delay)

    async def _pause(self, seconds: float) -> None:
        """Until the next attempt: so long at most, and not much longer than until somebody opens the door."""
        ring_every = self._supervision.ring_every
        while self._doorbell is not None and seconds > ring_every:
            await asyncio.sleep(ring_every)
            seconds -= ring_every
            if await self._doorbell():
                return
        await asyncio.sleep(seconds)

    async def _live(self) -> str:
        """One connection from start to end; returns why it ended, raises why it did not begin."""
        link = self._link = _Link()
        driver = await self._connect(lambda event: self._take(link, event))
        try:
            self._driver = driver
            facts = await driver.facts()
            domains = await driver.domains()
            if link.lost is None:
                self._connected(facts, domains)
                await self._list(driver)  # what happened while the first list was on its way
            while link.lost is None:
                await self._wait(link)
                if link.lost is None:
                    await self._list(driver)
            return link.lost
        finally:
            self._driver = None
            await driver.close()

    async def _wait(self, link: _Link) -> None:
        """Until something happens to the connection or the inventory, or the next check is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._supervision.check_every):
                await link.wake.wait()
        link.wake.clear()

    def _connected(self, facts: Facts, domains: tuple[DomainRef, ...]) -> None:
        self._worked = True
        self._keep(domains)
        self._status = HostStatus(
            connected=True, message="connected", since=datetime.now(UTC), facts=facts, synced=True, tried=True
        )
        _log.info("hypervisor %s: connected, %d domains", self.name, len(domains))
        self._on_change(self.name)

    def _disconnected(self, message: str) -> None:
        before = self._status
        since = datetime.now(UTC) if before.connected else before.since
        self._status = replace(
            before, connected=False, synced=False, tried=True, message=message, since=since
        )
        if before.connected or before.message != message:
            _log.warning("hypervisor %s: %s", self.name, message)
            self._on_change(self.name)

    # Inventory ----------------------------------------------------------------------------------------

    async def _list(self, driver: Driver) -> None:
        """Bring the inventory up to date, and the facts when there was no domain to ask with until now."""
        async with self._listing:
            for _ in range(_CHASES):
                revision = self._revision
                domains = await driver.domains()
                if revision == self._revision:
                    break  # no event came while the list was on its way: it is not older than what we know
            if driver is self._driver and self._status.connected and self._keep(domains):
                self._on_change(self.name)
            if domains and self._wants_facts():
                facts = await driver.facts()
                if facts != self._status.facts:
                    self._status = replace(self._status, facts=facts)
                    self._on_change(self.name)

    def _wants_facts(self) -> bool:
        """Whether some were left open. Facts and list are two questions: a domain that comes in between is in
        the list, and was not asked."""
        facts = self._status.facts
        return facts is not None and not facts.flags_asked

    def _keep(self, domains: tuple[DomainRef, ...]) -> bool:
        """Take over a list; tell whether anything is different."""
        new = {domain.uuid: domain for domain in domains}
        if new == self._domains:
            return False
        self._domains = new
        self._names = {domain.name: domain for domain in domains}
        return True

    # Events -------------------------------------------------------------------------------------------

    def _take(self, link: _Link, event: Event) -> None:
        if link is not self._link:
            return  # an earlier connection
        if isinstance(event, Disconnected):
            link.lost = event.reason
            link.wake.set()
            self._disconnected(event.reason)
        elif isinstance(event, Lifecycle):
            self._changed(link, event)
        self._on_event(self.name, event)

    def _changed(self, link: _Link, event: Lifecycle) -> None:
        """Apply what the event says for certain; list where it does not say what is left."""
        self._revision += 1
        known = self._domains.get(event.uuid)
        ref = None
        match event.kind:
            case LifecycleKind.STARTED | LifecycleKind.RESUMED | LifecycleKind.SUSPENDED:
                ref = DomainRef(event.uuid, event.name, active=True)
            case LifecycleKind.DEFINED:
                ref = DomainRef(event.uuid, event.name, active=known is not None and known.active)
            case LifecycleKind.STOPPED:
                ref = DomainRef(event.uuid, event.name, active=False)
                link.wake.set()  # a transient domain is gone with that
            case LifecycleKind.UNDEFINED:
                link.wake.set()  # a running one stays, as transient
            case LifecycleKind.OTHER:
                pass
        if ref is not None and ref != known and self._status.synced:
            others = (domain for domain in self._domains.values() if domain.uuid != ref.uuid)
            self._keep((*others, ref))
            self._on_change(self.name)
            if self._wants_facts():
                link.wake.set()  # there is a domain to ask with
