"""The VolumeChains as last seen, and which of them counts for a disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from controller.api.hypervisor import Hypervisor
from controller.api.objects import explain
from controller.api.volumechain import CONTROLLER_LABELS, VolumeChain
from controller.chain.consent import ANY_DISK
from controller.kube.kinds import Raw, is_deleting, uid_of
from controller.kube.port import FIELD_MANAGER
from controller.kube.trim import bare
from controller.reconcile.chain_parts import Parts, Ranked, spot_of
from controller.reconcile.keys import ChainKey, DomainKey, version_of
from controller.reconcile.shares import CHAINS, Claim, Shares


@dataclass(frozen=True)
class Chain:
    """A VolumeChain as read: what writes need of the raw object, the parsed one for decisions."""

    raw: Raw
    parsed: VolumeChain

    @property
    def key(self) -> ChainKey:
        """Its namespace and name."""
        return ChainKey(self.parsed.namespace, self.parsed.name)

    @property
    def label(self) -> str:
        """``namespace/name``, for people."""
        return f"{self.parsed.namespace}/{self.parsed.name}"

    @property
    def is_made_by_us(self) -> bool:
        """The controller made it, and nobody has written to it since."""
        meta = self.raw["metadata"]
        labels = meta.get("labels") or {}
        managers = {entry.get("manager") for entry in meta.get("managedFields") or ()}
        deletion = int(self.parsed.deleting)
        untouched = self.parsed.generation - deletion <= 1 and managers <= {FIELD_MANAGER}
        return untouched and CONTROLLER_LABELS.items() <= labels.items()

    @property
    def rank(self) -> tuple[bool, datetime, str]:
        """Of several of one disk the first counts: a person's before one of ours, then the oldest."""
        made = self.parsed.metadata.creation_timestamp or datetime.max.replace(tzinfo=UTC)
        return (self.is_made_by_us, made, self.label)


@dataclass
class ChainStore:
    """All VolumeChains."""

    chains: dict[ChainKey, Chain] = field(default_factory=dict)
    faults: dict[ChainKey, tuple[Raw, str]] = field(default_factory=dict)
    """Those that this version cannot read, and why."""
    _parts: Parts = field(default_factory=Parts)
    shares: Shares[ChainKey] = field(default_factory=lambda: Shares(lambda: CHAINS))

    def put(self, raw: Raw) -> ChainKey | None:
        """Take in a VolumeChain that is there; None when this version, or a newer one, is known already."""
        key = _key(raw)
        known = self.chains[key].raw if key in self.chains else self.faults.get(key, (None, ""))[0]
        if known is not None and version_of(known) >= version_of(raw):
            return None
        self._forget(key)
        if is_deleting(raw) and not raw["metadata"].get("finalizers"):
            return key
        try:
            chain = self.chains[key] = Chain(bare(raw), VolumeChain.model_validate(raw))
            self._parts.put(spot_of(chain.parsed), Ranked.of(key, chain.rank, chain.parsed))
        except ValidationError as error:
            self.faults[key] = (raw, explain(error))
        return key

    def drop(self, raw: Raw) -> ChainKey:
        """A VolumeChain is gone; one of the same name that came after it stays."""
        key = _key(raw)
        known = self.chains[key].raw if key in self.chains else self.faults.get(key, (None, ""))[0]
        if known is not None and uid_of(known) == uid_of(raw):
            self._forget(key)
        return key

    def known(self) -> list[Raw]:
        """All of them, as read."""
        return [*(chain.raw for chain in self.chains.values()), *(raw for raw, _ in self.faults.values())]

    def bind(self, key: ChainKey, domain: DomainKey | None) -> DomainKey | None:
        """Remember which domain it was found to mean; returns the one before. See :meth:`waits`."""
        before, chain = self.shares.domain_of(key), self.chains.get(key)
        if domain is None or chain is None:
            self.shares.drop(key)
        else:
            disk = chain.parsed.spec.source.disk
            self.shares.put(key, Claim(domain, key.namespace, disk, leaving=chain.parsed.deleting))
        return before

    def bound(self, key: ChainKey) -> DomainKey | None:
        """The domain that it was last found to mean."""
        return self.shares.domain_of(key)

    def waits(self, key: ChainKey) -> bool:
        """Whether there are as many of its namespace already as are acted on."""
        return self.shares.waits(key)

    def of(self, domain: DomainKey) -> list[Chain]:
        """Those that mean this domain and are acted on, the one that counts first."""
        found = (self.chains[key] for key in self.shares.admitted(domain) if key in self.chains)
        return sorted(found, key=lambda chain: chain.rank)

    def everyone(self, domain: DomainKey) -> list[ChainKey]:
        """All that mean this domain, those included that wait for their turn."""
        return self.shares.everyone(domain)

    def domains(self) -> list[DomainKey]:
        """All domains that some VolumeChain means."""
        return self.shares.domains()

    def policies(
        self, domain: DomainKey, name: str, hypervisor: Hypervisor | None, targets: Iterable[str]
    ) -> dict[str, tuple[Chain, ...]]:
        """By target, the VolumeChains of a disk whose word counts, the one that counts first for each
        namespace, whether or not they have been resolved yet: a merge must not begin because a wish to be
        asked is not understood to its end."""
        found: dict[str, tuple[Chain, ...]] = {}
        for target in sorted(targets):
            spots = [
                (named, target, where)
                for named in (name, domain.uuid.lower())
                for where in (None, domain.hypervisor)
            ]
            heard = [self.chains[key] for spot in spots for key in self._parts.heard(spot)]
            allowed = [
                chain
                for chain in heard
                if hypervisor is not None and hypervisor.allows(chain.parsed.namespace, name)
            ]
            if allowed:
                found[target] = tuple(sorted(allowed, key=lambda chain: chain.rank))
        return found

    def misread(
        self, domain: DomainKey, name: str, hypervisor: Hypervisor | None
    ) -> dict[str, tuple[tuple[str, str], ...]]:
        """By target, the VolumeChains that cannot be read and may set policy for the disk, and why; under
        :data:`ANY_DISK` those of which the disk cannot be told."""
        found: dict[str, tuple[tuple[str, str], ...]] = {}
        for key, (raw, fault) in sorted(self.faults.items()):
            source = (raw.get("spec") or {}).get("source") or {}
            allowed = hypervisor is not None and hypervisor.allows(key.namespace, name)
            if allowed and _may_mean(source, domain, name):
                target = str(source.get("disk") or ANY_DISK)
                found[target] = (*found.get(target, ()), (f"{key.namespace}/{key.name}", fault))
        return found

    def _forget(self, key: ChainKey) -> None:
        chain = self.chains.pop(key, None)
        if chain is not None:
            self._parts.drop(spot_of(chain.parsed), key)
        self.faults.pop(key, None)


def _may_mean(source: Raw, domain: DomainKey, name: str) -> bool:
    """Whether the source of an object that cannot be read may be this domain."""
    if source.get("hypervisor") not in (None, domain.hypervisor):
        return False
    if source.get("domainUUID"):
        return str(source["domainUUID"]).lower() == domain.uuid.lower()
    return source.get("domain") in (None, name)


def _key(raw: Raw) -> ChainKey:
    meta = raw["metadata"]
    return ChainKey(meta.get("namespace", ""), meta["name"])
