"""Consent: who must agree to the merges of a disk, and to what he has agreed.

A disk may have points of several namespaces. The strictest of them counts: what one wants to be asked about
is not decided by another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.chain.desired import Want

ANY_DISK = "*"
"""In place of a target: a VolumeChain of which it cannot be told which disk of the domain it means."""


@dataclass(frozen=True)
class Approval:
    """What one namespace says about the merges of a disk, by its VolumeChain."""

    chain: str
    """``namespace/name`` of the VolumeChain, for people; without a name when there is none yet."""
    plan: str
    """The hash of the plan that may be carried out; empty for none."""
    manual: bool = True
    """It wants to be asked. Otherwise only if a class says so."""
    fault: str = ""
    """Why it cannot be told what was agreed to: the VolumeChain cannot be read. Then nothing is merged."""

    @property
    def namespace(self) -> str:
        """Who agrees."""
        return self.chain.partition("/")[0]


def asked(
    approvals: Mapping[str, tuple[Approval, ...]], target: str, wants: Iterable[Want]
) -> tuple[Approval, ...]:
    """All that must agree before something is merged on the disk: those whose VolumeChain says so or cannot
    be read, and those with a VolumeSnapshot on it whose class says so."""
    said = (*approvals.get(ANY_DISK, ()), *approvals.get(target, ()))
    by_class = {want.owner.namespace for want in wants if want.policy.manual}
    named = {one.namespace for one in said}
    found = [one for one in said if one.manual or one.fault or one.namespace in by_class]
    found += [Approval(f"{namespace}/", "") for namespace in sorted(by_class - named)]
    return tuple(found)
