"""A journal that is not believed: why, and what a person can do about it (ADR 17)."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote

from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.seal import Trust


def distrust(domain: str, cluster: str, trust: Mapping[str, Trust]) -> str:
    """Why nothing is done by the journal of this domain; empty when its records are sealed, or none of them
    is. ``cluster`` is the identity that the journal names."""
    by_trust = {kind: sorted(t for t, found in trust.items() if found is kind) for kind in Trust}
    if broken := by_trust[Trust.BROKEN]:
        return (
            f"varve's record of disk {broken[0]} in the metadata of domain {domain} is not as varve left it: "
            f"somebody changed it, or it is the record of another machine (a clone has a copy). "
            f"{_without_it(domain)}"
        )
    if strange := by_trust[Trust.STRANGE]:
        return (
            f"varve's record of disk {strange[0]} in the metadata of domain {domain} is sealed with a key "
            f"that this controller does not have: put that key into the Secret varve-journal-key, as key or "
            f"as a line of previous, and restart the controller. If it is lost for good, list the cluster "
            f"{cluster} in the Hypervisor's spec.takeOverFrom: then records of that cluster are taken over "
            f"after checks"
        )
    if by_trust[Trust.UNSEALED] and by_trust[Trust.SEALED]:
        return stripped(domain, by_trust[Trust.UNSEALED][0])
    return ""


def stripped(domain: str, target: str) -> str:
    """What to say of a record without a seal where varve has written one."""
    return (
        f"varve's record of disk {target} in the metadata of domain {domain} has no seal, and varve has "
        f"sealed the records of this machine: somebody wrote it. {_without_it(domain)}"
    )


def unfit(domain: str, target: str, what: str) -> str:
    """What to say of a record without a seal that asks for what it may not."""
    return (
        f"varve's record of disk {target} in the metadata of domain {domain} has no seal and says that "
        f"{what}. {_without_it(domain)}"
    )


def _without_it(domain: str) -> str:
    return (
        f"Nothing is done to the disks of this machine by it. When you know how that came about, remove the "
        f"record: virsh metadata {quote(domain)} {JOURNAL_NAMESPACE} --remove --config, and the same with "
        f"--live while the machine runs. Points whose objects remember them are found again by their names"
    )
