"""What an orchestrator asks over HTTP: is the process alive, is it ready, what are its numbers."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from controller.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

Check = Callable[[], str | None]
"""Says what is wrong in one line, or None. Called for each request, so it must not wait for anything."""

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class BadAddress(ValueError):
    """An address that cannot be listened on, with what to write instead."""


class CannotListen(Exception):
    """An address is taken, or not of this machine."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; ``host`` None means all interfaces."""

    host: str | None
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address | None":
        """Read ``:8080``, ``127.0.0.1:0`` (any free port), ``[::1]:80`` or ``0`` (off). Raises BadAddress."""
        if text == "0":
            return None
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise BadAddress(
                f"{text!r} is no address: write :8080, 127.0.0.1:8080, [::1]:8080, or 0 for none"
            )
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise BadAddress(f"{text!r} is no address: an IPv6 host is written in brackets, as in [::1]:8080")
        return cls(host or None, int(port))


class Checks:
    """Named checks: liveness for what only a restart can mend, readiness for what is not there yet."""

    def __init__(self) -> None:
        """Start with none: alive and ready."""
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}

    def add_live(self, name: str, check: Check) -> None:
        """Fail /healthz when ``check`` returns a problem."""
        self._live[name] = check

    def add_ready(self, name: str, check: Check) -> None:
        """Fail /readyz when ``check`` returns a problem."""
        self._ready[name] = check

    def live(self) -> dict[str, str]:
        """What is wrong with being alive, by check."""
        return _failing(self._live)

    def ready(self) -> dict[str, str]:
        """What is missing, by check."""
        return _failing(self._ready)


class HealthServers:
    """One small HTTP server for the metrics and one for the probes; one for both at the same address."""

    def __init__(self, metrics: Metrics, checks: Checks) -> None:
        """Nothing listens yet."""
        self._metrics = metrics
        self._checks = checks
        self._runners: list[web.AppRunner] = []

    async def start(self, metrics: Address | None, probes: Address | None) -> None:
        """Listen. Raises CannotListen."""
        for address in dict.fromkeys(address for address in (metrics, probes) if address):
            app = web.Application()
            if address == metrics:
                app.router.add_get("/metrics", self._serve_metrics)
            if address == probes:
                app.router.add_get("/healthz", self._serve_live)
                app.router.add_get("/readyz", self._serve_ready)
            runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
            await runner.setup()
            self._runners.append(runner)
            try:
                await web.TCPSite(runner, address.host, address.port).start()
            except OSError as error:
                raise CannotListen(str(error)) from error
            paths = sorted(route.resource.canonical for route in app.router.routes() if route.resource)
            for listening in runner.addresses:
                log.info(
                    "listening", extra={"address": _shown(listening), "paths": ",".join(dict.fromkeys(paths))}
                )

    async def stop(self) -> None:
        """Stop listening."""
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of everything that listens, in the order of start."""
        return [(address[0], address[1]) for runner in self._runners for address in runner.addresses]

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": EXPOSITION})

    async def _serve_live(self, _: web.Request) -> web.Response:
        return _verdict(self._checks.live())

    async def _serve_ready(self, _: web.Request) -> web.Response:
        return _verdict(self._checks.ready())


def _failing(checks: Mapping[str, Check]) -> dict[str, str]:
    problems = {name: check() for name, check in checks.items()}
    return {name: problem for name, problem in problems.items() if problem}


def _verdict(problems: Mapping[str, str]) -> web.Response:
    if not problems:
        return web.Response(text="ok\n")
    return web.Response(status=503, text="".join(f"{name}: {text}\n" for name, text in problems.items()))


def _shown(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
