"""Which domain a VolumeSnapshot or a VolumeChain means. Pure: inventories in, an answer or a reason out.

Access is checked by name before anything is looked up, so an answer never tells a namespace whether a domain
that it may not use exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.api.hypervisor import Hypervisor
from controller.api.reasons import Reason
from controller.api.volumechain import VolumeChain
from controller.api.volumesnapshot import VolumeSnapshot
from controller.hypervisor.driver import DomainRef

Sourced = VolumeSnapshot | VolumeChain
"""What names a disk of a domain."""


class Inventory(Protocol):
    """What resolution needs of a hypervisor: :class:`controller.hypervisor.host.Host` has it."""

    def find_by_name(self, name: str) -> DomainRef | None: ...

    def find_by_uuid(self, uuid: str) -> DomainRef | None: ...


@dataclass(frozen=True)
class Candidate:
    """One Hypervisor object with its inventory (None: not connected to yet)."""

    hypervisor: Hypervisor
    inventory: Inventory | None
    known: bool
    """Connected and listed completely: a domain that it does not list is not there."""


@dataclass(frozen=True)
class Found:
    """The one domain that is meant."""

    hypervisor: str
    domain: DomainRef


@dataclass(frozen=True)
class NotFound:
    """Why there is no such one domain, and what to do. ``gone`` is true when it is certain that no connected
    hypervisor has it, and no hypervisor that may have it is out of reach."""

    reason: Reason
    message: str
    stalled: bool = False
    gone: bool = False


def resolve(
    sourced: Sourced, candidates: Sequence[Candidate], misread: Sequence[str] = ()
) -> Found | NotFound:
    """Find the domain of ``spec.source``, fenced by the UUID that an earlier pass resolved. ``misread``:
    names of Hypervisor objects that nobody can read; any of them may have it."""
    found = _resolved(sourced, candidates)
    wanted = sourced.spec.source.hypervisor
    maybe = [name for name in misread if wanted in (None, name)]
    if not maybe or isinstance(found, Found) or not found.gone:
        return found
    return NotFound(
        Reason.NOT_UNDERSTOOD,
        f"a Hypervisor may have {_label(sourced)}, and this controller does not understand that object: "
        f"upgrade the controller (kubectl describe hypervisors says what it does not know)",
        stalled=True,
    )


def _resolved(sourced: Sourced, candidates: Sequence[Candidate]) -> Found | NotFound:
    source, namespace = sourced.spec.source, sourced.namespace
    usable = [
        one
        for one in candidates
        if source.hypervisor in (None, one.hypervisor.name)
        and (
            one.hypervisor.allows(namespace, source.domain)
            if source.domain is not None
            else _gives_anything(one.hypervisor, namespace)
        )
    ]
    if not usable:
        return _nowhere(sourced, candidates)
    fence = sourced.status.resolved.domain_uuid if sourced.status.resolved else None
    uuid = source.domain_uuid or fence
    matches = _matches(usable, namespace, uuid, source.domain)
    if not matches:
        return _missing(sourced, usable)
    found = _one(matches, sourced)
    if isinstance(found, Found) and fence is not None and found.domain.uuid.lower() != fence.lower():
        return NotFound(
            Reason.DOMAIN_REPLACED,
            f"the domain {found.domain.name} on {found.hypervisor} has the UUID {found.domain.uuid}; "
            f"this object is about {fence}, which is another machine: delete it and make a new one",
            stalled=True,
            gone=all(one.known for one in usable),
        )
    return found


def _gives_anything(hypervisor: Hypervisor, namespace: str) -> bool:
    """With a UUID the name is known only after the look-up; some rule must at least name the namespace."""
    return any(rule.allows(namespace, domain) for rule in hypervisor.spec.access for domain in rule.domains)


def _matches(
    usable: Sequence[Candidate], namespace: str, uuid: str | None, name: str | None
) -> list[tuple[Candidate, DomainRef]]:
    """By UUID where one is known; a domain of that name with another UUID only when there is none."""
    by_uuid, by_name = [], []
    for one in usable:
        if one.inventory is None:
            continue
        ref = one.inventory.find_by_uuid(uuid.lower()) if uuid else None
        if ref is not None and one.hypervisor.allows(namespace, ref.name):
            by_uuid.append((one, ref))
        ref = one.inventory.find_by_name(name) if name else None
        if ref is not None:
            by_name.append((one, ref))
    return by_uuid or by_name


def _one(matches: Sequence[tuple[Candidate, DomainRef]], sourced: Sourced) -> Found | NotFound:
    """One domain; of one machine that two hypervisors define, the place where it runs."""
    places = [Found(one.hypervisor.name, ref) for one, ref in matches]
    if len({found.domain.uuid for found in places}) == 1:
        running = [found for found in places if found.domain.active]
        before = sourced.status.resolved.hypervisor if sourced.status.resolved else None
        same = [found for found in places if found.hypervisor == before]
        for chosen in (running, same, places):
            if len(chosen) == 1:
                return chosen[0]
    names = ", ".join(f"{found.domain.name} ({found.domain.uuid}) on {found.hypervisor}" for found in places)
    return NotFound(
        Reason.DOMAIN_AMBIGUOUS,
        f"more than one domain is meant: {names}; name spec.source.hypervisor or spec.source.domainUUID in a "
        f"new {type(sourced).__name__}",
        stalled=True,
    )


def _missing(sourced: Sourced, usable: Sequence[Candidate]) -> NotFound:
    label = _label(sourced)
    away = sorted(one.hypervisor.name for one in usable if not one.known)
    if away:
        return NotFound(
            Reason.HYPERVISOR_UNREACHABLE,
            f"no connected hypervisor has {label}, and {_others(away)} cannot be asked now; nothing is "
            f"concluded from that (an administrator: kubectl get hypervisors says why)",
        )
    return NotFound(
        Reason.DOMAIN_NOT_FOUND,
        f"no hypervisor that namespace {sourced.namespace} may use has {label}; define the domain, or "
        f"correct the name in a new {type(sourced).__name__}",
        gone=True,
    )


def _others(names: Sequence[str]) -> str:
    """How many there are, for those who need not know which."""
    return "one more" if len(names) == 1 else f"{len(names)} more"


def _nowhere(sourced: Sourced, candidates: Sequence[Candidate]) -> NotFound:
    """No Hypervisor object comes into question at all."""
    wanted = sourced.spec.source.hypervisor
    if wanted is not None and all(one.hypervisor.name != wanted for one in candidates):
        return NotFound(
            Reason.HYPERVISOR_NOT_FOUND,
            f"there is no Hypervisor {wanted} (kubectl get hypervisors lists them)",
            gone=True,
        )
    if not candidates:
        return NotFound(
            Reason.HYPERVISOR_NOT_FOUND,
            "there is no Hypervisor object yet: make one for each libvirt connection (an administrator may)",
            gone=True,
        )
    where = f"Hypervisor {wanted}" if wanted else "no Hypervisor"
    verb = "does not give" if wanted else "gives"
    return NotFound(
        Reason.ACCESS_DENIED,
        f"{where} {verb} {_label(sourced)} to namespace {sourced.namespace}; an administrator can add a "
        f"rule to the Hypervisor's spec.access",
        stalled=True,
        gone=True,
    )


def _label(sourced: Sourced) -> str:
    source = sourced.spec.source
    return f"a domain named {source.domain}" if source.domain else f"a domain with UUID {source.domain_uuid}"
