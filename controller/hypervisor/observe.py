"""Observation: what libvirt says of one domain, turned into the planner's facts.

Reads only. Anything that cannot be read or understood raises: unknown is never reported as absent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from controller.chain.disk import DomainDefinition
from controller.chain.journal import OperationKind
from controller.chain.marks import Mark, MarkKind, parse_mark
from controller.chain.mentions import mentions
from controller.chain.observation import DiskFacts, Job, Observation, Size
from controller.chain.opened import Opened as ChainOpened
from controller.chain.parse import parse_domain
from controller.chain.room import DEFAULT_CLUSTER, whole
from controller.chain.seal import Sealing
from controller.chain.source import Source
from controller.hypervisor.claims import Claim, claims, network_images, users_elsewhere
from controller.hypervisor.driver import Definitions, DomainReading, Driver, LayerStats, Opened
from controller.hypervisor.errors import (
    Busy,
    DomainGone,
    HypervisorError,
    NotRunning,
    OutcomeUnknown,
    Unreachable,
)
from controller.hypervisor.records import Belief, behind, record_of

log = logging.getLogger(__name__)

_PARSE_HERE = 16
"""Up to so many documents are parsed on the event loop; more go to a thread."""


async def observe(
    driver: Driver, uuid: str, *, identities: Collection[str], sealing: Sealing | None = None
) -> Observation:
    """Read one domain.

    ``identities`` are the clusters whose journals count as ours; ``sealing`` tells what in them is really
    ours: without it they are believed as they stand. Raises :class:`HypervisorError` or :class:`ParseError`.
    """
    return _facts(await driver.read(uuid), Belief(identities, sealing))


@dataclass(frozen=True)
class Elsewhere:
    """What the other hypervisors said."""

    documents: Mapping[str, tuple[str, ...]]
    """All definitions, by the name of the hypervisor."""
    silent: tuple[str, ...]
    """Hypervisors that said nothing, or not of all their machines: unknown is not absent."""


@dataclass
class Fleet:
    """The other hypervisors: an image on the network may be used from any of them. For one pass."""

    drivers: Mapping[str, Driver] = field(default_factory=dict)
    """By name, those that are connected."""
    away: tuple[str, ...] = ()
    """Names of those that are not."""
    _said: Elsewhere | None = field(default=None, init=False)

    async def claims(self, here: Iterable[str]) -> tuple[Claim, ...]:
        """Who claims images anywhere, read now; ``here`` are the definitions of the hypervisor in question.
        Raises HypervisorError when one that was connected does not answer, or one of its machines."""
        found = await asyncio.gather(*(other.definitions() for other in self.drivers.values()))
        said = dict(zip(self.drivers, found, strict=True))
        if silent := [_in_part(name, one) for name, one in said.items() if one.unread]:
            raise Busy(f"what Hypervisor {', '.join(silent)} uses cannot be told while that does not answer")
        return await asyncio.to_thread(claims, here, {name: one.documents for name, one in said.items()})

    async def elsewhere(self) -> Elsewhere:
        """What all others define, asked at the same time, once: the slowest that answers takes the time."""
        if self._said is None:
            answers = await asyncio.gather(*(_answer(other) for other in self.drivers.values()))
            said = {name: one for name, one in zip(self.drivers, answers, strict=True) if one is not None}
            in_part = {_in_part(name, one) for name, one in said.items() if one.unread}
            silent = {*self.away, *(self.drivers.keys() - said.keys()), *in_part}
            documents = {name: one.documents for name, one in said.items()}
            self._said = Elsewhere(documents, tuple(sorted(silent)))
        return self._said


def _in_part(hypervisor: str, said: Definitions) -> str:
    return f"{hypervisor} (of its machine {', '.join(sorted(said.unread.values()))})"


async def _answer(driver: Driver) -> Definitions | None:
    try:
        return await driver.definitions()
    except HypervisorError as error:
        log.warning("a hypervisor cannot be asked who uses an image", extra={"why": str(error)})
        return None


async def with_usage(
    driver: Driver,
    observation: Observation,
    fleet: Fleet | None = None,
    *,
    lent: bool = False,
    merging: bool = False,
    measuring: Collection[str] = (),
) -> Observation:
    """The observation with who else uses images, read now; raises as :func:`observe` does. With ``lent`` also
    what anybody claims anywhere; with ``merging`` what libvirt keeps of the domain; with ``measuring`` how
    much is free where the images of these disks lie, which takes longer the more images lie there.

    An image that a disk of the domain itself names by now, and did not when it was observed, counts as used.
    The fleet is asked only if a disk in varve's care has an image that others can reach.
    """
    images = network_images(observation)
    asked = fleet if fleet is not None and (lent or images) else Fleet()
    here, elsewhere, observation = await asyncio.gather(
        driver.definitions(), asked.elsewhere(), _with_marks(driver, observation, merging, measuring)
    )
    documents = here.documents
    unread = sorted(name for uuid, name in here.unread.items() if uuid != observation.uuid)
    if lent:
        found = await asyncio.to_thread(claims, documents, elsewhere.documents)
        observation = replace(observation, claims={claim.name: claim.user for claim in reversed(found)})
    few = len(documents) <= _PARSE_HERE
    users = _users(documents, observation) if few else await asyncio.to_thread(_users, documents, observation)
    if images and elsewhere.documents:
        others = await asyncio.to_thread(users_elsewhere, elsewhere.documents, images, observation)
        users = {**others, **users}
    return replace(observation, in_use_elsewhere=users, unasked=elsewhere.silent, unread=tuple(unread))


async def _with_marks(
    driver: Driver, observation: Observation, merging: bool, measuring: Collection[str]
) -> Observation:
    if not (merging or measuring):
        return observation
    chains = [observation.disks[target].chain for target in measuring if target in observation.disks]
    images = [layer.source for chain in chains if chain is not None for layer in chain.layers]
    found = await driver.surroundings(observation.uuid, images)
    marks = tuple(parse_mark(xml) for xml in found.marks)
    looked_at = _worth_a_look(observation, marks) if merging else []
    inside = await driver.inside(looked_at) if looked_at else {}
    homes = {image.home for image in images}
    others = {home: size for home, size in observation.free.items() if home not in homes}
    return replace(observation, marks=marks, inside=inside, free={**others, **found.free})


def _worth_a_look(observation: Observation, marks: Iterable[Mark]) -> list[Source]:
    """Frozen qcow2 images that a merge may write to or read, and of which libvirt does not tell enough: those
    that bitmaps may have to move to, and those on devices that could be too small."""
    marked = {target for mark in marks if mark.kind is MarkKind.CHECKPOINT for target in mark.images}
    found = []
    for facts in observation.disks.values():
        if facts.live is None or observation.journal.disk(facts.target).is_empty:
            continue
        for layer in facts.live.layers[1:]:
            size = facts.sizes.get(layer.key)
            tight = size is not None and 0 < size.physical < whole(size.capacity, DEFAULT_CLUSTER)
            on_device = layer.source.type == "block" and tight
            if layer.format == "qcow2" and (on_device or facts.target in marked):
                found.append(layer.source)
    return found


async def with_written(driver: Driver, observation: Observation, targets: Collection[str]) -> Observation:
    """The observation with when the images of these disks were written to last. Raises as :func:`observe`."""
    chains = {target: observation.disks[target].chain for target in targets}
    images = [layer.source for chain in chains.values() if chain is not None for layer in chain.layers]
    written = await driver.written(images)
    disks = {t: replace(f, written=written) if t in chains else f for t, f in observation.disks.items()}
    return replace(observation, disks=disks)


async def with_opened(
    driver: Driver,
    observation: Observation,
    targets: Collection[str],
    *,
    identities: Collection[str],
    sealing: Sealing | None = None,
) -> Observation:
    """The observation with what QEMU has open for these disks.

    QEMU is asked over its monitor, which marks the domain as tainted (``custom-monitor``); so it is asked
    only when libvirt cannot tell, and not when the image in question was never made. Raises as
    :func:`observe` does, except that a QEMU that cannot be asked is a fact as well.
    """
    asked = [target for target in targets if not await _never_made(driver, observation, target)]
    if asked:
        found = await _opened(driver, observation)
        # What libvirt was about to note when it was read first is noted by now.
        again = await observe(driver, observation.uuid, identities=identities, sealing=sealing)
        observation = replace(again, free=observation.free)
    else:
        found = Opened()
    answers = {target: _of_disk(found, target) if target in asked else ChainOpened() for target in targets}
    disks = {
        target: replace(facts, opened=answers[target]) if target in answers else facts
        for target, facts in observation.disks.items()
    }
    return replace(observation, disks=disks)


async def _never_made(driver: Driver, observation: Observation, target: str) -> bool:
    operation, chain = observation.journal.disk(target).operation, observation.disks[target].chain
    if operation is None or operation.kind is not OperationKind.TAKE:
        return False
    if chain is not None and chain.position(operation.kept.key) is not None:
        return False
    return await driver.present(operation.kept.source) is False


async def _opened(driver: Driver, observation: Observation) -> Opened | str:
    lives = [facts.live for facts in observation.disks.values() if facts.live is not None]
    try:
        # Asked about an image whose server hangs, QEMU would stand still with its guest (ADR 9).
        await driver.reach([layer.source for live in lives for layer in live.layers])
        return await driver.opened(observation.uuid)
    except (Unreachable, OutcomeUnknown, Busy, DomainGone, NotRunning):
        raise
    except HypervisorError as error:
        return error.message or "QEMU cannot be asked"


def _of_disk(found: Opened | str, target: str) -> ChainOpened:
    if isinstance(found, str):
        return ChainOpened(problem=found)
    chain = found.disks.get(target)
    if chain is None:
        return ChainOpened(problem=f"QEMU shows no disk {target}")
    return ChainOpened(chain, found.files)


def definition_of(reading: DomainReading) -> DomainDefinition:
    """The definition that counts now: the live one while the domain is active."""
    xml = reading.live_xml or reading.inactive_xml
    if xml is None:
        raise ValueError(f"domain {reading.uuid} has neither a live nor a persistent definition")
    return parse_domain(xml)


def _facts(reading: DomainReading, belief: Belief) -> Observation:
    live = parse_domain(reading.live_xml) if reading.live_xml is not None else None
    inactive = parse_domain(reading.inactive_xml) if reading.inactive_xml is not None else None
    current = live or inactive
    if current is None:
        raise ValueError(f"domain {reading.uuid} has neither a live nor a persistent definition")
    found = record_of(current, belief)
    return Observation(
        uuid=reading.uuid,
        name=current.name,
        state=reading.state,
        persistent=reading.persistent,
        disks={disk.target: _disk(disk.target, live, inactive, reading) for disk in current.disks},
        journal=found.journal,
        behind=behind(found, inactive, belief) if live is not None else frozenset(),
        journal_problem=found.problem,
        journal_untrusted=found.untrusted,
        unsealed=found.unsealed,
        foreign_owner=found.foreign,
        domain_job=reading.job_active,
        paused_by_io_error=reading.paused_by_io_error,
        machine=live.machine if live else "",
    )


def _disk(
    target: str, live: DomainDefinition | None, inactive: DomainDefinition | None, reading: DomainReading
) -> DiskFacts:
    running = live.disk(target) if live else None
    job = reading.jobs.get(target)
    mine = [stats for stats in reading.stats if stats.target == target]
    by_index = {stats.index: stats for stats in mine}
    sizes = {}
    for position, layer in enumerate(running.layers if running else ()):
        stats = by_index.get(layer.index)
        if stats is None and position == 0 and layer.index is None and mine:
            stats = mine[0]  # old or foreign XML numbers the lower layers alone; the active one is told first
        if stats is not None:
            sizes[layer.key] = Size(_held(layer.source, stats), stats.capacity, stats.physical)
    return DiskFacts(
        target=target,
        live=running,
        inactive=inactive.disk(target) if inactive else None,
        job=Job(job.kind, job.current, job.end) if job else None,
        sizes=sizes,
        run=live.run if live else "",
        stop_is_known=live is None and reading.state_reason not in {"", "unknown"},
    )


def _held(source: Source, stats: LayerStats) -> int:
    """Bytes that an image holds, at most.

    libvirt's allocation is the highest offset that this very QEMU has written to: 0 for every layer after a
    start or a migration (measured). Files and gluster tell what they really take; of an export or a device,
    which take their whole size, it is all there is.
    """
    if source.type == "file" or source.protocol == "gluster":
        return stats.physical or stats.allocation
    return stats.allocation or stats.capacity


def _users(documents: Iterable[str], observation: Observation) -> dict[str, str]:
    """Who names an image besides one disk of the observed domain: footprint to a phrase for people."""
    users: dict[str, str] = {}
    for document in documents:
        definition = parse_domain(document)
        own = definition.uuid == observation.uuid
        for disk in definition.disks:
            named = disk.footprints
            if own:
                named -= _known(observation, disk.target)
            users |= dict.fromkeys(named, f"disk {disk.target} of {definition.name}")
        else_named = mentions(document) - {name for disk in definition.disks for name in disk.footprints}
        for name in else_named:
            users.setdefault(name, f"the definition of {definition.name}")
        if own:
            counted = Counter(named for disk in definition.disks for named in disk.footprints)
            shared = {named for named, count in counted.items() if count > 1}
            users |= dict.fromkeys(shared, f"another disk of {definition.name}")
    return users


def _known(observation: Observation, target: str) -> frozenset[str]:
    """What the disk named when it was observed."""
    facts = observation.disks.get(target)
    chains = (facts.live, facts.inactive) if facts is not None else ()
    return frozenset(named for chain in chains if chain is not None for named in chain.footprints)
