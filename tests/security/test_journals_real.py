"""Somebody who may edit a machine's metadata writes varve's record for it: nothing of others is removed,
merged or made, and the honest work beside it goes on.

All victims are stand-ins in directories of the test.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
import pytest
from lxml import etree

from controller.chain.parse import JOURNAL_NAMESPACE
from lab.machines.machine import Machine
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]

WORDS = b"what nobody may lose\n" * 64
BOTH = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG


@dataclass
class Forger:
    """He may edit one machine's metadata (domain:write), and sees what is there."""

    machine: Machine
    victims: list[Path] = field(default_factory=list)

    def record(self) -> etree._Element:
        """The journal as it is, every element without its prefix."""
        xml = self.machine.domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, JOURNAL_NAMESPACE)
        root = etree.fromstring(xml)
        for element in root.iter(etree.Element):
            element.tag = etree.QName(element).localname
        etree.cleanup_namespaces(root)
        return root

    def write(self, root: etree._Element | None) -> None:
        """virsh metadata, live and config."""
        text = None
        if root is not None:
            inner = b"".join(etree.tostring(child) for child in root).decode()
            head = f'version="1" cluster="{root.get("cluster")}"'
            text = f'<chain xmlns="{JOURNAL_NAMESPACE}" {head}>{inner}</chain>'
        self.machine.domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, "varve", JOURNAL_NAMESPACE, BOTH
        )

    def victim(self, path: Path) -> Path:
        """A file that must not go."""
        path.write_bytes(WORDS)
        self.victims.append(path)
        return path

    def check(self) -> None:
        """All are there, as they were."""
        for path in self.victims:
            assert path.read_bytes() == WORDS, path


def removal(source: str, kind: str = "file") -> etree._Element:
    """As varve puts down an image that was merged away."""
    found = etree.Element("removal", since="2026-01-01T00:00:00Z", attempted="no")
    etree.SubElement(found, "image", type=kind, format="qcow2").append(etree.fromstring(source))
    return found


def without_seals(root: etree._Element) -> etree._Element:
    """As a version before seals would write it."""
    for disk in root:
        disk.attrib.pop("seal", None)
    return root


@pytest.fixture
def machine(stage: Stage) -> Machine:
    """A machine with the point `kept`."""
    found = stage.machine("file")
    stage.shop.snapshot("kept", found.name)
    stage.shop.ready("kept")
    return found


@pytest.fixture
def off(stage: Stage, machine: Machine) -> Iterator[Path]:
    """A machine that is off, whose overlay lies elsewhere than its base; the base."""
    base, overlay = stage.scratch / "base.qcow2", stage.scratch / "elsewhere" / "top.qcow2"
    overlay.parent.mkdir()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "1M"], check=True)
    over = ("-b", str(base), "-F", "qcow2", str(overlay))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *over], check=True)
    connection = machine.domain.connect()
    domain = connection.defineXML(
        f"<domain type='qemu'><name>{machine.name}-off</name><memory unit='MiB'>16</memory>"
        f"<os><type>hvm</type></os><devices><disk type='file'><driver type='qcow2'/>"
        f"<source file='{overlay}'/><target dev='vda'/></disk></devices></domain>"
    )
    yield base
    domain.undefine()


def test_a_forged_removal_removes_no_file(stage: Stage, machine: Machine, off: Path) -> None:
    """Without a seal, as a version of before wrote it, before the controller starts: a file, a link to one,
    the base of a machine that is off, its disk through a linked directory, and images on servers."""
    forger = Forger(machine)
    shadow = forger.victim(stage.scratch / "shadow")
    named = forger.victim(stage.scratch / f"{machine.name}.vda.varve-0f3a.qcow2")
    link = machine.host.images / "link.qcow2"
    link.symlink_to(shadow)
    directory = stage.scratch / "linked"
    directory.symlink_to(off.parent)
    assert stage.controller.stop() == 0
    root = without_seals(forger.record())
    for source in (shadow, named, link, off, directory / off.name, directory / "elsewhere" / "top.qcow2"):
        root[0].append(removal(f"<source file='{source}'/>"))
    host = "<host name='127.0.0.1' port='1'/>"  # nobody listens
    for there in ("protocol='gluster' name='v/x.vda.varve-1.qcow2'", "protocol='rbd' name='p/x'"):
        root[0].append(removal(f"<source {there}>{host}</source>", "network"))
    forger.write(root)
    stage.controller.start()
    stage.shop.snapshot("beside", machine.name)
    stage.shop.ready("beside", "kept")
    stage.shop.delete("beside")
    forger.check()
    assert off.exists()
    assert link.is_symlink()
    left = stage.shop.kubectl("get", "hypervisor", "host-a", "-o", "jsonpath={.status.orphanImages}")
    assert left.count("no seal") == 8
    stage.shop.delete("kept")
    assert len(machine.chain()) == 1
    assert not stage.overlays(machine) - {named.name}, "what varve made is removed"
    link.unlink()


