"""VolumeChains: which domain each means, what it says, and which of them the controller makes.

Nothing here is on the way of a take or a merge. A pass leaves what it saw; some seconds later, when most
operations are over, it is told, at most once in a while, and only when it is news.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controller.api.conditions import SNAPSHOT_CONDITIONS, Fact, State, Truth, Verdict
from controller.api.reasons import Reason
from controller.api.schema import DNS_SUBDOMAIN
from controller.api.volumechain import CONTROLLER_LABELS, VolumeChainStatus
from controller.api.volumesnapshot import Resolved
from controller.chain import circumstances as at
from controller.chain.consent import Approval
from controller.chain.desired import Want
from controller.chain.forecast import forecast
from controller.chain.journal import Journal, Owner
from controller.chain.observation import Observation
from controller.kube.errors import Conflict, ObjectGone, ObjectReplaced
from controller.kube.kinds import VOLUME_CHAIN, Raw, uid_of
from controller.reconcile.chain_policies import Policies, approvals
from controller.reconcile.chain_report import (
    Look,
    chain_status,
    drift_text,
    other_status,
    superseded,
    unread_status,
)
from controller.reconcile.chain_store import Chain
from controller.reconcile.context import Context
from controller.reconcile.keys import ChainKey, DomainKey, ReportKey
from controller.reconcile.misread import report_misread
from controller.reconcile.news import is_news
from controller.reconcile.reporter import unreadable
from controller.reconcile.resolution import Resolution
from controller.reconcile.resolve import Found, NotFound
from controller.reconcile.shares import CHAINS
from controller.reconcile.store import Snapshot
from controller.reconcile.wants import owner_of

log = logging.getLogger(__name__)

Part = tuple[str, str]
"""A namespace, and a disk (by target) in which it has a part."""

REST_SECONDS = 2.0
"""A domain is reported so long after a pass: most of what was begun is over by then."""
PAUSE_SECONDS = 5.0
"""A status is not written more often."""
LINGER_SECONDS = 60.0
"""A VolumeChain of ours stays so long without need: the next point of the disk may be on its way."""
_WAIT_SECONDS = 30.0
_LONGEST_NAME = 253


@dataclass
class Chains:
    """Use from one event loop only. All that it remembers may be lost at any time."""

    context: Context
    resolution: Resolution
    _looks: dict[DomainKey, tuple[Observation, tuple[Want, ...], at.Circumstances]] = field(
        default_factory=dict
    )
    _heard: dict[ChainKey, int] = field(default_factory=dict)
    """Generations whose policy the domain's passes know."""
    _written: dict[ChainKey, float] = field(default_factory=dict)
    _unneeded: dict[ChainKey, float] = field(default_factory=dict)
    _held_back: set[ChainKey] = field(default_factory=set)
    """VolumeChains that cannot be read: merges of the disks that they may mean wait."""
    _drifted: dict[tuple[DomainKey, str], set[ChainKey]] = field(default_factory=dict)
    """Disks that somebody else was found to have changed, and the VolumeChains that were told so."""

    # For a pass ----------------------------------------------------------------------------------------

    def policies(self, key: DomainKey, observation: Observation) -> Policies:
        """By target, the VolumeChains whose policy holds, of disks that there are or that have a record."""
        targets = {*observation.disks, *(disk.target for disk in observation.journal.disks)}
        hypervisor = self.context.store.hypervisor(key.hypervisor)
        return self.context.store.chains.policies(key, observation.name, hypervisor, targets)

    def approvals(self, key: DomainKey, name: str, policies: Policies) -> dict[str, tuple[Approval, ...]]:
        """What was agreed to on the disks whose merges wait for that: nothing where that cannot be read."""
        store = self.context.store
        return approvals(policies, store.chains.misread(key, name, store.hypervisor(key.hypervisor)))

    def saw(
        self, key: DomainKey, observation: Observation, wants: Iterable[Want], circumstances: at.Circumstances
    ) -> None:
        """A pass has ended with this; it is told later."""
        self._looks[key] = (observation, tuple(wants), circumstances)
        self.context.later(ReportKey(key.hypervisor, key.uuid), REST_SECONDS)

    def drifted(self, key: DomainKey, target: str) -> None:
        """Somebody else was found to have changed the chain of a disk."""
        self._drifted[key, target] = set()

    async def unreadable(self, key: DomainKey, error: Exception) -> None:
        """The domain could not be read: what its VolumeChains say may be true no longer."""
        self._looks.pop(key, None)
        for chain in self.context.store.chains.of(key):
            status = unread_status(chain.parsed, unreadable(error), self.context.now())
            await self._write(chain, status)

    # The resolution of one -----------------------------------------------------------------------------

    async def resolve(self, key: ChainKey) -> float | None:
        """Find the domain that it means and wake it, or say why there is none. Returns seconds until the
        next look."""
        store = self.context.store
        chain = store.chains.chains.get(key)
        if chain is None:
            await self._misread(key)
            before = store.chains.bind(key, None)
            self._written.pop(key, None)
            self._unneeded.pop(key, None)
            self._heard.pop(key, None)
            self.context.overdue.forget(key)
            self.context.pace.forget(key)
            if before is not None:
                self.context.wake(before)
            return None
        if key in self._held_back:
            await self._misread(key)
        found = self.resolution.of(chain.parsed)
        if not isinstance(found, NotFound):
            return await self._bind(chain, found)
        store.chains.bind(key, None)
        if self.resolution.is_early(found) or not self.resolution.is_ours(chain.parsed):
            return _WAIT_SECONDS
        if chain.is_made_by_us and found.gone and self.context.whole_fleet:
            await self._remove_when_unneeded(chain)
            return _WAIT_SECONDS
        state = State.STALLED if found.stalled else State.WAITING
        fact = Fact(Truth.UNKNOWN, found.reason, found.message)
        resolved = Fact(Truth.FALSE, found.reason, found.message)
        verdict = Verdict(state, found.reason, found.message, resolved=resolved, chain_in_sync=fact)
        verdict = self._judged(chain, verdict)
        return await self._tell(chain, verdict) or self.context.overdue.left(key) or _WAIT_SECONDS

    async def _bind(self, chain: Chain, found: Found) -> float | None:
        store, key, domain = self.context.store, chain.key, DomainKey(found.hypervisor, found.domain.uuid)
        before = store.chains.bind(key, domain)
        if before is not None and before != domain:
            self.context.wake(before)
        if store.chains.waits(key):
            return await self._tell(chain, _over_quota(chain, found))
        heard = self._is_heard(chain)
        if not heard:
            # What failed may not fail under the new policy.
            self.context.ledger.try_again(domain)
        if before != domain or not heard or not store.members(domain):
            self.context.wake(domain)
        return None

    async def _tell(self, chain: Chain, verdict: Verdict) -> float | None:
        """Write the verdict on one that no domain is looked at for, in the namespace's turn; returns the
        seconds until then."""
        status, pace = other_status(chain.parsed, verdict, self.context.now()), self.context.pace
        if is_news(chain.parsed.status.to_api(), status.to_api()):
            now = asyncio.get_running_loop().time()
            if wait := pace.wait(chain.parsed.namespace, chain.key, now):
                return wait
            await self._write(chain, status)
        pace.forget(chain.key)
        return None

    async def _misread(self, key: ChainKey) -> None:
        """One that cannot be read says so; the disks that it may mean are looked at again."""
        raw, fault = self.context.store.chains.faults.get(key, (None, ""))
        if (raw is not None) != (key in self._held_back):
            self._held_back ^= {key}
            for domain in self.context.store.domains():
                self.context.wake(domain)
        if raw is None or not self.context.whole_fleet:
            return
        after = await report_misread(self.context, VOLUME_CHAIN, raw, fault, SNAPSHOT_CONDITIONS)
        if after is not None:
            self.context.store.chains.put(after)

    def _judged(self, chain: Chain, verdict: Verdict) -> Verdict:
        parsed = chain.parsed
        return self.context.overdue.judged(chain.key, parsed.uid, verdict, parsed.status.conditions)

    def _is_heard(self, chain: Chain) -> bool:
        """Whether this very policy was heard before; notes it."""
        before, self._heard[chain.key] = self._heard.get(chain.key), chain.parsed.generation
        return before == chain.parsed.generation

    # The report of one domain --------------------------------------------------------------------------

    async def report(self, key: ReportKey) -> float | None:
        """Tell what the last pass saw. Returns seconds until there is more to tell."""
        domain = DomainKey(key.hypervisor, key.uuid)
        look = self._looks.pop(domain, None)
        if look is None:
            return None
        observation, wants, circumstances = look
        chains = self.context.store.chains.of(domain)
        ahead = forecast(observation, wants, circumstances)
        everyone = self.context.store.everyone(domain)
        there = {owner_of(one.parsed): one.parsed.deleting for one in everyone}
        seen = Look(observation, ahead, there | self._misread_owners(), circumstances.adopts_drift)
        counting: dict[Part, Chain] = {}
        for chain in chains:
            counting.setdefault(part_of(chain), chain)
        for part, snapshot in self._unreported(domain, counting).items():
            made = await self._make(snapshot, observation, part[1])
            if made is not None:
                self.context.store.chains.bind(made.key, domain)
                self._is_heard(made)
                counting[part] = made
                chains.append(made)
        waits = [await self._one(domain, chain, counting, seen) for chain in chains]
        again = min((wait for wait in waits if wait is not None), default=None)
        if again is not None:
            self._looks.setdefault(domain, look)
        else:
            self._drifted = {pair: told for pair, told in self._drifted.items() if pair[0] != domain}
        return again

    async def _one(
        self, domain: DomainKey, chain: Chain, counting: Mapping[Part, Chain], seen: Look
    ) -> float | None:
        target, now = chain.parsed.spec.source.disk, asyncio.get_running_loop().time()
        first = counting[part_of(chain)]
        if chain.is_made_by_us and (first.key != chain.key or not self._is_needed(domain, chain, seen)):
            return await self._remove_later(chain, now, at_once=first.key != chain.key)
        self._unneeded.pop(chain.key, None)
        pause = self._written.get(chain.key, now - PAUSE_SECONDS) + PAUSE_SECONDS - now
        if first.key != chain.key:
            status = other_status(chain.parsed, superseded(first.label), self.context.now())
        else:
            resolved = Resolved(
                hypervisor=domain.hypervisor,
                domain_name=seen.observation.name,
                domain_uuid=seen.observation.uuid,
                disk=target,
            )
            status = chain_status(
                chain.parsed,
                seen,
                resolved,
                self.context.now(),
                judged=lambda verdict: self._judged(chain, verdict),
            )
        if pause > 0 and is_news(chain.parsed.status.to_api(), status.to_api()):
            return pause
        await self._write(chain, status)
        told = self._drifted.get((domain, target))
        if first.key == chain.key and told is not None and chain.key not in told:
            told.add(chain.key)
            self._tell_drift(chain, seen, target)
        return self.context.overdue.left(chain.key)

    def _misread_owners(self) -> dict[Owner, bool]:
        """VolumeSnapshots that cannot be read keep what they have, deleted or not."""
        broken = self.context.store.unreadable.items()
        return {Owner(key.namespace, key.name, uid_of(one.raw)): False for key, one in broken}

    def _tell_drift(self, chain: Chain, seen: Look, target: str) -> None:
        drift = seen.observation.journal.disk(target).drift
        adopted = target in seen.adopted
        what = f":\n{drift_text(drift)}" if drift is not None else ""
        kept = "it is taken as it is" if adopted else "what is new is kept"
        text = f"somebody else changed the chain of disk {target}; {kept}{what}"
        self.context.recorder.warning(chain.raw, "ChainDrifted", "Observe", text)

    def _unreported(self, domain: DomainKey, counting: Mapping[Part, Chain]) -> dict[Part, Snapshot]:
        """The first VolumeSnapshot of each namespace on each disk that has no VolumeChain there."""
        found: dict[Part, Snapshot] = {}
        members = self.context.store.members(domain)
        for snapshot in sorted(
            members, key=lambda one: (one.parsed.metadata.creation_timestamp is None, one.key)
        ):
            part = (snapshot.parsed.namespace, snapshot.parsed.spec.source.disk)
            if part not in counting and not snapshot.parsed.deleting:
                found.setdefault(part, snapshot)
        return found

    def _is_needed(self, domain: DomainKey, chain: Chain, seen: Look) -> bool:
        part, members = part_of(chain), self.context.store.members(domain)
        wanted = any((one.parsed.namespace, one.parsed.spec.source.disk) == part for one in members)
        return wanted or _has_points(seen.observation.journal, *part)

    async def _remove_later(self, chain: Chain, now: float, *, at_once: bool) -> float | None:
        since = self._unneeded.setdefault(chain.key, now)
        wait = 0.0 if at_once else since + LINGER_SECONDS - now
        if wait > 0:
            return wait
        await self._remove(chain)
        return None

    async def _remove_when_unneeded(self, chain: Chain) -> None:
        """Its domain is nowhere: it goes when no VolumeSnapshot names the same disk."""
        if not self.context.store.is_named(chain.parsed.namespace, chain.parsed.spec.source):
            await self._remove(chain)

    # Writes --------------------------------------------------------------------------------------------

    async def _make(self, snapshot: Snapshot, observation: Observation, target: str) -> Chain | None:
        """A VolumeChain for the disk of a VolumeSnapshot; None when every name is taken."""
        namespace, source = snapshot.parsed.namespace, snapshot.parsed.spec.source
        for name in names_of(observation.name, observation.uuid, target):
            key = ChainKey(namespace, name)
            if key in self.context.store.chains.chains or key in self.context.store.chains.faults:
                continue
            body: Raw = {
                "apiVersion": VOLUME_CHAIN.api_version,
                "kind": VOLUME_CHAIN.name,
                "metadata": {"name": name, "namespace": namespace, "labels": dict(CONTROLLER_LABELS)},
                "spec": {"source": source.to_api()},
            }
            try:
                raw = await self.context.client.create(VOLUME_CHAIN, namespace, body)
            except Conflict:
                continue  # the watch will tell whose it is
            except ObjectGone:
                return None  # the namespace is going
            self.context.store.chains.put(raw)
            return self.context.store.chains.chains.get(key)
        log.warning("no name is free for a VolumeChain", extra={"domain": observation.name, "disk": target})
        return None

    async def _write(self, chain: Chain, status: VolumeChainStatus) -> None:
        body = status.to_api()
        if not is_news(chain.parsed.status.to_api(), body):
            return
        try:
            raw = await self.context.client.apply_status(VOLUME_CHAIN, chain.raw, body)
        except (ObjectGone, ObjectReplaced):
            self.context.store.chains.drop(chain.raw)
            return
        self._written[chain.key] = asyncio.get_running_loop().time()
        self.context.store.chains.put(raw)
        known = self.context.store.chains.chains.get(chain.key)
        if known is None or known.parsed.generation != chain.parsed.generation:
            self.context.wake(chain.key)  # somebody wrote to it meanwhile, and the watch's event is an echo

    async def _remove(self, chain: Chain) -> None:
        """Remove one of ours, unless somebody has written to it since it was read."""
        try:
            await self.context.client.remove(VOLUME_CHAIN, chain.raw)
        except Conflict:
            return  # it is a person's now: the watch will tell
        self.context.store.chains.drop(chain.raw)
        self.context.wake(chain.key)


