"""The parser, on documents as libvirt 9.0 writes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controller.chain.disk import ChainEnd, Disk, DomainDefinition, Mirror
from controller.chain.journal_codec import decode
from controller.chain.parse import ParseError, parse_domain

DATA = Path(__file__).parent / "data"


def parsed(name: str) -> DomainDefinition:
    return parse_domain((DATA / f"{name}.xml").read_text())


def disk_of(name: str, target: str = "vda") -> Disk:
    disk = parsed(name).disk(target)
    assert disk is not None
    return disk


def test_a_file_chain_keeps_indexes_that_are_in_no_order() -> None:
    domain = parsed("file-chain")
    assert (domain.name, domain.uuid) == ("web-1", "0a4f4f0e-5f1c-4e0e-9a53-0c9fd1a3c001")
    disk = disk_of("file-chain")
    assert [(layer.key, layer.format, layer.index) for layer in disk.layers] == [
        ("file:/images/web-1.vda.varve-b.qcow2", "qcow2", 9),
        ("file:/images/web-1.vda.varve-a.qcow2", "qcow2", 4),
        ("file:/images/web-1.raw", "raw", 1),
    ]
    assert disk.end is ChainEnd.KNOWN
    assert (disk.device, disk.bus, disk.readonly, disk.shareable, disk.transient) == (
        "disk",
        "virtio",
        False,
        False,
        False,
    )
    assert [(b.frozen.index, b.overlay.index) for b in disk.boundaries] == [(4, 9), (1, 4)]
    assert disk.active is disk.layers[0]


def test_an_index_is_no_part_of_a_source() -> None:
    assert all("index" not in layer.source.xml for layer in disk_of("file-chain").layers)


def test_only_our_own_metadata_is_taken() -> None:
    xml = parsed("file-chain").journal_xml
    assert xml is not None
    assert "other" not in xml
    assert decode(xml).cluster == "c-1"
    assert parsed("gluster").journal_xml is None


def test_no_backing_store_is_an_unknown_end() -> None:
    disk = disk_of("unknown-end")
    assert len(disk.layers) == 1
    assert disk.end is ChainEnd.UNKNOWN


@pytest.mark.parametrize(
    ("name", "mirror"),
    [
        ("mirror-ready", Mirror("active-commit", True, "file:/images/web-2.qcow2")),
        ("mirror-running", Mirror("active-commit", False, "file:/images/web-2.qcow2")),
        ("mirror-copy", Mirror("copy", True, "file:/copies/web-2.qcow2")),
        ("file-chain", None),
    ],
)
def test_a_mirror(name: str, mirror: Mirror | None) -> None:
    found = disk_of(name).mirror
    assert (found and replace(found, footprint="")) == mirror
    assert found is None or found.footprint == found.source_key


def test_the_chain_of_a_mirror_is_not_the_chain_of_the_disk() -> None:
    assert disk_of("mirror-ready").keys == ("file:/images/web-2.s1.qcow2", "file:/images/web-2.qcow2")


def test_an_inactive_chain_has_no_indexes_and_ends_with_a_raw_image() -> None:
    disk = disk_of("inactive-explicit")
    assert [(layer.key, layer.index) for layer in disk.layers] == [
        ("file:/images/web-1.vda.varve-a.qcow2", None),
        ("file:/images/web-1.raw", None),
    ]
    assert disk.end is ChainEnd.KNOWN, "a raw image has no header that could name one below it"


def test_an_inactive_disk_without_a_chain_and_without_a_device() -> None:
    disk = disk_of("inactive-plain")
    assert (disk.device, disk.bus, disk.end, len(disk.layers)) == ("disk", "", ChainEnd.UNKNOWN, 1)


def test_gluster_names_are_one_name() -> None:
    vda, vdb = disk_of("gluster"), disk_of("gluster", "vdb")
    assert vda.layers[1].key == vdb.layers[0].key == "gluster://vm:24007/gv0/base.raw"
    assert vda.layers[1].source.name == "gv0/./base.raw"  # what goes back into an XML is as libvirt wrote it


@pytest.mark.parametrize(
    ("target", "keys"),
    [
        ("vda", ["nbd://10.0.0.1:10809/exp0"]),
        ("vdb", ["nbd://unix+%2Frun%2Fnbd%200.sock/exp0"]),
        ("vdc", ["rbd://mon1,mon2/pool/ov1", "rbd://mon1,mon2/pool/base"]),
        ("vdd", ["iscsi://127.0.0.1:3260/iqn.2024-01.lv:t1/1"]),
        ("vde", ["file:/images/on-http.qcow2", "http://mirror.example:80/templates/base.raw?v=2&x=1"]),
        ("vdf", ["block:/dev/vg0/disk"]),
        ("vdg", ["volume:fast/disk.qcow2"]),
        ("sda", []),
        ("sdb", []),
        ("vdh", ["file:/images/ro.raw"]),
    ],
)
def test_every_kind_of_source(target: str, keys: list[str]) -> None:
    disk = disk_of("protocols", target)
    assert list(disk.keys) == keys
    assert disk.end is ChainEnd.KNOWN


def test_what_a_source_says_besides_its_name_is_kept() -> None:
    assert "tls=" in disk_of("protocols", "vda").layers[0].source.xml
    for layer in disk_of("protocols", "vdc").layers:
        assert "<secret" in layer.source.xml
    assert "<initiator>" in disk_of("protocols", "vdd").layers[0].source.xml


def test_flags_of_a_disk() -> None:
    assert disk_of("protocols", "vdf").shareable
    assert disk_of("protocols", "vdg").transient
    assert disk_of("protocols", "vdh").readonly
    assert disk_of("protocols", "vdd").device == "lun"
    assert (disk_of("protocols", "sda").device, disk_of("protocols", "sda").active) == ("cdrom", None)


def deep(depth: int) -> str:
    below = "<backingStore/>"
    for number in range(1, depth):
        source = f"<format type='qcow2'/><source file='/images/{number}'/>"
        below = f"<backingStore type='file' index='{number}'>{source}{below}</backingStore>"
    source = f"<source file='/images/{depth}' index='{depth}'/>"
    return (
        "<domain><name>deep</name><uuid>u</uuid><devices><disk type='file' device='disk'>"
        f"<driver type='qcow2'/>{source}{below}<target dev='vda'/></disk></devices></domain>"
    )


def test_two_hundred_layers() -> None:
    disk = parse_domain(deep(200)).disks[0]
    assert [layer.index for layer in disk.layers] == list(range(200, 0, -1))
    assert disk.end is ChainEnd.KNOWN


def test_a_document_nested_without_end_is_refused() -> None:
    with pytest.raises(ParseError, match="layers"):
        parse_domain(deep(1500))


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "not well-formed"),
        ("<domain><name>x", "not well-formed"),
        ("{}", "not well-formed"),
        ("<domain><name>\ud800</name></domain>", "not well-formed"),
        ("<domainsnapshot/>", "expected <domain>"),
        ("<domain/>", "no name or no UUID"),
        ("<domain><name>x</name></domain>", "no name or no UUID"),
        ("<domain><name/><uuid>u</uuid></domain>", "no name or no UUID"),
        ("<domain><name>x</name><uuid>u</uuid><devices><disk/></devices></domain>", "no <target"),
        (
            "<domain><name>x</name><uuid>u</uuid><devices><disk><target/></disk></devices></domain>",
            "no <target",
        ),
    ],
)
def test_what_is_no_domain_is_refused(xml: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_domain(xml)


def test_an_external_entity_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    with pytest.raises(ParseError) as caught:
        parse_domain(
            f'<!DOCTYPE domain [<!ENTITY x SYSTEM "file://{secret}">]>'
            "<domain><name>a&x;b</name><uuid>u</uuid></domain>"
        )
    assert "hunter2" not in str(caught.value)


def test_entities_that_multiply_are_not_expanded() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20}">' for n in range(1, 9))
    with pytest.raises(ParseError):
        parse_domain(
            f'<!DOCTYPE domain [<!ENTITY e0 "lol">{entities}]>'
            '<domain><name>x</name><uuid>u</uuid><devices><disk device="&e8;"><target dev="vda"/></disk>'
            "</devices></domain>"
        )
