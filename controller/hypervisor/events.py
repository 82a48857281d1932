"""libvirt's callbacks, turned into the port's events and handed to the asyncio loop.

The callbacks run on libvirt's event thread. They ask libvirt nothing (a hung daemon would stop every event of
every hypervisor) and hold no reference to a driver, only the function that takes the event.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import libvirt

from controller.hypervisor.driver import (
    DeviceChanged,
    Disconnected,
    Event,
    JobChanged,
    JobStatus,
    Lifecycle,
    LifecycleKind,
)
from controller.hypervisor.reading import job_kind

_LIFECYCLE = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: LifecycleKind.DEFINED,
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: LifecycleKind.UNDEFINED,
    libvirt.VIR_DOMAIN_EVENT_STARTED: LifecycleKind.STARTED,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: LifecycleKind.SUSPENDED,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: LifecycleKind.RESUMED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: LifecycleKind.STOPPED,
}
_JOB_STATUS = {
    libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED: JobStatus.COMPLETED,
    libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED: JobStatus.FAILED,
    libvirt.VIR_DOMAIN_BLOCK_JOB_CANCELED: JobStatus.CANCELED,
    libvirt.VIR_DOMAIN_BLOCK_JOB_READY: JobStatus.READY,
}
_CLOSED = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "the connection broke",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "the daemon closed the connection",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "the daemon did not answer keepalives",
    libvirt.VIR_CONNECT_CLOSE_REASON_CLIENT: "the connection was closed",
}


@dataclass(frozen=True)
class DeviceFailed:
    """A guest I/O error as libvirt reports it: by the device's alias, which is not the port's target."""

    uuid: str
    alias: str
    reason: str


RawEvent = Event | DeviceFailed
Take = Callable[[RawEvent], None]


class Subscription:
    """The callbacks registered on one connection. Both methods block: to be called on its threads.

    libvirt keeps a reference to the connection for each callback until it is deregistered, so a connection
    with a subscription is never closed by the garbage collector, which could hang wherever that happens.
    """

    def __init__(self, connection: libvirt.virConnect, take: Take) -> None:
        """Register; ``take`` is called on libvirt's event thread."""
        self._connection = connection
        self._identifiers: list[int] = []
        connection.registerCloseCallback(_on_close, take)
        for event, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, _on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, _on_block_job),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, _on_io_error),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, _on_plugged),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, _on_unplugged),
        ):
            self._identifiers.append(connection.domainEventRegisterAny(None, event, callback, take))

    def cancel(self) -> None:
        """Deregister everything. On a dead connection the daemon cannot be told; libvirt's client has dropped
        its reference by then, which is all that is wanted."""
        for identifier in self._identifiers:
            with contextlib.suppress(libvirt.libvirtError):
                self._connection.domainEventDeregisterAny(identifier)
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.unregisterCloseCallback()


def _on_lifecycle(
    _connection: libvirt.virConnect, domain: libvirt.virDomain, event: int, _detail: int, take: Take
) -> None:
    kind = _LIFECYCLE.get(event, LifecycleKind.OTHER)
    take(Lifecycle(uuid=domain.UUIDString(), name=domain.name(), kind=kind))


def _on_block_job(
    _connection: libvirt.virConnect,
    domain: libvirt.virDomain,
    target: str,
    kind: int,
    status: int,
    take: Take,
) -> None:
    known = _JOB_STATUS.get(status)
    if known is not None:
        take(JobChanged(uuid=domain.UUIDString(), target=target, kind=job_kind(kind), status=known))


def _on_io_error(
    _connection: libvirt.virConnect,
    domain: libvirt.virDomain,
    _path: str,
    alias: str,
    _action: int,
    reason: str,
    take: Take,
) -> None:
    take(DeviceFailed(uuid=domain.UUIDString(), alias=alias or "", reason=reason or ""))


def _on_plugged(_connection: libvirt.virConnect, domain: libvirt.virDomain, _alias: str, take: Take) -> None:
    take(DeviceChanged(uuid=domain.UUIDString(), plugged=True))


def _on_unplugged(
    _connection: libvirt.virConnect, domain: libvirt.virDomain, _alias: str, take: Take
) -> None:
    take(DeviceChanged(uuid=domain.UUIDString(), plugged=False))


def _on_close(_connection: libvirt.virConnect, reason: int, take: Take) -> None:
    take(Disconnected(reason=_CLOSED.get(reason, f"the connection closed (reason {reason})")))