def names_of(domain: str, uuid: str, target: str) -> list[str]:
    """Names for the VolumeChain of a disk, the best first: those that Kubernetes takes."""
    disk = re.sub(r"[^a-z0-9]+", "-", target.lower()).strip("-")
    candidates = [f"{domain}-{target}", f"{uuid}-{disk}"]
    return [name for name in candidates if len(name) <= _LONGEST_NAME and re.fullmatch(DNS_SUBDOMAIN, name)]


def part_of(chain: Chain) -> Part:
    """The namespace and the disk of a VolumeChain."""
    return chain.parsed.namespace, chain.parsed.spec.source.disk


def _has_points(journal: Journal, namespace: str, target: str) -> bool:
    """Whether something of the namespace is left on the disk, or of nobody in particular."""
    record = journal.disk(target)
    owners = [point.owners for point in record.points]
    owners += [removal.owners for removal in record.removals if not removal.left]
    owners += [record.operation.owners] if record.operation is not None else []
    return any(not one or namespace in {owner.namespace for owner in one} for one in owners)


def _over_quota(chain: Chain, found: Found) -> Verdict:
    """What is said of one for which there is no room among those of its namespace."""
    message = (
        f"namespace {chain.parsed.namespace} has as many VolumeChains of disk "
        f"{chain.parsed.spec.source.disk} or of domain {found.domain.name} as are acted on "
        f"({CHAINS.disk} and {CHAINS.domain}): delete those that are not needed; one counts for a disk"
    )
    unknown = Fact(Truth.UNKNOWN, Reason.QUOTA_EXCEEDED, message)
    resolved = Fact(Truth.TRUE, Reason.RESOLVED)
    return Verdict(State.WAITING, Reason.QUOTA_EXCEEDED, message, resolved=resolved, chain_in_sync=unknown)
