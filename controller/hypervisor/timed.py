"""How long the calls to a hypervisor take, whoever makes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, cast

from prometheus_client import Histogram

from controller.hypervisor.driver import Driver, EventSink
from controller.hypervisor.host import Connector
from controller.telemetry.metrics import timed


class _Timed:
    """Each method of the port, with its time noted under its name."""

    def __init__(self, driver: Driver, seconds: Histogram) -> None:
        self._driver = driver
        self._seconds = seconds

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Only asked for what is not found: made once, and kept."""
        method = getattr(self._driver, name)
        seconds = self._seconds.labels(name)

        @wraps(method)
        async def call(*arguments: Any, **options: Any) -> Any:
            with timed(seconds):
                return await method(*arguments, **options)

        setattr(self, name, call)
        return call


def timed_connector(connect: Connector, seconds: Histogram) -> Connector:
    """A connector whose drivers tell how long each call took, one that failed included: the wait for a thread
    and for the domain's lock, and the answer. ``seconds`` has the label ``call``, the method's name."""

    async def connected(sink: EventSink) -> Driver:
        # Every method of the port is a coroutine (held by a test), so nothing else has to be passed on.
        return cast("Driver", _Timed(await connect(sink), seconds))

    return connected
