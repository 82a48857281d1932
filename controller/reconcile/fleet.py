"""The hypervisors that this process is connected to, one supervised :class:`Host` per Hypervisor object."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controller.api.conditions import HYPERVISOR_CONDITIONS, State, Verdict, conditions
from controller.api.hypervisor import (
    LONGEST_IMAGE,
    LONGEST_NAME,
    LONGEST_REASON,
    LONGEST_TIME,
    MOST_ORPHANS,
    DomainCounts,
    Hypervisor,
    HypervisorStatus,
    KnownFault,
    MissingCapability,
    OrphanImage,
    OrphanImages,
)
from controller.api.reasons import Reason
from controller.api.uri import InvalidURIError, parse_uri
from controller.chain.gate import Gate
from controller.hypervisor import needs
from controller.hypervisor.driver import Event, Facts
from controller.hypervisor.host import Connector, Host, HostStatus
from controller.hypervisor.timed import timed_connector
from controller.kube.errors import ObjectGone
from controller.kube.kinds import HYPERVISOR, Raw
from controller.kube.port import KubeClient
from controller.reconcile.orphans import Orphan, Orphans
from controller.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

COUNTS_SECONDS = 300.0
"""So often the counts of domains are written at most when nothing else is to be told."""

_MOST_CAPABILITIES = 64
"""As many as the status holds."""

MakeConnector = Callable[[str], Connector]
"""From a checked URI to something that opens connections."""


class Fleet:
    """Keeps one host per Hypervisor object. Use from one event loop."""

    def __init__(
        self,
        make_connector: MakeConnector,
        metrics: Metrics,
        *,
        on_event: Callable[[str, Event], None],
        on_change: Callable[[str], None],
    ) -> None:
        self._make_connector = make_connector
        self._metrics = metrics
        self._on_event = on_event
        self._on_change = on_change
        self.hosts: dict[str, Host] = {}
        self.faults: dict[str, str] = {}
        """By name: why no connection is tried."""
        self._uris: dict[str, str] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    def put(self, hypervisor: Hypervisor) -> None:
        """A Hypervisor object is there: connect, or connect anew when its URI has changed."""
        name, uri = hypervisor.name, hypervisor.spec.uri
        if self._uris.get(name) == uri:
            return
        self.drop(name)
        self._uris[name] = uri
        try:
            checked = parse_uri(uri)
        except InvalidURIError as error:
            # The CRD refuses such a URI; an older CRD, or one that was edited, may not.
            self.faults[name] = str(error)
            self._on_change(name)
            return
        connect = self._make_connector(checked.connect_to)
        host = Host(
            name,
            timed_connector(connect, self._metrics.libvirt_call_seconds),
            on_event=self._on_event,
            on_change=self._on_change,
            doorbell=getattr(connect, "doorbell", None),
        )
        self.hosts[name] = host
        host.start()

    def drop(self, name: str) -> None:
        """A Hypervisor object is gone: disconnect. Jobs on it go on."""
        self._uris.pop(name, None)
        self.faults.pop(name, None)
        host = self.hosts.pop(name, None)
        if host is not None:
            task = asyncio.get_running_loop().create_task(host.stop(), name=f"stop {name}")
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    async def stop(self) -> None:
        """Disconnect from all."""
        for name in list(self.hosts):
            self.drop(name)
        if self._stopping:
            await asyncio.wait(set(self._stopping))

    def gauge(self, name: str) -> None:
        """Show the connection in the metrics."""
        host = self.hosts.get(name)
        self._metrics.libvirt_up.labels(name).set(1 if host is not None and host.status.connected else 0)


def hypervisor_status(
    hypervisor: Hypervisor,
    host: Host | None,
    fault: str | None,
    now: datetime,
    orphans: Sequence[Orphan] | None = None,
) -> HypervisorStatus:
    """The status of a Hypervisor object; without an inventory of orphans the last one holds. Pure."""
    before = hypervisor.status
    status = host.status if host else None
    verdict = _verdict(status, fault)
    facts = status.facts if status else None
    connected = status is not None and status.connected
    domains = host.domains if host is not None and connected else None
    return HypervisorStatus(
        conditions=conditions(
            verdict, before.conditions, hypervisor.generation, now, types=HYPERVISOR_CONDITIONS
        ),
        observed_generation=hypervisor.generation,
        libvirt_version=facts.libvirt_version if facts else before.libvirt_version,
        qemu_version=facts.qemu_version if facts else before.qemu_version,
        domains=before.domains
        if domains is None
        else DomainCounts(total=len(domains), running=sum(domain.active for domain in domains)),
        capabilities=tuple(sorted(facts.capabilities))[:_MOST_CAPABILITIES] if facts else before.capabilities,
        missing=_missing(facts) if facts else before.missing,
        known_faults=_known_faults(facts.gate) if facts else before.known_faults,
        orphan_images=before.orphan_images if orphans is None else _orphan_images(orphans),
    )


def _missing(facts: Facts) -> tuple[MissingCapability, ...]:
    found = needs.missing(facts.capabilities, asked=facts.flags_asked)
    return tuple(MissingCapability(name=name, without=text, brought_by=by) for name, text, by in found)


def _known_faults(gate: Gate) -> tuple[KnownFault, ...]:
    return tuple(
        KnownFault(
            name=row.fault.value,
            of=gate.version_of(row.product),
            fact=row.fact,
            limit=row.limit,
            therefore=row.therefore,
        )
        for row in gate.rows
    )


def _orphan_images(orphans: Sequence[Orphan]) -> OrphanImages | None:
    if not orphans:
        return None
    listed = tuple(
        OrphanImage(
            image=orphan.image[:LONGEST_IMAGE],
            domain=orphan.domain[:LONGEST_NAME],
            disk=orphan.disk[:LONGEST_NAME],
            reason=orphan.reason[:LONGEST_REASON],
            since=orphan.since[:LONGEST_TIME] or None,
        )
        for orphan in orphans[:MOST_ORPHANS]
    )
    return OrphanImages(count=len(orphans), images=listed)


def _verdict(status: HostStatus | None, fault: str | None) -> Verdict:
    if fault is not None:
        return Verdict(State.STALLED, Reason.INVALID_URI, fault)
    if status is None or not status.tried:
        return Verdict(State.PROGRESSING, Reason.CONNECTING, "connecting")
    if status.connected:
        return Verdict(State.IN_SYNC, Reason.CONNECTED, "connected")
    return Verdict(State.WAITING, Reason.HYPERVISOR_UNREACHABLE, status.message)


@dataclass
class Counts:
    """When the counts of domains were told last: machines start and stop for many reasons, and nobody acts
    upon their number."""

    _told: dict[str, float] = field(default_factory=dict)
    """By hypervisor, loop time."""

    def told(self, name: str, now: float) -> None:
        """They were just written, alone or with something else."""
        self._told[name] = now

    def wait(self, name: str, now: float) -> float:
        """Seconds until they may be written although nothing else is to be told; 0 for none."""
        return max(0.0, self._told.get(name, now - COUNTS_SECONDS) + COUNTS_SECONDS - now)

    def forget(self, name: str) -> None:
        """The Hypervisor object is gone."""
        self._told.pop(name, None)


async def report_hypervisor(
    client: KubeClient,
    known: tuple[Raw, Hypervisor],
    host: Host | None,
    fault: str | None,
    *,
    now: datetime,
    inventory: Orphans,
    counts_wait: float = 0.0,
) -> Raw | None:
    """Write the status of a Hypervisor object unless it has an equal one; returns the new object. With
    ``counts_wait`` a change in the counts alone is not written yet."""
    raw, hypervisor = known
    if host is not None and not host.status.tried and hypervisor.status.conditions:
        return None  # this process has just begun to ask: what the last one found holds until the answer
    orphans = inventory.of(hypervisor.name, host)
    status = hypervisor_status(hypervisor, host, fault, now, orphans).to_api()
    before = hypervisor.status.to_api()
    if status == before or (counts_wait and _without_counts(status) == _without_counts(before)):
        return None
    try:
        return await client.apply_status(HYPERVISOR, raw, status)
    except ObjectGone:
        log.info("Hypervisor went while its status was written", extra={"object": hypervisor.name})
        return None


def _without_counts(status: Raw) -> Raw:
    return {name: value for name, value in status.items() if name != "domains"}
