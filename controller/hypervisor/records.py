"""The journal of one definition as a fact: what it says, whose it is, and whether it is believed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from controller.chain.disk import DomainDefinition
from controller.chain.journal import Journal
from controller.chain.journal_codec import JournalError, read
from controller.chain.seal import Sealing, Trust
from controller.chain.untrusted import distrust


@dataclass(frozen=True)
class Belief:
    """Whose journals count, and by which keys."""

    identities: Collection[str]
    sealing: Sealing | None


@dataclass(frozen=True)
class Record:
    """The journal of one definition, as far as it counts."""

    journal: Journal = field(default_factory=Journal)
    problem: str = ""
    """Why it cannot be read."""
    foreign: str = ""
    """Whose it is when it is not ours."""
    trust: Mapping[str, Trust] = field(default_factory=dict)
    untrusted: str = ""
    """Why it is not believed."""
    xml: str | None = None

    @property
    def counts(self) -> bool:
        """It can be read, is ours, and is believed."""
        return not (self.problem or self.foreign or self.untrusted)

    @property
    def unsealed(self) -> frozenset[str]:
        """Disks whose record has no seal."""
        return frozenset(target for target, trust in self.trust.items() if trust is Trust.UNSEALED)


def record_of(definition: DomainDefinition, belief: Belief) -> Record:
    """What the journal of one definition says, and whether that counts."""
    try:
        found = read(definition.journal_xml, belief.sealing, domain=definition.uuid)
    except JournalError as error:
        return Record(problem=str(error))
    journal = found.journal
    if journal.cluster and journal.cluster not in belief.identities:
        return Record(journal, foreign=journal.cluster) if journal.claims else Record()
    untrusted = distrust(definition.name, journal.cluster, found.trust)
    return (
        Record(untrusted=untrusted)
        if untrusted
        else Record(journal, trust=found.trust, xml=definition.journal_xml)
    )


def behind(running: Record, inactive: DomainDefinition | None, belief: Belief) -> frozenset[str]:
    """Disks whose record differs between the two definitions, as far as both are ours and can be read. One
    that is sealed in the running definition alone differs: the next start would bring the other back."""
    if inactive is None or not running.counts or inactive.journal_xml == running.xml:
        return frozenset()
    stored = record_of(inactive, belief)
    if stored.problem or stored.foreign:
        return frozenset()
    kept = running.journal.lasting
    targets = {disk.target for disk in (*kept.disks, *stored.journal.disks)}
    sealed = targets - running.unsealed if running.trust else set[str]()
    return frozenset(
        target
        for target in targets
        if kept.disk(target) != stored.journal.disk(target)
        or (target in sealed and stored.trust.get(target) is not Trust.SEALED)
    )
