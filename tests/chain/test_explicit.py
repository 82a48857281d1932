"""Definitions that are shorter than the chain that runs, and how they are mended."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lxml import etree

from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.explicit import NotThePrefix, is_short, is_started_short, made_true, spelled_out
from controller.chain.observation import DiskFacts
from controller.chain.parse import parse_domain
from controller.chain.source import Host, Source

HOST = Host("127.0.0.1", "10809")
FILE = Layer(Source.file("/images/web-1.qcow2"), "qcow2")
RAW = Layer(Source.network("nbd", "raw", [HOST]), "raw")
GLUSTER = Layer(Source.network("gluster", "gv0/web-1.qcow2", [HOST]), "qcow2")
NBD = [Layer(Source.network("nbd", f"e{number}", [HOST]), "qcow2") for number in range(4)]
SECRET = "for VNC only"  # noqa: S105 - that it comes back is what is tested


def rbd(name: str) -> Layer:
    """An image that nobody can open without logging in."""
    element = Source.network("rbd", f"rbd/{name}", [Host("127.0.0.1", "6789")]).element()
    auth = etree.SubElement(element, "auth", username="admin")
    etree.SubElement(auth, "secret", type="ceph", usage="ceph")
    return Layer(Source.from_element("network", element), "qcow2")


def disk(*layers: Layer, end: ChainEnd = ChainEnd.UNKNOWN) -> Disk:
    return Disk("vda", "disk", layers, end)


def facts(live: Disk | None, inactive: Disk | None) -> DiskFacts:
    return DiskFacts("vda", live, inactive)


@pytest.mark.parametrize(
    ("live", "inactive", "short"),
    [
        pytest.param(disk(*NBD[:3]), disk(NBD[0]), True, id="only the top"),
        pytest.param(disk(*NBD[:3]), disk(*NBD[:2]), True, id="not all"),
        pytest.param(disk(*NBD[:3]), disk(*NBD[:3]), False, id="all"),
        pytest.param(disk(*NBD[:3]), disk(NBD[1]), False, id="another image: not ours to change"),
        pytest.param(disk(*NBD[:3]), disk(*NBD), False, id="longer"),
        pytest.param(disk(*NBD[:3]), disk(NBD[0], end=ChainEnd.KNOWN), False, id="it says that is all"),
        pytest.param(disk(*NBD[:2], end=ChainEnd.KNOWN), disk(*NBD[:2]), True, id="without the end"),
        pytest.param(disk(GLUSTER, end=ChainEnd.KNOWN), disk(GLUSTER), False, id="libvirt looks by itself"),
        pytest.param(disk(FILE, end=ChainEnd.KNOWN), disk(FILE), False, id="a file alone"),
        pytest.param(disk(FILE, FILE, end=ChainEnd.KNOWN), disk(FILE), False, id="files: headers tell"),
        pytest.param(disk(FILE, NBD[0]), disk(FILE), True, id="a header has no credentials"),
        pytest.param(disk(NBD[0], FILE, end=ChainEnd.KNOWN), disk(NBD[0]), True, id="a file below"),
        pytest.param(disk(*NBD[:2]), None, False, id="transient"),
        pytest.param(None, disk(NBD[0]), False, id="shut off: nothing proves what was below"),
        pytest.param(disk(*NBD[:2]), disk(), False, id="no medium"),
    ],
)
def test_short(live: Disk | None, inactive: Disk | None, short: bool) -> None:
    assert is_short(facts(live, inactive)) is short


def test_a_machine_that_was_started_short() -> None:
    assert is_started_short(facts(disk(NBD[0]), disk(*NBD)))
    assert not is_started_short(facts(disk(*NBD), disk(*NBD)))
    assert not is_started_short(facts(disk(*NBD), disk(NBD[0])))
    assert not is_started_short(facts(disk(NBD[1]), disk(*NBD)))
    assert not is_started_short(facts(disk(NBD[0], end=ChainEnd.KNOWN), disk(*NBD)))
    assert not is_started_short(facts(None, disk(*NBD)))


def definition(first: Layer, *, other: str = "", below: str = "") -> str:
    """A persistent definition with more in it than disks."""
    source = etree.tostring(first.source.element(), encoding="unicode")
    return f"""<domain type='qemu'>
  <name>web-1</name>
  <uuid>0a4f4f0e-5f1c-4e0e-9a53-0c9fd1a3c001</uuid>
  <metadata><o:other xmlns:o="https://example.org/o"> kept as it is </o:other></metadata>
  <devices>
    <disk type='file' device='disk'>
      <source file='/images/data.raw'/><target dev='vdb' bus='virtio'/>{other}
    </disk>
    <disk type='{first.source.type}' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' discard='unmap'/>
      {source}{below}
      <target dev='vda' bus='virtio'/>
      <serial>S1</serial>
    </disk>
    <graphics type='vnc' passwd='{SECRET}'/>
  </devices>
