"""libvirt connections to one daemon: one for each thread that makes calls; the first carries the events.

Threads may share a connection, but libvirt's client can lose the wake-up of a thread whose request meets
another thread's unanswered one. Measured on 9.0 beside a hung machine: one of ten calls took 5 s, until the
daemon's keepalive woke it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import traceback
from collections.abc import Callable
from typing import TypeVar

import libvirt

from controller.hypervisor import event_loop
from controller.hypervisor.codes import translate
from controller.hypervisor.errors import HypervisorError, Unreachable
from controller.hypervisor.events import Subscription, Take
from controller.hypervisor.misread import misread

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Connections:
    """All methods block and run on the threads that the connections are for."""

    def __init__(self, uri: str, *, keepalive_interval: int, keepalive_count: int) -> None:
        """``keepalive_interval`` in seconds; dead after ``keepalive_count`` unanswered ones."""
        self._uri = uri
        self._keepalive = (keepalive_interval, keepalive_count)
        self._own = threading.local()
        self._first: libvirt.virConnect | None = None
        self._subscription: Subscription | None = None

    def open(self, take: Take) -> None:
        """Open the first connection; ``take`` gets its events. Raises Unreachable."""
        self._first = self._own.connection = self._connect()
        try:
            self._subscription = Subscription(self._first, take)
        except libvirt.libvirtError as error:
            raise _unreachable(error) from None

    def mine(self) -> libvirt.virConnect:
        """The connection of this thread, opened if need be.

        Raises Unreachable when that fails, and for good when the first one is dead: without it nobody would
        notice what happens there.
        """
        if self._first is None or not self._first.isAlive():
            raise Unreachable("the connection is lost")
        mine = getattr(self._own, "connection", None)
        if mine is None or not mine.isAlive():
            self.hang_up()
            mine = self._own.connection = self._connect()
        return mine

    def ask(self, what: str, function: Callable[[libvirt.virConnect], T], *, changing: bool) -> T:
        """What ``function`` gets from libvirt. Raises HypervisorError, whatever libvirt-python raises."""
        connection = self.mine()
        try:
            return function(connection)
        except HypervisorError:
            raise
        except libvirt.libvirtError as error:
            kind = translate(error, changing=changing)
        except Exception as error:  # noqa: BLE001 (whatever it is, the caller must know what to conclude)
            _log.warning("an answer of libvirt is not understood", extra={"trace": traceback.format_exc()})
            kind = misread(error, what, changing=changing)
        # Outside the handler: libvirt's error would keep its frames, and with them libvirt's objects, alive
        # wherever this one goes.
        raise kind

    def hang_up(self) -> None:
        """Close the connection of this thread, unless it is the first."""
        mine = self._own.__dict__.pop("connection", None)
        if mine is not None and mine is not self._first:
            with contextlib.suppress(libvirt.libvirtError):  # it is dead already
                mine.close()

    def close(self) -> None:
        """Close the first connection; every other thread has hung up."""
        if self._subscription is not None:
            self._subscription.cancel()
        if self._first is not None:
            with contextlib.suppress(libvirt.libvirtError):  # it is dead already
                self._first.close()

    def _connect(self) -> libvirt.virConnect:
        event_loop.ensure_running()
        try:
            connection = libvirt.open(self._uri)
        except libvirt.libvirtError as error:
            raise _unreachable(error) from None
        try:
            connection.setKeepAlive(*self._keepalive)
        except libvirt.libvirtError as error:
            connection.close()  # here, and not wherever the traceback is dropped
            raise _unreachable(error) from None
        return connection


def _unreachable(error: libvirt.libvirtError) -> Unreachable:
    return Unreachable(error.get_error_message() or str(error), code=error.get_error_code() or 0)
