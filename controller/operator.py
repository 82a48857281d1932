"""The process: Lease, watches, engine and probes, from start to a clean end. The only place that knows kopf.

kopf watches in a thread of its own, with its own event loop. It takes every task made after its start for its
own and cancels it when it ends, takes over signals, and ends for good on some watch errors (HTTP 500, a CRD
gone); in its thread it can do none of that to the engine, and is simply started again. The engine hears of
each event by a call that is handed to the main loop.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from itertools import chain, repeat
from typing import Any, NoReturn, TypeVar, cast

import aiohttp
import kopf

from controller.api import GROUP
from controller.engine_port import Cluster, MakeEngine
from controller.flags import Options
from controller.kube.client import PAGE, ApiClient
from controller.kube.credentials import BadCredentials, Connection
from controller.kube.errors import KubeError, Rejected
from controller.kube.events import EventRecorder
from controller.kube.identity import is_dead, own_identity
from controller.kube.inbox import Inbox
from controller.kube.journal_key import seals
from controller.kube.kinds import HYPERVISOR, WATCHED, Kind, Raw
from controller.kube.lease import Lease
from controller.kube.lease_thread import LeaseThread
from controller.kube.narrow import narrow_session
from controller.telemetry.garbage import set_aside
from controller.telemetry.health import CannotListen, Checks, HealthServers
from controller.telemetry.lag import watch_lag
from controller.telemetry.logs import setup_logging
from controller.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")

DRAINED, FAILED, MISCONFIGURED = 0, 1, 2
"""Exit codes."""

RESTART_BACKOFF = (0.5, 1.0, 2.0, 5.0)
"""Seconds before the watches, or a request at the start, are tried again; the last one stays."""

CALM = 60.0
"""Seconds of watching after which an end is taken for a new trouble, and the backoff begins anew."""

GRACE_FOR_GOODBYE = 3.0
"""Seconds of the grace period that are kept for events, the Lease and the end itself."""


def serve(options: Options, make_engine: MakeEngine) -> NoReturn:
    """Set up logging, run the controller until it is told to stop, and end the process with an exit code."""
    setup_logging(options.log_format, options.log_level)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_unexpected)
    code = FAILED
    try:
        code = asyncio.new_event_loop().run_until_complete(Operator(options, make_engine).run())
    except Exception:  # the last place where a bug can be seen
        log.exception("ending after an error that should not be")
    _exit(code)


class Operator:
    """One run of the process. Use :meth:`run` once, from the main thread's event loop."""

    def __init__(self, options: Options, make_engine: MakeEngine) -> None:
        """Nothing is started yet."""
        self._options = options
        self._make_engine = make_engine
        self._metrics = Metrics(options.version)
        self._client = ApiClient(options.credentials, self._metrics)
        self._checks = Checks()
        self._servers = HealthServers(self._metrics, self._checks)
        self._stopping = asyncio.Event()
        self._waiting_for: str | None = "the API server"

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code. A second signal ends the process at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        self._checks.add_ready("start", lambda: self._waiting_for)
        try:
            await self._servers.start(self._options.metrics_address, self._options.probe_address)
            await self._until_stopped(self._lead())
        except (BadCredentials, CannotListen) as error:
            log.error("cannot work as configured", extra={"problem": str(error)})  # noqa: TRY400  # says it all
            return MISCONFIGURED
        finally:
            await self._servers.stop()
            await self._client.close()
        return DRAINED

    async def _lead(self) -> None:
        """Wait for the Lease, if it is wanted, and work while it is held. Ended by cancellation."""
        cluster_id = self._options.cluster_id
        if cluster_id is None:
            cluster_id = await _insist(
                "asking who the cluster is", lambda: self._client.namespace_uid("kube-system")
            )
        if not self._options.leader_elect:
            await self._work(cluster_id)
            return
        self._waiting_for = None  # a process in reserve is ready: a rollout must not wait for it to lead
        lease = self._lease()
        try:
            await lease.acquire()
            await self._work(cluster_id)
        finally:
            await lease.release()

    def _lease(self) -> LeaseThread:
        """Our Lease, with connections of its own: behind writes that wait a renewal would come too late."""
        client = ApiClient(self._options.credentials, self._metrics)
        where = (self._options.lease_namespace, self._options.lease_name)
        lease = Lease(client, *where, own_identity(), is_dead=is_dead)
        return LeaseThread(lease, on_lost=_exit_when_lost, close=client.close)

    async def _work(self, cluster_id: str) -> None:
        """Run the engine, with everything it needs, until cancelled; then drain it."""
        self._metrics.leader.set(1)
        keys = await _insist(
            "reading the key of the journals' seals",
            lambda: seals(self._client, self._options.lease_namespace),
            self._wait,
        )
        log.info("sealing journals", extra={"keys": ",".join(keys.ids)})
        events = EventRecorder(self._client, self._metrics)
        cluster = Cluster(cluster_id, keys)
        engine = self._make_engine(self._client, events, self._metrics, self._options, cluster)
        watches = Watches(self._options, self._client, engine.on_object, self._metrics)
        self._checks.add_live("engine", lambda: "; ".join(engine.problems()) or None)
        self._checks.add_live("watches", watches.dead)
        self._checks.add_ready("engine", engine.ready)
        self._checks.add_ready("watches", watches.problem)
        self._waiting_for = None
        log.info("working", extra={"cluster": cluster_id, "selector": self._options.hypervisor_selector})
        events.start()
        lag = asyncio.create_task(watch_lag(self._metrics), name="the watch of the loop")
        try:
            await _insist("learning which Hypervisors and classes there are", engine.start)
            set_aside()
            watches.start()
            await asyncio.Event().wait()
        finally:
            lag.cancel()
            watches.stop()
            await engine.stop(max(0.0, self._options.grace_seconds - GRACE_FOR_GOODBYE))
            await events.stop(GRACE_FOR_GOODBYE / 3)
            log.info("drained")

    def _wait(self, problem: str) -> None:
        self._waiting_for = problem

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` until a signal comes, then cancel it and let it clean up. Raises what it raises."""
        task = asyncio.create_task(work, name="operator")
        stopping = asyncio.create_task(self._stopping.wait(), name="signals")
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            log.warning("ending at once", extra={"signal": number.name})
            _exit(FAILED)
        log.info("draining", extra={"signal": number.name, "grace_seconds": self._options.grace_seconds})
        self._stopping.set()
        # A timer thread, since what hangs may be the event loop itself.
        deadline = threading.Timer(self._options.grace_seconds, _exit, (DRAINED,))
        deadline.daemon = True
        deadline.start()


class _LoggedIn(kopf.AiohttpSession):
    """What kopf is logged in with. It asks for a session whenever it has closed the last one, for another
    login when this one was refused, and gives up when that is the same."""

    connection: Connection

    def __init__(self, connection: Connection) -> None:
        for name, value in (("server", connection.server), ("connection", connection)):
            object.__setattr__(self, name, value)  # the class is frozen

    @property
    def aiohttp_session(self) -> aiohttp.ClientSession:
        """A session in the loop of kopf."""
        return narrow_session(self.connection)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LoggedIn) and self.connection == other.connection

    def __hash__(self) -> int:
        return hash(self.connection)


class Watches:
    """kopf in a thread: hands each event to the main loop, and begins again when kopf ends."""

    def __init__(
        self,
        options: Options,
        client: ApiClient,
        on_object: Callable[[Kind, str | None, Raw], None],
        metrics: Metrics,
    ) -> None:
        """To be made in the main loop, which ``client`` and ``on_object`` belong to."""
        self._options = options
        self._client = client
        self._inbox = Inbox(on_object)
        self._metrics = metrics
        self._main = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)
        self._stopped = threading.Event()
        self._end: Callable[[], object] | None = None
        self._problem: str | None = "the watches have not begun"

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Deliver nothing more. Returns at once; the thread ends soon, or with the process."""
        self._stopped.set()
        if self._end:
            with contextlib.suppress(RuntimeError):  # its loop has closed between the two lines
                self._end()

    def problem(self) -> str | None:
        """Why events may be missing now."""
        return self._problem

    def dead(self) -> str | None:
        """Why no event will ever come again."""
        alive = self._thread.is_alive() or self._thread.ident is None
        return None if alive or self._stopped.is_set() else "the thread of the watches has died"

    def _run(self) -> None:
        try:
            asyncio.run(self._watch_for_ever())
        except Exception:  # the thread's last chance to say why /healthz fails from now on
            log.exception("the watches have died")

    async def _watch_for_ever(self) -> None:
        """Run kopf, again and again. Its end is an error, as only :meth:`stop` is a reason."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        self._end = lambda: loop.call_soon_threadsafe(stop.set)
        delays = iter(RESTART_BACKOFF)
        while not self._stopped.is_set():
            began = loop.time()
            try:
                await self._crds_installed()
                self._problem = None
                await kopf.operator(
                    registry=self._registry(), settings=self._settings(), clusterwide=True, stop_flag=stop
                )
                self._problem = "the watches ended"
            except Exception as error:  # noqa: BLE001  # kopf raises whatever a watch ran into; it is logged below
                self._problem = f"the watches ended: {error!r}"
            if loop.time() - began > CALM:
                delays = iter(RESTART_BACKOFF)
            delay = next(delays, RESTART_BACKOFF[-1])
            if not self._stopped.is_set():
                self._metrics.watch_restarts.inc()
                log.warning("the watches begin again", extra={"problem": self._problem, "seconds": delay})
                await asyncio.sleep(delay)

    async def _crds_installed(self) -> None:
        """Wait until what is to be watched is served: kopf looks once and does not say what it misses."""

        async def look() -> None:
            missing = await self._client.missing(WATCHED)
            if missing:
                kinds = ", ".join(map(str, missing))
                raise Rejected(f"the API server does not serve {kinds}: kubectl apply --server-side -f crds/")

        def note(problem: str) -> None:
            self._problem = problem

        await self._ask(_insist("looking for the CRDs", look, note))

    async def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        """Run something in the main loop, where the client lives."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(question, self._main))

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for kind in WATCHED:
            kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(self._deliver_to(kind))
        return registry

    def _deliver_to(self, kind: Kind) -> Callable[..., Coroutine[Any, Any, None]]:
        async def deliver(*, event: kopf.RawEvent, **_: object) -> None:
            raw = cast("Raw", event["object"])
            if not self._stopped.is_set():
                self._inbox.put(kind, event["type"], raw)

        return deliver

    async def _login(self, **_: object) -> kopf.AiohttpSession:
        found = await self._ask(self._options.credentials.connection())
        return _LoggedIn(found)

    def _settings(self) -> kopf.OperatorSettings:
        """What keeps kopf to watching: it writes nothing, and scans only the group at its start."""
        settings = kopf.OperatorSettings()
        settings.scanning.disabled = True
        settings.peering.standalone = True
        settings.posting.enabled = False
        settings.persistence.finalizer = f"{GROUP}/unused"
        settings.process.ultimate_exiting_timeout = None  # or it kills the process this long after a restart
        settings.networking.request_timeout = 30
        settings.networking.connect_timeout = 10
        settings.networking.error_backoffs = (
            0.5,
            1,
            2,
        )  # seconds; then the watch itself tries again, for ever
        settings.watching.server_timeout = 600
        settings.watching.connect_timeout = 10
        settings.watching.chunk_size = PAGE
        settings.queueing.worker_limit = 100  # each object has a worker, which stays for the idle timeout:
        settings.queueing.idle_timeout = 0.01  # so a listing passes at 100 objects per 10 ms at best
        if self._options.hypervisor_selector:
            key = (HYPERVISOR.group, HYPERVISOR.version, HYPERVISOR.plural)
            settings.watching.label_selectors[key] = self._options.hypervisor_selector
        return settings


async def _insist(
    what: str, request: Callable[[], Awaitable[T]], note: Callable[[str], None] = lambda problem: None
) -> T:
    """Repeat a request until it succeeds, telling ``note`` why not. Raises BadCredentials."""
    said = ""
    for delay in chain(RESTART_BACKOFF, repeat(RESTART_BACKOFF[-1])):
        try:
            return await request()
        except BadCredentials:
            raise
        except KubeError as error:
            note(str(error))
            if str(error) != said:
                log.warning("waiting for Kubernetes", extra={"doing": what, "problem": str(error)})
            said = str(error)
            await asyncio.sleep(delay)
    raise AssertionError("repeats for ever")


def _exit_when_lost(reason: str) -> None:
    """End the process as it stands: another may begin now, and can take up every step."""
    log.error("ending at once", extra={"problem": reason})
    _exit(FAILED)


def _unexpected(record: logging.LogRecord) -> bool:
    """Whether to log it: kopf says at each start that it does not handle signals, which is meant to be so."""
    return not (record.name.startswith("kopf") and record.getMessage().startswith("OS signals are ignored"))


def _exit(code: int) -> NoReturn:
    """End without waiting for anything, such as a thread in a hung call."""
    os._exit(code)