</domain>"""


def test_the_whole_chain_with_credentials_and_end_and_nothing_else() -> None:
    chain = disk(rbd("c"), rbd("b"), rbd("a"), end=ChainEnd.KNOWN)
    before = definition(chain.layers[0])
    after = spelled_out(before, chain)

    found = parse_domain(after).disk("vda")
    assert found is not None
    assert (found.layers, found.end) == (chain.layers, ChainEnd.KNOWN)
    assert after.count("<auth ") == 3

    root = etree.fromstring(after)
    (added,) = root.findall("devices/disk/backingStore")
    added.getparent().remove(added)  # type: ignore[union-attr]  # an element of a document has a parent
    assert etree.tostring(root) == etree.tostring(etree.fromstring(before))


def test_indexes_of_the_running_machine_do_not_go_in() -> None:
    running = disk(*(replace(layer, index=7 + at) for at, layer in enumerate(NBD)))
    assert "index=" not in spelled_out(definition(NBD[0]), running)


def test_what_is_written_already_stays_as_it_is_written() -> None:
    below = (
        "<backingStore type='network'><format type='qcow2'/>"
        "<source protocol='nbd' name='e1' tls='no'><host name='127.0.0.1' port='10809'/></source>"
        "</backingStore>"
    )
    after = spelled_out(definition(NBD[0], below=below), disk(*NBD))
    found = parse_domain(after).disk("vda")
    assert found is not None
    assert found.keys == disk(*NBD).keys
    assert found.end is ChainEnd.UNKNOWN
    assert after.count("tls='no'") + after.count('tls="no"') == 1


@pytest.mark.parametrize(
    "xml",
    [
        pytest.param(definition(NBD[1]), id="another image"),
        pytest.param(definition(NBD[0], below="<backingStore/>"), id="an end"),
        pytest.param(
            definition(NBD[0], below="<backingStore type='file'><source file='/x'/></backingStore>"),
            id="another image below",
        ),
        pytest.param("<domain><devices/></domain>", id="no such disk"),
    ],
)
def test_a_definition_that_says_something_else_is_left_alone(xml: str) -> None:
    with pytest.raises(NotThePrefix):
        spelled_out(xml, disk(*NBD))


def test_a_definition_with_more_layers_is_left_alone() -> None:
    longer = spelled_out(definition(NBD[0]), disk(*NBD))
    with pytest.raises(NotThePrefix):
        spelled_out(longer, disk(*NBD[:2]))


# A2: a definition that libvirt left as it was before a take or a merge.

OVERLAY = Layer(Source.file("/images/web-1.vda.varve-0f3a.qcow2"), "qcow2")
BASE = Layer(Source.file("/images/base.raw"), "raw")
OLD = """<domain type='qemu'><name>web-1</name><uuid>0a4f4f0e-5f1c-4e0e-9a53-0c9fd1a3c001</uuid><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>
<source file='/images/web-1.qcow2'/><target dev='vda' bus='virtio'/><serial>s1</serial></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/other'/>
<target dev='vdb'/></disk>
</devices></domain>"""


@pytest.mark.parametrize("chain", [(OVERLAY, FILE), (OVERLAY, FILE, BASE), (rbd("o1"), FILE, BASE), (FILE,)])
@pytest.mark.parametrize("end", list(ChainEnd))
def test_a2_a_definition_is_made_true(chain: tuple[Layer, ...], end: ChainEnd) -> None:
    after = made_true(OLD, "vda", chain, end=end, leaving=())
    before, found = parse_domain(OLD), parse_domain(after)
    mended = found.disk("vda")
    assert mended is not None
    assert mended.layers == chain
    assert mended.end is (ChainEnd.KNOWN if chain[-1].format == "raw" else end)
    assert found.disk("vdb") == before.disk("vdb")
    assert "cache" in after
    assert "<serial>s1</serial>" in after
    assert made_true(after, "vda", chain, end=end, leaving=()) == after


def test_a2_layers_that_were_merged_away_are_replaced() -> None:
    longer = made_true(OLD, "vda", (OVERLAY, FILE, BASE), end=ChainEnd.KNOWN, leaving=())
    after = made_true(longer, "vda", (FILE, BASE), end=ChainEnd.KNOWN, leaving=[OVERLAY])
    found = parse_domain(after).disk("vda")
    assert found is not None
    assert found.layers == (FILE, BASE)


def test_a1_a_definition_that_names_another_image_stays() -> None:
    with pytest.raises(NotThePrefix, match=r"web-1\.qcow2, which somebody wants"):
        made_true(OLD, "vda", (OVERLAY, BASE), end=ChainEnd.KNOWN, leaving=())
    with pytest.raises(NotThePrefix, match="no disk vdz"):
        made_true(OLD, "vdz", (FILE,), end=ChainEnd.KNOWN, leaving=())