def test_a_record_that_was_changed_is_acted_upon_by_nobody(stage: Stage, machine: Machine) -> None:
    """Sealed once: a removal that was added, an owner that was cut, the seal stripped, the record of another
    machine. And the way out that the message names."""
    forger, shop = Forger(machine), stage.shop
    shadow = forger.victim(stage.scratch / "shadow")
    honest = forger.record()
    added = forger.record()
    added[0].append(removal(f"<source file='{shadow}'/>"))
    cut = forger.record()
    owner = cut.find(".//owner")
    assert owner is not None
    point = owner.getparent()
    assert point is not None
    point.remove(owner)
    before = [layer.source for layer in machine.chain()]
    for number, forgery in enumerate((added, cut, without_seals(forger.record()))):
        forger.write(forgery)
        name = f"late-{number}"
        shop.snapshot(name, machine.name)
        message = shop.waits_for(name, "JournalUntrusted")
        assert f"virsh metadata {machine.name}" in message
        assert str(shadow) not in message
        assert [layer.source for layer in machine.chain()] == before
        forger.write(honest)
        shop.delete(name)
    forger.check()

    clone = stage.machine("file")
    Forger(clone).write(honest)
    shop.snapshot("cloned", clone.name)
    assert "a clone" in shop.waits_for("cloned", "JournalUntrusted")
    for words in ("--config", "--live"):
        command = ("metadata", clone.name, JOURNAL_NAMESPACE, "--remove", words)
        subprocess.run(("virsh", "-c", stage.host.uri, *command), check=True, capture_output=True)
    shop.snapshot("next", clone.name)  # nothing tells of metadata: this is quicker than the next look
    shop.ready("cloned", "next")
    shop.ready("kept")
    shop.delete("cloned", "next", "kept")
    assert len(machine.chain()) == len(clone.chain()) == 1


def test_what_was_never_begun_is_not_seen_through(stage: Stage, machine: Machine) -> None:
    """A take that is judged undone would put its image down for removal, and one that is judged done would
    make a layer of somebody's a point to merge. An old record that is put back takes nothing away."""
    forger, shop = Forger(machine), stage.shop
    old = forger.record()
    shop.snapshot("second", machine.name)
    shop.ready("second")
    shadow = forger.victim(stage.scratch / "shadow")
    assert stage.controller.stop() == 0
    undone = without_seals(forger.record())
    operation = etree.SubElement(undone[0], "operation", kind="take", begun="2026-01-01T00:00:00Z")
    for tag, path in (("kept", shadow), ("merged", machine.chain()[0].source.name)):
        layer = etree.SubElement(operation, tag, type="file", format="qcow2")
        layer.append(etree.fromstring(f"<source file='{path}'/>"))
    forger.write(undone)
    stage.controller.start()
    shop.snapshot("late", machine.name)
    assert "no object asks for" in shop.waits_for("late", "JournalUntrusted")
    forger.check()
    assert len(machine.chain()) == 3

    forger.write(old)  # sealed, and older than the point `second`
    shop.snapshot("next", machine.name)
    shop.ready("kept", "second", "late", "next")
    names = {owner.get("name") for owner in forger.record().iterfind(".//point/owner")}
    assert names == {"kept", "second", "late", "next"}, "each has its point again"
    shop.delete("late", "second", "kept", "next")
    assert len(machine.chain()) == 1
    assert not stage.overlays(machine)
