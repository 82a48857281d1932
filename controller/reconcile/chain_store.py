"""The VolumeChains as last seen, and which of them counts for a disk."""

from __future__ import annotations

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
from controller.reconcile.keys import ChainKey, DomainKey, version_of


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

    def means(self, domain: DomainKey, name: str) -> bool:
        """Whether its source may mean this domain."""
        source = self.parsed.spec.source
        named = (
            source.domain_uuid.lower() == domain.uuid.lower() if source.domain_uuid else source.domain == name
        )
        return named and source.hypervisor in (None, domain.hypervisor)


@dataclass
class ChainStore:
    """All VolumeChains."""

    chains: dict[ChainKey, Chain] = field(default_factory=dict)
    faults: dict[ChainKey, tuple[Raw, str]] = field(default_factory=dict)
    """Those that this version cannot read, and why."""
    _by_domain: dict[str, set[ChainKey]] = field(default_factory=dict)
    """By the domain's name or UUID as the source has it."""
    _bound: dict[ChainKey, DomainKey] = field(default_factory=dict)

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
            self.chains[key] = Chain(bare(raw), VolumeChain.model_validate(raw))
            self._by_domain.setdefault(self._name(key), set()).add(key)
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
        """Remember which domain it was found to mean; returns the one before."""
        before = self._bound.pop(key, None)
        if domain is not None:
            self._bound[key] = domain
        return before

    def bound(self, key: ChainKey) -> DomainKey | None:
        """The domain that it was last found to mean."""
        return self._bound.get(key)

    def of(self, domain: DomainKey) -> list[Chain]:
        """Those that were found to mean this domain, the one that counts first."""
        found = (self.chains[key] for key, one in self._bound.items() if one == domain and key in self.chains)
        return sorted(found, key=lambda chain: chain.rank)

    def domains(self) -> set[DomainKey]:
        """All domains that some VolumeChain means."""
        return set(self._bound.values())

    def policies(
        self, domain: DomainKey, name: str, hypervisor: Hypervisor | None
    ) -> dict[str, tuple[Chain, ...]]:
        """By target, the VolumeChains of a disk, the one that counts first for each namespace, whether or not
        they have been resolved yet: a merge must not begin because a wish to be asked is not understood to
        its end."""
        keys = {*self._by_domain.get(name, ()), *self._by_domain.get(domain.uuid.lower(), ())}
        found: dict[str, tuple[Chain, ...]] = {}
        for chain in sorted((self.chains[key] for key in keys), key=lambda chain: chain.rank):
            allowed = hypervisor is not None and hypervisor.allows(chain.parsed.namespace, name)
            if allowed and chain.means(domain, name):
                target = chain.parsed.spec.source.disk
                found[target] = (*found.get(target, ()), chain)
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

    def _name(self, key: ChainKey) -> str:
        source = self.chains[key].parsed.spec.source
        return source.domain or (source.domain_uuid or "").lower()

    def _forget(self, key: ChainKey) -> None:
        if key in self.chains:
            name = self._name(key)
            self._by_domain[name].discard(key)
            if not self._by_domain[name]:
                del self._by_domain[name]
        self.chains.pop(key, None)
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
