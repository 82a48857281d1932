"""Which domain a source means: every combination of what is known, allowed and reachable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from controller.api.hypervisor import Hypervisor
from controller.api.reasons import Reason
from controller.api.volumesnapshot import VolumeSnapshot
from controller.hypervisor.driver import DomainRef
from controller.reconcile.resolve import Candidate, Found, NotFound, resolve

A, B = "aaaaaaaa-0000-0000-0000-000000000000", "bbbbbbbb-0000-0000-0000-000000000000"


@dataclass
class Inventory:
    domains: list[DomainRef] = field(default_factory=list)

    def find_by_name(self, name: str) -> DomainRef | None:
        return next((one for one in self.domains if one.name == name), None)

    def find_by_uuid(self, uuid: str) -> DomainRef | None:
        return next((one for one in self.domains if one.uuid == uuid), None)


def host(
    name: str,
    *domains: DomainRef,
    known: bool = True,
    domains_allowed: str = "*",
    namespaces: str = "*",
    never: bool = False,
) -> Candidate:
    access = [{"namespaces": [namespaces], "domains": [domains_allowed]}]
    raw = {"metadata": {"name": name}, "spec": {"uri": "qemu:///system", "access": access}}
    return Candidate(Hypervisor.model_validate(raw), None if never else Inventory(list(domains)), known)


def snapshot(*, fence: str | None = None, at: str = "h1", **source: Any) -> VolumeSnapshot:
    status = {"resolved": {"hypervisor": at, "domainUUID": fence}} if fence else {}
    return VolumeSnapshot.model_validate(
        {
            "metadata": {"name": "s", "namespace": "shop"},
            "spec": {"source": {"disk": "vda", **(source or {"domain": "web"})}},
            "status": status,
        }
    )


WEB, OTHER = DomainRef(A, "web", True), DomainRef(B, "web", True)
OFF = DomainRef(A, "web", False)
RENAMED = DomainRef(A, "www", True)

FOUND = [
    ("by name", snapshot(), [host("h1", WEB), host("h2")], ("h1", A)),
    ("by UUID", snapshot(domainUUID=A), [host("h1"), host("h2", WEB)], ("h2", A)),
    (
        "a hypervisor decides",
        snapshot(domain="web", hypervisor="h2"),
        [host("h1", WEB), host("h2", OTHER)],
        ("h2", B),
    ),
    ("access decides", snapshot(), [host("h1", WEB, namespaces="x"), host("h2", OTHER)], ("h2", B)),
    ("the fence decides", snapshot(fence=A), [host("h1", WEB), host("h2", OTHER)], ("h1", A)),
    ("it moved", snapshot(fence=A), [host("h1"), host("h2", WEB)], ("h2", A)),
    ("it was renamed", snapshot(fence=A), [host("h1", RENAMED)], ("h1", A)),
    ("it runs elsewhere", snapshot(fence=A), [host("h1", OFF), host("h2", WEB)], ("h2", A)),
    ("it runs nowhere", snapshot(fence=A), [host("h1", OFF), host("h2", OFF)], ("h1", A)),
    ("others are away", snapshot(), [host("h1", WEB), host("h2", known=False, never=True)], ("h1", A)),
    ("its own is away", snapshot(fence=A), [host("h1", WEB, known=False)], ("h1", A)),
]


@pytest.mark.parametrize(
    ("wish", "candidates", "expected"), [case[1:] for case in FOUND], ids=[c[0] for c in FOUND]
)
def test_found(wish: VolumeSnapshot, candidates: list[Candidate], expected: tuple[str, str]) -> None:
    found = resolve(wish, candidates)
    assert isinstance(found, Found), found
    assert (found.hypervisor, found.domain.uuid) == expected


NOT_FOUND = [
    ("no hypervisor", snapshot(), [], Reason.HYPERVISOR_NOT_FOUND, False, True),
    (
        "no such hypervisor",
        snapshot(domain="web", hypervisor="h9"),
        [host("h1", WEB)],
        Reason.HYPERVISOR_NOT_FOUND,
        False,
        True,
    ),
    ("no such domain", snapshot(), [host("h1"), host("h2")], Reason.DOMAIN_NOT_FOUND, False, True),
    (
        "one is away",
        snapshot(),
        [host("h1"), host("h2", known=False)],
        Reason.HYPERVISOR_UNREACHABLE,
        False,
        False,
    ),
    (
        "one was never there",
        snapshot(),
        [host("h1"), host("h2", known=False, never=True)],
        Reason.HYPERVISOR_UNREACHABLE,
        False,
        False,
    ),
    (
        "one that it may not use is away",
        snapshot(),
        [host("h1"), host("h2", known=False, namespaces="x")],
        Reason.DOMAIN_NOT_FOUND,
        False,
        True,
    ),
    ("no namespace", snapshot(), [host("h1", WEB, namespaces="x")], Reason.ACCESS_DENIED, True, True),
    ("no domain", snapshot(), [host("h1", WEB, domains_allowed="x*")], Reason.ACCESS_DENIED, True, True),
    (
        "no domain by UUID",
        snapshot(domainUUID=A),
        [host("h1", WEB, domains_allowed="x*")],
        Reason.DOMAIN_NOT_FOUND,
        False,
        True,
    ),
    (
        "no namespace by UUID",
        snapshot(domainUUID=A),
        [host("h1", WEB, namespaces="x")],
        Reason.ACCESS_DENIED,
        True,
        True,
    ),
    (
        "two of one name",
        snapshot(),
        [host("h1", WEB), host("h2", OTHER)],
        Reason.DOMAIN_AMBIGUOUS,
        True,
        False,
    ),
    (
        "one machine runs twice",
        snapshot(),
        [host("h1", WEB), host("h2", WEB)],
        Reason.DOMAIN_AMBIGUOUS,
        True,
        False,
    ),
    ("another machine", snapshot(fence=A), [host("h1", OTHER)], Reason.DOMAIN_REPLACED, True, True),
    (
        "another machine, and one away",
        snapshot(fence=A),
        [host("h1", OTHER), host("h2", known=False)],
        Reason.DOMAIN_REPLACED,
        True,
        False,
    ),
    (
        "renamed away from its rule",
        snapshot(fence=A),
        [host("h1", RENAMED, domains_allowed="web")],
        Reason.DOMAIN_NOT_FOUND,
        False,
        True,
    ),
]


@pytest.mark.parametrize(
    ("wish", "candidates", "reason", "stalled", "gone"),
    [case[1:] for case in NOT_FOUND],
    ids=[c[0] for c in NOT_FOUND],
)
def test_not_found(
    wish: VolumeSnapshot, candidates: list[Candidate], reason: Reason, stalled: bool, gone: bool
) -> None:
    found = resolve(wish, candidates)
    assert isinstance(found, NotFound), found
    assert (found.reason, found.stalled, found.gone) == (reason, stalled, gone)
    assert len(found.message) > 30


def test_what_a_namespace_may_not_use_is_not_mentioned() -> None:
    there = resolve(snapshot(), [host("h1", WEB, namespaces="x"), host("h2")])
    absent = resolve(snapshot(), [host("h1", namespaces="x"), host("h2")])
    assert there == absent
    assert isinstance(there, NotFound)
    assert "h1" not in there.message
