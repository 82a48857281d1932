"""What the VolumeChains of a disk say together: the strictest of all namespaces with a part in it counts.

A namespace has one if it has a VolumeChain of the disk, or an owner of one of its points. Within a namespace
the first by rank counts; but whoever says Manual there is heard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.api.approval import Approval
from controller.api.objects import not_understood
from controller.api.volumechain import OnDrift
from controller.chain import consent
from controller.chain.journal import Journal
from controller.reconcile.chain_store import Chain

Policies = Mapping[str, Sequence[Chain]]
"""By target, the VolumeChains of the disk by rank."""
Faults = Mapping[str, Sequence[tuple[str, str]]]
"""By target, those that cannot be read (``namespace/name``), and why."""


def counting(chains: Sequence[Chain]) -> dict[str, Chain]:
    """By namespace, the VolumeChain that counts there."""
    found: dict[str, Chain] = {}
    for chain in chains:
        found.setdefault(chain.parsed.namespace, chain)
    return found


def approvals(policies: Policies, faults: Faults) -> dict[str, tuple[consent.Approval, ...]]:
    """By target, what each namespace says about the merges of the disk."""
    found: dict[str, tuple[consent.Approval, ...]] = {}
    for target in {*policies, *faults}:
        chains = policies.get(target, ())
        manual = {c.parsed.namespace for c in chains if c.parsed.spec.approval is Approval.MANUAL}
        said = [
            consent.Approval(chain.label, chain.parsed.spec.approved_plan, manual=namespace in manual)
            for namespace, chain in counting(chains).items()
        ]
        unread = [
            consent.Approval(
                label, "", fault=f"VolumeChain {label} may ask for approval: {not_understood(fault)}"
            )
            for label, fault in faults.get(target, ())
        ]
        found[target] = (*said, *unread)
    return found


def adopts_drift(policies: Policies, journal: Journal) -> frozenset[str]:
    """Disks whose chain is taken as somebody else left it: all agree."""
    return frozenset(
        target
        for target, chains in policies.items()
        if _all_speak(target, chains, journal)
        and all(chain.parsed.spec.on_drift is OnDrift.ADOPT for chain in counting(chains).values())
    )


def not_in_use(policies: Policies, journal: Journal) -> dict[str, tuple[str, ...]]:
    """By target, the images of which all say that nobody uses them."""
    found: dict[str, tuple[str, ...]] = {}
    for target, chains in policies.items():
        listed = [chain.parsed.spec.not_in_use for chain in counting(chains).values()]
        agreed = tuple(one for one in listed[0] if all(one in images for images in listed)) if listed else ()
        if agreed and _all_speak(target, chains, journal):
            found[target] = agreed
    return found


def _all_speak(target: str, chains: Sequence[Chain], journal: Journal) -> bool:
    """Every namespace with a point on the disk has a VolumeChain of it."""
    owners = (owner for point in journal.disk(target).points for owner in point.owners)
    return {owner.namespace for owner in owners} <= counting(chains).keys()
