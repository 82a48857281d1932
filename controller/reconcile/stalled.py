"""A job that does not get on, or a machine that does not answer: its storage servers are asked, so that the
objects can say what it waits for.

QEMU does not tell. A job whose server hangs just stays where it is, and so does a guest that uses the server,
or the monitor with all that is asked of the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from controller.chain.blocked import Blocked, Why
from controller.chain.observation import Observation
from controller.chain.plan import Plan, State
from controller.chain.source import Source
from controller.hypervisor.driver import Driver, Running
from controller.hypervisor.errors import Busy, OutcomeUnknown, StorageUnreachable
from controller.reconcile.ledger import Ledger
from controller.reconcile.store import DomainKey

_STILL = timedelta(seconds=4)
"""Without progress for so long, a job is asked after. A slow one answers by its servers being alive."""
_AT_A_STANDSTILL = timedelta(seconds=30)
"""Without progress for so long, a job stands still whoever answers: an OSD or a local disk is not asked."""
_STRIDE = 2 << 20
"""Bytes: more than a job copies between two looks at its limit (QEMU 7.2: 1 MiB at most), so that one with a
low ``bandwidthBytesPerSecond`` is given the time that a stride takes it."""


async def with_stalls(
    found: Plan, observation: Observation, driver: Driver, ledger: Ledger, key: DomainKey
) -> Plan:
    """The plan with the reason for merges that stand still because their storage does not answer."""
    waiting: dict[str, Blocked] = {}
    for disk in found.disks:
        facts = observation.disks.get(disk.target)
        job = facts.job if facts is not None and disk.running is not None else None
        since = ledger.still_since(key, disk.target, job.copied if job is not None else None)
        if ledger.now() - since < _STILL or facts is None or facts.live is None:
            continue
        try:
            await driver.reach(
                (layer.source for layer in facts.live.layers), running=Running.of(observation).written()
            )
        except StorageUnreachable as error:
            text = f"the job stands still: {error.told}; it goes on when the server answers"
            detail = error.message if error.public else ""
            waiting[disk.target] = Blocked(Why.STORAGE_UNREACHABLE, text, detail=detail)
        else:
            if ledger.now() - since >= _patience(found, disk.target):
                waiting[disk.target] = _at_a_standstill(since)
    return replace(
        found,
        standings=tuple(
            replace(standing, blocked=waiting[standing.want.target])
            if standing.state is State.MERGING
            and standing.blocked is None
            and standing.want.target in waiting
            else standing
            for standing in found.standings
        ),
    )


def _patience(found: Plan, target: str) -> timedelta:
    """How long a job of this disk may copy nothing at the limit that it was given."""
    wants = (one.want for one in found.standings if one.state is State.MERGING)
    limits = [want.policy.bandwidth for want in wants if want.target == target and want.policy.bandwidth]
    return max(_AT_A_STANDSTILL, timedelta(seconds=_STRIDE / min(limits)) if limits else timedelta())


def _at_a_standstill(since: datetime) -> Blocked:
    text = (
        f"the job stands still: it has copied nothing since {since:%Y-%m-%d %H:%M:%S} UTC, and what can be "
        "asked of its storage answers; look at what cannot (the OSDs of a Ceph: ceph health; a local disk: "
        "the hypervisor's kernel log); it goes on by itself when its reads and writes are answered"
    )
    return Blocked(Why.STORAGE_UNREACHABLE, text)


async def cause_of(error: Exception, driver: Driver, remote: Sequence[Source]) -> Exception:
    """The error of a domain that could not be read, or the server of its images that explains it.

    ``remote``: the images on the network that it used when it was last read.
    """
    if not isinstance(error, Busy | OutcomeUnknown) or not remote:
        return error
    try:
        await driver.reach(remote)
    except StorageUnreachable as found:
        told = f"{error.told}: {found.told}; it goes on when the server answers"
        return StorageUnreachable(f"{error}: {found}; it goes on when the server answers", public=told)
    return error
