"""The engine: wake-ups in, passes out.

Watch events, libvirt events (:mod:`controller.reconcile.wakeups`) and a timed resync all do the same thing:
they put a key into the queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from controller.api.conditions import HYPERVISOR_CONDITIONS
from controller.api.hypervisor import Hypervisor
from controller.chain.parse import ParseError
from controller.chain.seal import Seals
from controller.hypervisor.driver import Event
from controller.hypervisor.errors import DomainGone, HypervisorError
from controller.hypervisor.libvirt_driver import connect_libvirt
from controller.kube.errors import KubeError
from controller.kube.events import EventRecorder
from controller.kube.kinds import (
    HYPERVISOR,
    WATCHED,
    Kind,
    Raw,
)
from controller.kube.port import KubeClient
from controller.reconcile.chain_store import ChainStore
from controller.reconcile.chains import Chains
from controller.reconcile.class_store import ClassStore
from controller.reconcile.classes import Classes
from controller.reconcile.context import Context
from controller.reconcile.details import Details
from controller.reconcile.domain_pass import DomainPass
from controller.reconcile.fleet import Counts, Fleet, MakeConnector, report_hypervisor
from controller.reconcile.keys import ChainKey, ClassKey, ReportKey
from controller.reconcile.ledger import Ledger
from controller.reconcile.misread import report_misread
from controller.reconcile.object_pass import ObjectPasses
from controller.reconcile.orphans import Orphans
from controller.reconcile.overdue import Overdue
from controller.reconcile.pace import Pace
from controller.reconcile.pieces import in_pieces
from controller.reconcile.queue import KeyedQueue
from controller.reconcile.reporter import report_unreadable
from controller.reconcile.resolution import Resolution
from controller.reconcile.resync import Resync
from controller.reconcile.shares import CHAINS, Limits, Shares, snapshot_limits
from controller.reconcile.stalled import cause_of
from controller.reconcile.store import DomainKey, HypervisorKey, InventoryKey, Key, ObjectKey, Store
from controller.reconcile.wakeups import Wakeups
from controller.telemetry.garbage import Kept
from controller.telemetry.metrics import Metrics
from controller.telemetry.queue_watch import QueueWatch

log = logging.getLogger(__name__)

STUCK_SECONDS = 600.0
"""A pass that takes longer means that the process has lost its way: jobs never run inside a pass."""

_QUEUE = "domains"


@dataclass(frozen=True)
class EngineOptions:
    """How the engine runs. Times in seconds."""

    cluster_id: str
    cluster_named: bool = False
    """See :attr:`Context.named`."""
    hypervisor_selector: str = ""
    """Label selector of the Hypervisors that this process handles; empty for all."""
    resync_seconds: float = 300.0
    workers: int = 16
    """Passes that may run at once over the domains of one hypervisor. One that hangs holds up no other."""
    seals: Seals | None = None
    """See :attr:`Context.seals`."""
    pulls_last: bool = True
    """Pull only where no commit is allowed (ADR 6)."""


class Engine:
    """Runs passes until stopped."""

    def __init__(
        self,
        client: KubeClient,
        recorder: EventRecorder,
        metrics: Metrics,
        options: EngineOptions,
        *,
        make_connector: MakeConnector = connect_libvirt,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._options = options
        self._metrics = metrics
        self._kept = Kept()
        watch = QueueWatch(metrics, _QUEUE)
        self._queue: KeyedQueue[Key] = KeyedQueue(lane=_lane, lane_width=options.workers, watch=watch)
        self._fleet = Fleet(make_connector, metrics, on_event=self._on_event, on_change=self._on_host)
        store = Store(
            now=now,
            classes=ClassStore(lambda name: self._queue.add(ClassKey(name))),
            chains=ChainStore(shares=Shares(lambda: CHAINS, self._queue.add)),
            shares=Shares(self._share, self._queue.add),
        )
        self._context = Context(
            client=client,
            recorder=recorder,
            metrics=metrics,
            store=store,
            ledger=Ledger(now),
            orphans=Orphans(metrics),
            overdue=Overdue(now),
            pace=Pace(),
            details=Details(recorder, store),
            hosts=self._fleet.hosts,
            cluster=options.cluster_id,
            now=now,
            pulls_last=options.pulls_last,
            seals=options.seals,
            named=options.cluster_named,
            wake=self._queue.add,
            later=self._queue.add_after,
            covered=self._queue.covered,
            whole_fleet=not options.hypervisor_selector,
        )
        resolution = Resolution(self._context)
        self._objects = ObjectPasses(self._context, resolution)
        self._chains = Chains(self._context, resolution)
        self._classes = Classes(self._context)
        self._counts = Counts()
        self._wakeups = Wakeups(self._context, self._fleet, self._objects)
        self._begins: asyncio.Task[None] | None = None
        self._passes: set[asyncio.Task[None]] = set()
        self._died: list[str] = []
        self._resync: asyncio.Task[None] | None = None

    def _share(self) -> Limits:
        """How many VolumeSnapshots of one namespace are acted on."""
        layers = (spec.max_layers for spec in self._context.store.classes.specs())
        return snapshot_limits(max(layers, default=0))

    # Life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to work.

        First learns which hypervisors and classes there are: none may seem missing only because its watch
        has not told of it yet. And all VolumeSnapshots: what became pending meanwhile is taken together, and
        a watch tells of one after the other. Raises KubeError; then it may be called again.
        """
        client = self._context.client
        for kind in WATCHED:
            selector = self._options.hypervisor_selector if kind == HYPERVISOR else ""
            async for raw in in_pieces(await client.list(kind, selector or None)):
                self.on_object(kind, None, raw)
        self._wakeups.unresolved.update(self._context.store.snapshots)
        loop = asyncio.get_running_loop()
        self._begins = loop.create_task(self._begin_passes(), name="the beginning of passes")
        resync = Resync(
            self._context,
            self._queue,
            self.on_object,
            lambda: self._fleet.hosts,
            self._options.resync_seconds,
            self._options.hypervisor_selector or None,
        )
        self._resync = loop.create_task(resync.run(), name="the resync")

    async def stop(self, grace_seconds: float) -> None:
        """Begin nothing more; let the passes that run end, at the latest after ``grace_seconds``. Block jobs
        go on in QEMU, and the next process finds them by the journal."""
        self._queue.close()
        if self._resync is not None:
            self._resync.cancel()
        if self._begins is not None:
            await asyncio.wait({self._begins})
        if self._passes:
            _, late = await asyncio.wait(set(self._passes), timeout=grace_seconds)
            for task in late:
                task.cancel()
        await self._fleet.stop()

    def problems(self) -> list[str]:
        """What only a restart can mend."""
        now = asyncio.get_running_loop().time()
        tasks = [task for task in (self._begins, self._resync) if task is not None]
        found = [f"{task.get_name()} has died" for task in tasks if task.done()] + self._died
        stuck = [key for key, since in self._queue.since.items() if now - since > STUCK_SECONDS]
        return found + [f"the pass over {key} takes more than {STUCK_SECONDS:.0f} s" for key in stuck]

    def ready(self) -> str | None:
        """What is missing until objects are acted on."""
        return None if self._begins is not None else "the engine has not started"

    # Wake-ups ------------------------------------------------------------------------------------------

    def on_object(self, kind: Kind, event_type: str | None, raw: Raw) -> None:
        """Take note of a watch event."""
        self._wakeups.on_object(kind, event_type, raw)
        self._kept.grown(len(self._context.store.snapshots))

    def _on_event(self, hypervisor: str, event: Event) -> None:
        self._wakeups.on_event(hypervisor, event)

    def _on_host(self, hypervisor: str) -> None:
        self._wakeups.on_host(hypervisor)

    # Passes --------------------------------------------------------------------------------------------

    async def _begin_passes(self) -> None:
        """One task per pass; the queue holds back the keys whose lane is full."""
        loop = asyncio.get_running_loop()
        while (key := await self._queue.get()) is not None:
            task = loop.create_task(self._one(key), name=f"the pass over {key}")
            self._passes.add(task)
            task.add_done_callback(self._ended)

    async def _one(self, key: Key) -> None:
        try:
            with self._metrics.reconcile_seconds.time():
                result = await self._run(key)
            self._metrics.reconcile.labels(result).inc()
        finally:
            self._queue.done(key)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._passes.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._died.append(f"{task.get_name()} has died")
            log.error("a pass had died", exc_info=error)

    async def _run(self, key: Key) -> str:
        """One pass; never raises. Returns what came of it, for the metrics."""
        try:
            again = await self._pass(key)
        except (HypervisorError, ParseError, KubeError) as error:
            await self._failed(key, error)
            return "error"
        except asyncio.CancelledError:
            # Nobody ended this pass: something that it waited for was cancelled, and the key is to run again.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            log.exception("pass failed: what it waited for was cancelled", extra={"key": str(key)})
            self._queue.retry(key)
            return "error"
        except Exception:  # a defect in one pass must not end the worker; logged with its trace, and retried
            log.exception("pass failed", extra={"key": str(key)})
            self._queue.retry(key)
            return "error"
        self._queue.succeeded(key)
        if again is None:
            return "success"
        self._queue.add_after(key, again)
        return "requeue_after"

    async def _pass(self, key: Key) -> float | None:
        again: float | None = None
        match key:
            case DomainKey():
                again = await self._domain(key)
            case ObjectKey():
                # Before the pass, or what happens during it would go unheard.
                self._wakeups.unresolved.add(key)
                again = await self._objects.run(key, asyncio.get_running_loop().time())
                if key not in self._context.store.snapshots or self._context.store.bound(key) is not None:
                    self._wakeups.unresolved.discard(key)
            case ChainKey():
                self._wakeups.unresolved.add(key)
                again = await self._chains.resolve(key)
                if again is None:
                    self._wakeups.unresolved.discard(key)
            case ReportKey():
                again = await self._chains.report(key)
            case ClassKey():
                again = await self._classes.run(key)
            case HypervisorKey():
                again = await self._report_hypervisor(key.name)
            case InventoryKey():
                host, identities = self._fleet.hosts.get(name := key.hypervisor), self._context.identities
                await self._context.orphans.sweep(name, host, identities(name))
                self._queue.add(HypervisorKey(name))
        return again

    async def _domain(self, key: DomainKey) -> float | None:
        if not self._wakeups.means_something(key):
            self._context.ledger.forget(key)
            self._context.details.forget(key)
            return None
        if key.hypervisor not in self._fleet.hosts:
            self._wakeups.resolve_anew(key)
            return None
        return await DomainPass(self._context, key, self._chains).run()

    async def _report_hypervisor(self, name: str) -> float | None:
        known = self._context.store.hypervisors.get(name)
        if known is None:
            self._counts.forget(name)
            return None
        raw, parsed = known
        if not isinstance(parsed, Hypervisor):
            after = await report_misread(self._context, HYPERVISOR, raw, parsed, HYPERVISOR_CONDITIONS)
            if after is not None:
                self._context.store.put_hypervisor(after)
            return None
        clock = asyncio.get_running_loop().time()
        wait = self._counts.wait(name, clock)
        new = await report_hypervisor(
            self._context.client,
            (raw, parsed),
            self._fleet.hosts.get(name),
            self._fleet.faults.get(name),
            now=self._context.now(),
            inventory=self._context.orphans,
            counts_wait=wait,
        )
        if new is None:
            return wait or None
        self._counts.told(name, clock)
        self._context.store.put_hypervisor(new)
        return None

    async def _failed(self, key: Key, error: Exception) -> None:
        """Nothing is known of the domain now, so nothing is concluded; the objects say what is in the way."""
        delay = self._queue.retry(key)
        log.warning("pass put off", extra={"key": str(key), "why": str(error), "seconds": round(delay, 1)})
        if not isinstance(key, DomainKey) or isinstance(error, KubeError):
            return
        try:
            if isinstance(error, DomainGone):
                self._context.belief.forget(key.uuid)
                await self._look_elsewhere(key)
            else:
                await self._unreadable(key, await self._cause(key, error))
        except KubeError as failure:
            log.warning("status not written", extra={"key": str(key), "why": str(failure)})

    async def _cause(self, key: DomainKey, error: Exception) -> Exception:
        """Why the domain cannot be read, as far as its storage servers tell."""
        host = self._fleet.hosts.get(key.hypervisor)
        if host is None or not host.status.connected:
            return error
        return await cause_of(error, host.driver, self._context.ledger.remote(key))

    async def _look_elsewhere(self, key: DomainKey) -> None:
        """The domain left its hypervisor, which may not have said so yet: its objects are resolved anew."""
        try:
            await self._fleet.hosts[key.hypervisor].refresh()
        except HypervisorError as error:
            await self._unreadable(key, error)
        else:
            self._wakeups.resolve_anew(key)

    async def _unreadable(self, key: DomainKey, error: Exception) -> None:
        await report_unreadable(self._context, key, error)
        await self._chains.unreadable(key, error)


def _lane(key: Key) -> tuple[str, str]:
    """Passes over the domains of one hypervisor share its threads; those over objects call no hypervisor, and
    each namespace waits for its own alone."""
    if isinstance(key, DomainKey | InventoryKey):
        return (key.hypervisor, "")
    return ("", key.namespace if isinstance(key, ObjectKey | ChainKey) else "")
