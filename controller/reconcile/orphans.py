"""Images that varve left: what is kept of them in the journals, as an inventory of each hypervisor.

A journal is read with its domain, so the passes keep the inventory true for nothing. Domains that nobody has
VolumeSnapshots of any more have no passes: they are read once, when the hypervisor is connected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from controller.chain.journal import Journal
from controller.chain.journal_codec import JournalError, decode
from controller.chain.parse import JOURNAL_NAMESPACE, ParseError, parse_domain
from controller.hypervisor.errors import Busy
from controller.hypervisor.host import Host
from controller.reconcile.store import DomainKey
from controller.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Orphan:
    """One image that no chain uses. ``since``: RFC 3339, when what took it out of its chain began; empty when
    that was not recorded."""

    since: str
    image: str
    domain: str
    disk: str
    reason: str


_IN_USE = (
    "a snapshot call that named it had no effect, and the running machine may still have it open; it is "
    "looked into and removed when the machine has been stopped"
)


def orphans_in(journal: Journal, domain: str) -> frozenset[Orphan]:
    """Those that the journal of one domain keeps."""
    return frozenset(
        Orphan(one.since, one.layer.source.uri, domain, record.target, one.left or _IN_USE)
        for record in journal.disks
        for one in record.removals
        if one.left or one.run
    )


def _swept(documents: Iterable[str], identities: Collection[str]) -> dict[str, frozenset[Orphan]]:
    """By UUID of a domain that has orphans. A document that cannot be read has none."""
    found: dict[str, frozenset[Orphan]] = {}
    for document in documents:
        if JOURNAL_NAMESPACE not in document:
            continue  # most domains, and not worth parsing
        try:
            definition = parse_domain(document)
            journal = decode(definition.journal_xml)
        except (ParseError, JournalError) as error:
            log.warning("a journal is not in the inventory of orphans", extra={"why": str(error)})
            continue
        if journal.cluster in identities and (orphans := orphans_in(journal, definition.name)):
            # The live and the persistent definition of one domain say the same, but for a moment.
            found[definition.uuid] = orphans
    return found


class Orphans:
    """The inventories of all hypervisors."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._known: dict[DomainKey, frozenset[Orphan]] = {}
        self._swept: set[str] = set()
        self._since_sweep: dict[str, set[DomainKey]] = {}
        """By hypervisor that is being swept: domains whose passes have seen later than that."""

    def put(self, key: DomainKey, orphans: frozenset[Orphan]) -> bool:
        """What a pass found in a journal; True when that is news."""
        self._since_sweep.get(key.hypervisor, set()).add(key)
        news = self._known.get(key, frozenset()) != orphans
        if orphans:
            self._known[key] = orphans
        else:
            self._known.pop(key, None)
        return news

    async def sweep(self, hypervisor: str, host: Host | None, identities: Collection[str]) -> None:
        """Read the journals of all domains; nothing without a connection: the next one asks for it again.

        ``identities``: the clusters whose journals are ours. Raises HypervisorError.
        """
        if host is None or not host.status.connected:
            return
        later = self._since_sweep[hypervisor] = set()
        try:
            said = await host.driver.definitions()
            found = await asyncio.to_thread(_swept, said.documents, identities)
        finally:
            self._since_sweep.pop(hypervisor, None)
        kept = later | {DomainKey(hypervisor, uuid) for uuid in said.unread}
        for key in [key for key in self._known if key.hypervisor == hypervisor and key not in kept]:
            del self._known[key]
        swept = {DomainKey(hypervisor, uuid): orphans for uuid, orphans in found.items()}
        self._known |= {key: orphans for key, orphans in swept.items() if key not in later}
        if said.unread:
            names = ", ".join(sorted(said.unread.values()))
            raise Busy(f"the record of machine {names} cannot be read while it does not answer")
        self._swept.add(hypervisor)

    def of(self, hypervisor: str, host: Host | None) -> tuple[Orphan, ...] | None:
        """The inventory of a hypervisor, the oldest first; None as long as it was not read as a whole.

        A domain that is gone has taken its journal with it: what it left is no longer known here.
        """
        mine = [key for key in self._known if key.hypervisor == hypervisor]
        if host is not None and host.status.synced:
            for key in [key for key in mine if host.find_by_uuid(key.uuid) is None]:
                del self._known[key]
        if hypervisor not in self._swept:
            return None
        found = sorted(orphan for key in mine for orphan in self._known.get(key, ()))
        self._metrics.orphan_images.labels(hypervisor).set(len(found))
        return tuple(found)
