"""Snapshots and checkpoints as libvirt prints them."""

from __future__ import annotations

import pytest

from controller.chain.marks import MarkKind, parse_mark
from controller.chain.parse import ParseError
from controller.chain.source import Host, Source

DOMAIN = """<domain><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/images/o1'/>
 <backingStore type='file'><format type='qcow2'/><source file='/images/base'/><backingStore/></backingStore>
 <target dev='vda'/></disk>
<disk type='network' device='disk'><driver name='qemu' type='qcow2'/>
 <source protocol='gluster' name='gv0/x'><host name='a' port='24007'/></source><target dev='vdb'/></disk>
<disk type='file' device='cdrom'><target dev='sda'/></disk>
</devices></domain>"""
O1 = Source.file("/images/o1").footprint
X = Source.network("gluster", "gv0/x", [Host("a", "24007")]).footprint


def test_an_external_snapshot_names_what_it_froze_and_what_it_made() -> None:
    mark = parse_mark(
        "<domainsnapshot><name>s &amp; t</name><disks>"
        "<disk name='vda' snapshot='external' type='file'><driver type='qcow2'/>"
        "<source file='/images/o2'/></disk>"
        f"<disk name='vdb' snapshot='no'/></disks>{DOMAIN}</domainsnapshot>"
    )
    assert (mark.kind, mark.name) == (MarkKind.SNAPSHOT, "s & t")
    assert mark.images == {"vda": {O1, Source.file("/images/o2").footprint}}


def test_an_internal_snapshot_is_in_the_image_that_was_active() -> None:
    mark = parse_mark(
        "<domainsnapshot><name>s</name><disks><disk name='vda' snapshot='internal'/>"
        "<disk name='vdb' snapshot='internal'/><disk name='sda' snapshot='no'/></disks>"
        f"{DOMAIN}</domainsnapshot>"
    )
    assert (mark.kind, mark.images) == (MarkKind.INTERNAL, {"vda": {O1}, "vdb": {X}})


def test_a_checkpoint() -> None:
    mark = parse_mark(
        "<domaincheckpoint><name>c</name><disks><disk name='vda' checkpoint='bitmap' bitmap='c'/>"
        f"<disk name='vdb' checkpoint='no'/></disks>{DOMAIN}</domaincheckpoint>"
    )
    assert (mark.kind, mark.images) == (MarkKind.CHECKPOINT, {"vda": {O1}})


def test_a_disk_that_is_listed_and_not_described_is_not_forgotten() -> None:
    mark = parse_mark(
        "<domainsnapshot><name>s</name><disks><disk name='vda' snapshot='external'/></disks></domainsnapshot>"
    )
    assert (mark.kind, mark.images) == (MarkKind.SNAPSHOT, {"vda": frozenset()})


def test_a_snapshot_of_memory_alone_concerns_no_disk() -> None:
    text = "<disk name='vda' snapshot='no'/>"
    mark = parse_mark(f"<domainsnapshot><name>s</name><disks>{text}</disks>{DOMAIN}</domainsnapshot>")
    assert mark.images == {}


@pytest.mark.parametrize(
    "text", ["", "<domain/>", "<domainsnapshot>", "<domainsnapshot>\udcff</domainsnapshot>"]
)
def test_what_is_not_understood_is_not_taken_for_nothing(text: str) -> None:
    with pytest.raises(ParseError):
        parse_mark(text)
