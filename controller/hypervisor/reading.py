"""What one domain and one inventory look like right now, in as few round trips as a true answer takes.

Every function here blocks and runs on a thread of the connection. They raise ``libvirt.libvirtError``; the
driver translates it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial

import libvirt
from lxml import etree

from controller.chain.gate import TABLE, Fault, Gate, gate
from controller.chain.observation import JobKind, RunState
from controller.hypervisor import probe
from controller.hypervisor.driver import BlockJob, DomainReading, DomainRef, LayerStats
from controller.hypervisor.errors import Busy
from controller.hypervisor.texts import told

_ARRIVING = "migration-in"
_ATTEMPTS = 5
"""How often a read that met a machine in the middle of starting or stopping begins again."""

_JOB_KINDS = {
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL: JobKind.PULL,
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY: JobKind.COPY,
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT: JobKind.COMMIT,
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT: JobKind.ACTIVE_COMMIT,
}
_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: (RunState.RUNNING, "VIR_DOMAIN_RUNNING_"),
    libvirt.VIR_DOMAIN_BLOCKED: (RunState.RUNNING, "VIR_DOMAIN_BLOCKED_"),
    libvirt.VIR_DOMAIN_PAUSED: (RunState.PAUSED, "VIR_DOMAIN_PAUSED_"),
    libvirt.VIR_DOMAIN_SHUTDOWN: (RunState.OTHER, "VIR_DOMAIN_SHUTDOWN_"),
    libvirt.VIR_DOMAIN_SHUTOFF: (RunState.SHUTOFF, "VIR_DOMAIN_SHUTOFF_"),
    libvirt.VIR_DOMAIN_CRASHED: (RunState.OTHER, "VIR_DOMAIN_CRASHED_"),
    libvirt.VIR_DOMAIN_PMSUSPENDED: (RunState.OTHER, "VIR_DOMAIN_PMSUSPENDED_"),
}
SHORT = min(row.limit for row in TABLE if row.fault is Fault.STATS_DEPTH and row.limit)
"""Chains of up to so many images may be measured whatever the version."""

NOT_MEASURED = (
    "QEMU cannot be asked for sizes, because this libvirt would lose the machine: a chain of it is too long "
    "(docs/operations.md, section A chain that does not start again)"
)
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
_LIVE = re.compile(r"\s*(?:<!--.*?-->\s*)?<domain\s[^>]*\bid=", re.DOTALL)


def _constants(prefix: str) -> dict[int, str]:
    """libvirt's constants with this prefix as ``{value: "words-of-the-name"}``."""
    return {
        getattr(libvirt, name): name.removeprefix(prefix).lower().replace("_", "-")
        for name in dir(libvirt)
        if name.startswith(prefix) and not name.endswith("_LAST")
    }


_REASONS = {state: _constants(prefix) for state, (_, prefix) in _STATES.items()}
_OPERATIONS = _constants("VIR_DOMAIN_JOB_OPERATION_")


class _Moved(Exception):
    """The machine started or stopped between two calls: what was read belongs to different moments."""


def job_kind(number: int) -> JobKind:
    """virDomainBlockJobType as varve names it."""
    return _JOB_KINDS.get(number, JobKind.OTHER)


def list_domains(connection: libvirt.virConnect) -> tuple[DomainRef, ...]:
    """All domains in one round trip (name, UUID and id come with the list)."""
    return tuple(
        DomainRef(uuid=domain.UUIDString(), name=domain.name(), active=domain.ID() != -1)
        for domain in connection.listAllDomains(0)
    )


def list_marks(connection: libvirt.virConnect, uuid: str) -> tuple[str, ...]:
    """XML of the snapshots and checkpoints that libvirt keeps of a domain."""
    domain = connection.lookupByUUIDString(uuid)
    marks = (*domain.listAllSnapshots(0), *domain.listAllCheckpoints(0))
    return tuple(told(partial(mark.getXMLDesc, 0)) for mark in marks)


def definitions_of(domain: libvirt.virDomain) -> Iterator[str]:
    """Live and persistent XML."""
    live = told(partial(domain.XMLDesc, 0))
    yield live
    if _LIVE.match(live) and domain.isPersistent():
        yield told(partial(domain.XMLDesc, libvirt.VIR_DOMAIN_XML_INACTIVE))


