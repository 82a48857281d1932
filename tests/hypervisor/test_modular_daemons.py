"""virtqemud without virtstoraged, by what virtqemud 11.3.0 answered to each of these calls (measured)."""

from __future__ import annotations

from typing import Any, cast

import libvirt
import pytest

from controller.chain.source import Source
from controller.hypervisor import examine, probe, storage
from controller.hypervisor.connections import Connections
from controller.hypervisor.errors import NoStorageDriver, NotExaminable, ServiceMissing
from controller.hypervisor.places import Directory
from tests.hypervisor.test_codes import RPC, libvirt_error

WORDS = "Failed to connect socket to '/var/run/libvirt/virtstoraged-sock': No such file or directory"
IMAGE = Source.file("/images/a")
PLACE = Directory("/images")


class Virtqemud:
    """A connection to it. ``alive``: whether the line to virtqemud itself is well."""

    alive = True

    def isAlive(self) -> bool:  # noqa: N802 (libvirt's name)
        return self.alive

    def listAllDomains(self, _flags: int) -> list[object]:  # noqa: N802
        return []

    def getLibVersion(self) -> int:  # noqa: N802
        return 11_003_000

    def getVersion(self) -> int:  # noqa: N802
        return 10_000_013

    def getHostname(self) -> str:  # noqa: N802
        return "kvm-1"

    def getDomainCapabilities(self, *_arguments: object) -> str:  # noqa: N802
        features = "<features><backingStoreInput supported='yes'/></features>"
        return f"<domainCapabilities>{features}</domainCapabilities>"

    def _no_storage(self, *_arguments: object) -> Any:
        raise libvirt_error(38, RPC, WORDS)

    getStoragePoolCapabilities = storagePoolCreateXML = storagePoolLookupByName = _no_storage  # noqa: N815
    listAllStoragePools = storageVolLookupByPath = _no_storage  # noqa: N815


@pytest.fixture
def virtqemud() -> Any:
    return Virtqemud()


def test_b8_the_hypervisor_is_there_without_anything_of_storage(virtqemud: Any) -> None:
    """B8: it was taken for a line that broke, and never connected to."""
    facts = probe.probe(virtqemud)
    assert (facts.libvirt_version, facts.capabilities) == ("11.3.0", {"backing-store-input"})


def test_b8_a_line_that_broke_is_no_missing_daemon(virtqemud: Any) -> None:
    """B8: the same words, and nobody at the other end."""
    virtqemud.alive = False
    with pytest.raises(libvirt.libvirtError):
        probe.probe(virtqemud)
    with pytest.raises(libvirt.libvirtError):
        storage.listing(virtqemud, PLACE)


def test_b8_what_needs_storage_says_which_daemon_is_missing(virtqemud: Any) -> None:
    """B8: and how to start it."""
    with pytest.raises(
        NoStorageDriver, match=r"directory /images .* systemctl enable --now virtstoraged\.socket"
    ):
        storage.listing(virtqemud, PLACE)
    with pytest.raises(NoStorageDriver, match="virtstoraged does not run"):
        storage.remove(virtqemud, PLACE, IMAGE)
    with pytest.raises(NotExaminable, match="virtstoraged does not run"):
        examine.through_storage(virtqemud, PLACE, IMAGE)
    connections = Connections("", keepalive_interval=0, keepalive_count=0)
    connections.mine = lambda: cast("Any", virtqemud)  # type: ignore[method-assign]
    with pytest.raises(ServiceMissing, match="virtstoraged does not run"):
        connections.ask("looking a pool up", lambda found: storage.look_up(found, "fast"), changing=False)