def would_answer(domain: libvirt.virDomain) -> bool:
    """Whether nothing is known that would keep libvirt from reading the definition out: neither a call that
    QEMU does not answer nor a migration that arrives."""
    try:
        return probe.is_free(domain) and _domain_job(domain) != _ARRIVING
    except _Moved:
        return True  # it does not run by now


def read_domain(connection: libvirt.virConnect, uuid: str, *, sizes: bool) -> DomainReading:
    """Read one domain; see :meth:`controller.hypervisor.driver.Driver.read`. No sizes where asking for them
    does harm (:mod:`controller.chain.gate`): while a disk is pulled, or of a chain that is too long.

    Jobs are asked for before the XML: libvirt changes the chain before it forgets the job, so an answer "no
    job" means that the XML read after it shows how the job ended. The run is fenced by the domain's id, which
    is new with every start: when it differs at the end, everything is read again.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _read_once(connection, uuid, sizes=sizes)
        except _Moved:
            continue
    raise Busy(f"domain {uuid} keeps starting and stopping while it is read")


def _read_once(connection: libvirt.virConnect, uuid: str, *, sizes: bool) -> DomainReading:
    domain = connection.lookupByUUIDString(uuid)
    run = domain.ID()
    active = run != -1
    disks: tuple[str, ...] = ()
    jobs: dict[str, BlockJob] = {}
    job_active = ""
    stats: tuple[LayerStats, ...] = ()
    if active:
        first = domain.XMLDesc(0)
        disks = _targets(first)
        job_active = _domain_job(domain)
        jobs = _jobs(domain, disks)
        if sizes and may_be_measured(connection, first, pulled=_pulled(jobs)):
            stats = _layer_stats(connection, domain)
    xml = domain.XMLDesc(0)
    persistent = bool(domain.isPersistent())
    inactive_xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) if persistent and active else xml
    number, reason = domain.state(0)
    if connection.lookupByUUIDString(uuid).ID() != run or bool(_LIVE.match(xml)) != active:
        raise _Moved
    if active and _targets(xml) != disks:
        raise _Moved
    state, _ = _STATES.get(number, (RunState.OTHER, ""))
    return DomainReading(
        uuid=uuid,
        state=state if active else RunState.SHUTOFF,
        state_reason=_REASONS.get(number, {}).get(reason, str(reason)),
        persistent=persistent,
        live_xml=xml if active else None,
        inactive_xml=inactive_xml if persistent else None,
        stats=stats,
        jobs=jobs,
        paused_by_io_error=(number, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR),
        job_active=job_active,
    )


def gate_of(connection: libvirt.virConnect) -> Gate:
    """The known faults of the versions that are installed now."""
    return gate(probe.version(connection.getLibVersion()), probe.version(connection.getVersion()))


def may_be_measured(connection: libvirt.virConnect, xml: str, *, pulled: Collection[str] = ()) -> bool:
    """Whether QEMU may be asked for the statistics of the machine with this live definition. The versions are
    asked for only where they matter."""
    root = etree.fromstring(xml.encode(), _PARSER)
    longest = max((_length(disk) for disk in root.iterfind("devices/disk")), default=0)
    if not pulled and longest <= SHORT:
        return True
    found = gate_of(connection)
    safe = not pulled or found.may_watch_pulls(_machine(xml))
    return safe and longest <= found.deepest_measured


def _machine(xml: str) -> str:
    """The type of the machine."""
    kind = etree.fromstring(xml.encode(), _PARSER).find("os/type")
    return "" if kind is None else kind.get("machine", "")


def _length(disk: etree._Element) -> int:
    """Images of the chain that a ``<disk>`` shows."""
    return sum(1 for element in disk.iter("disk", "backingStore") if element.find("source") is not None)


def refuse_beside_a_pull(domain: libvirt.virDomain, *, pulling: bool = False) -> None:
    """Raise Busy while a pull runs on any disk of the domain (``pulling``: any job).

    QEMU 7.2 crashes when query-named-block-nodes or query-blockstats meets the end of a pull, whatever disk
    they were meant for (measured: in 11 of 12 runs for a snapshot of another disk, never beside a commit).
    libvirt sends them for sizes, at the start of a snapshot or commit and at the end of a commit, so nothing
    of this may happen on a machine while one of its disks is pulled. A machine whose QEMU is known not to
    crash is let through.
    """
    try:
        xml = domain.XMLDesc(0) if domain.isActive() else ""
        jobs = _jobs(domain, _targets(xml)) if xml else {}
    except _Moved:
        raise Busy("the machine is stopping or changing its disks") from None
    busy = set(jobs) if pulling else _pulled(jobs)
    if busy and not gate_of(domain.connect()).may_watch_pulls(_machine(xml)):
        raise Busy(
            f"a job runs on disk {', '.join(sorted(busy))}: nothing else is done to this machine before it "
            "has ended, because QEMU can crash at the end of a pull that is not alone"
        )


def _pulled(jobs: Mapping[str, BlockJob]) -> set[str]:
    return {target for target, job in jobs.items() if job.kind is JobKind.PULL}


def _targets(xml: str) -> tuple[str, ...]:
    root = etree.fromstring(xml.encode(), _PARSER)
    return tuple(target.get("dev", "") for target in root.iterfind("devices/disk/target"))


def _jobs(domain: libvirt.virDomain, targets: Collection[str]) -> dict[str, BlockJob]:
    """The jobs of these disks. ``{}`` is "no job"; an error is raised."""
    jobs = {}
    for target in targets:
        try:
            info = domain.blockJobInfo(target, libvirt.VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES)
        except libvirt.libvirtError as error:
            unplugged = error.get_error_code() == libvirt.VIR_ERR_INVALID_ARG
            if _not_running(error) or (unplugged and "not found in domain" in str(error)):
                raise _Moved from error
            raise
        if info:
            jobs[target] = BlockJob(
                kind=job_kind(info["type"]), current=info["cur"], end=info["end"], bandwidth=info["bandwidth"]
            )
    return jobs


def _domain_job(domain: libvirt.virDomain) -> str:
    """The job that holds the whole domain (``migration-out``, ``save``, ``backup`` …), or empty."""
    try:
        stats = domain.jobStats(0)
    except libvirt.libvirtError as error:
        if _not_running(error):
            raise _Moved from error
        # The receiving end of a migration refuses to tell its progress; that it does says enough.
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID and "source host" in str(error):
            return _ARRIVING
        raise
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
        return ""
    return _OPERATIONS.get(stats.get("operation", 0), "unknown")


def _not_running(error: libvirt.libvirtError) -> bool:
    stopped = error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID and "is not running" in str(error)
    return bool(stopped)


def _layer_stats(connection: libvirt.virConnect, domain: libvirt.virDomain) -> tuple[LayerStats, ...]:
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING
    for _, record in connection.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_BLOCK, flags):
        return tuple(_layers_of(record))
    return ()


def completed_requests(connection: libvirt.virConnect, uuid: str) -> dict[str, int]:
    """How many requests of the guest QEMU has completed since the start, by target. Does not wait for I/O
    (measured: 2 to 25 ms while a server hangs). Raises Busy where asking does harm: beside a pull, whose end
    it must not meet, and with a chain that is too long."""
    domain = connection.lookupByUUIDString(uuid)
    refuse_beside_a_pull(domain)
    if not may_be_measured(connection, domain.XMLDesc(0)):
        raise Busy(NOT_MEASURED)
    found = {}
    for _, record in connection.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_BLOCK, 0):
        for number in range(int(record.get("block.count", 0))):
            done = (record.get(f"block.{number}.{kind}.reqs") for kind in ("rd", "wr", "fl"))
            found[str(record[f"block.{number}.name"])] = sum(int(one) for one in done if one is not None)
    return found


def _layers_of(record: Mapping[str, str | int]) -> Iterator[LayerStats]:
    """One entry per layer that has sizes. A drive without medium and a layer that QEMU told nothing about
    have none, and nothing is made up for them."""
    for number in range(int(record.get("block.count", 0))):
        values = {
            name: record.get(f"block.{number}.{name}") for name in ("allocation", "capacity", "physical")
        }
        if any(value is None for value in values.values()):
            continue
        index = record.get(f"block.{number}.backingIndex")
        yield LayerStats(
            target=str(record[f"block.{number}.name"]),
            index=None if index is None else int(index),
            **{name: int(value) for name, value in values.items() if value is not None},
        )


def target_of_alias(connection: libvirt.virConnect, uuid: str, alias: str) -> str:
    """The target (``vda``) of the disk that QEMU knows by ``alias`` (``virtio-disk0``), or empty."""
    root = etree.fromstring(connection.lookupByUUIDString(uuid).XMLDesc(0).encode(), _PARSER)
    for disk in root.iterfind("devices/disk"):
        named, target = disk.find("alias"), disk.find("target")
        if named is not None and target is not None and named.get("name") == alias:
            return target.get("dev", "")
    return ""
