"""Overlays that were made beforehand: what their headers say, and which of them may be used."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from lxml import etree

from controller.chain import qcow2
from controller.chain.backing_name import meant
from controller.chain.disk import Layer
from controller.chain.prepared import Examined, fault
from controller.chain.source import Host, Source

GIB = 1 << 30
BASE = Layer(Source.file("/images/base.qcow2"), "qcow2")
OVERLAY = Source.file("/images/overlay.qcow2")
GOOD = Examined(GIB, "/images/base.qcow2", "qcow2", empty=True)
NBD = Source.network("nbd", "exp", [Host("127.0.0.1", "10809")])
ISCSI = Source.network("iscsi", "iqn.2024-01.org:t/1", [Host("san", "3260")])
RBD = Source.network("rbd", "pool/img", [Host("a", "6789"), Host("b", "6789")])
GLUSTER = Source.network("gluster", "gv0/dir/img", [Host("g", "24007")])


@pytest.mark.parametrize(
    ("active", "overlay", "words"),
    [
        (BASE.source, OVERLAY, "/images/base.qcow2"),
        (BASE.source, OVERLAY, "/images//x/../base.qcow2"),
        (BASE.source, OVERLAY, "base.qcow2"),
        (
            BASE.source,
            OVERLAY,
            'json:{"driver":"qcow2","file":{"driver":"file","filename":"/images/base.qcow2"}}',
        ),
        (
            BASE.source,
            OVERLAY,
            'json:{"driver":"qcow2","file.driver":"file","file":{"filename":"/images/base.qcow2"}}',
        ),
        (NBD, OVERLAY, "nbd://127.0.0.1:10809/exp"),
        (NBD, NBD, "nbd://127.0.0.1/exp"),
        (
            NBD,
            NBD,
            'json:{"file.driver":"nbd","file.server.type":"inet","file.server.host":"127.0.0.1",'
            '"file.server.port":"10809","file.export":"exp"}',
        ),
        (ISCSI, OVERLAY, "iscsi://san:3260/iqn.2024-01.org%3At/1"),
        (
            ISCSI,
            OVERLAY,
            'json:{"file":{"driver":"iscsi","transport":"tcp","portal":"san:3260",'
            '"target":"iqn.2024-01.org:t","lun":1,"user":"u","password-secret":"s"}}',
        ),
        (RBD, OVERLAY, "rbd:pool/img"),
        (RBD, OVERLAY, "rbd:pool/img:id=admin:mon_host=a\\:6789\\;b\\:6789"),
        (
            RBD,
            OVERLAY,
            'json:{"file":{"driver":"rbd","pool":"pool","image":"img","server":[{"host":"a","port":"6789"}]}}',
        ),
        (GLUSTER, OVERLAY, "gluster://g:24007/gv0/dir/img"),
        (GLUSTER, Source.network("gluster", "gv0/dir/o", GLUSTER.hosts), "img"),
        (
            GLUSTER,
            OVERLAY,
            'json:{"file":{"driver":"gluster","volume":"gv0","path":"dir/img",'
            '"server":[{"type":"inet","host":"g","port":"24007"}]}}',
        ),
    ],
)
def test_headers_that_name_the_active_layer(active: Source, overlay: Source, words: str) -> None:
    found = replace(GOOD, backing=words)
    assert fault(found, overlay, Layer(active, "qcow2"), GIB) is None


@pytest.mark.parametrize(
    ("active", "words"),
    [
        (BASE.source, "/images/base"),
        (BASE.source, "other/base.qcow2"),
        (BASE.source, "file:/images/base.qcow2"),
        (BASE.source, "json:{"),
        (BASE.source, 'json:{"driver":"null-co"}'),
        (BASE.source, "json:[]"),
        (NBD, "nbd://127.0.0.1:10810/exp"),
        (NBD, "nbd://elsewhere:10809/exp"),
        (NBD, "nbd:127.0.0.1:10809:exportname=exp"),
        (RBD, "rbd:pool/img@snap"),
        (RBD, "rbd:pool/img:mon_host=other"),
        (GLUSTER, "img"),
        (ISCSI, "iscsi://san:3260/iqn.2024-01.org%3At/2"),
    ],
)
def test_headers_that_do_not(active: Source, words: str) -> None:
    wrong = fault(replace(GOOD, backing=words), OVERLAY, Layer(active, "qcow2"), GIB)
    assert wrong is not None
    assert words in wrong
    assert active.uri in wrong


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (replace(GOOD, backing=""), "names no image below it"),
        (replace(GOOD, backing_format=""), "does not say the format"),
        (replace(GOOD, backing_format="raw"), "says raw of the image below it, which is qcow2"),
        (replace(GOOD, capacity=GIB - 512), "and the disk has 1073741824"),
        (replace(GOOD, capacity=GIB + 512), "and the disk has 1073741824"),
        (replace(GOOD, empty=False), "holds data already"),
        (replace(GOOD, flaws=("it is encrypted",)), "it is encrypted"),
    ],
)
def test_what_is_wrong_is_said(found: Examined, words: str) -> None:
    wrong = fault(found, OVERLAY, BASE, GIB)
    assert wrong is not None
    assert words in wrong


def test_a_good_one() -> None:
    assert fault(GOOD, OVERLAY, BASE, GIB) is None


def header(
    *,
    version: int = 3,
    incompatible: int = 0,
    crypt: int = 0,
    snapshots: int = 0,
    l1: bytes = bytes(16),
    first: bytes = b"",
) -> bytes:
    """A small image: header, the extension with the format below, the name below, and the first table."""
    name = b"/images/base.qcow2"
    extension = first + struct.pack(">II", 0xE2792ACA, 5) + b"qcow2\0\0\0" + bytes(8)
    end = 104 if version == 3 else 72
    at = end + len(extension)
    fixed = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        version,
        at,
        len(name),
        16,
        GIB,
        crypt,
        len(l1) // 8,
        4096,
        0,
        0,
        snapshots,
        0,
    )
    more = struct.pack(">QQQII", incompatible, 0, 0, 4, 104) if version == 3 else b""
    return (fixed + more + extension + name).ljust(4096, b"\0") + l1


def examined(data: bytes) -> Examined:
    return qcow2.examine(lambda offset, length: data[offset : offset + length])


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_is_read(version: int) -> None:
    assert examined(header(version=version)) == GOOD


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (header(incompatible=1), "good order"),
        (header(incompatible=2), "good order"),
        (header(incompatible=4), "in another file"),
        (header(incompatible=32), "not known here"),
        (header(crypt=2), "encrypted"),
        (header(snapshots=1), "internal snapshots"),
        (header(first=struct.pack(">II", 0x23852875, 24) + bytes(24)), "bitmaps"),
    ],
)
def test_flaws_are_found(data: bytes, words: str) -> None:
    assert words in examined(data).flaws[0]


def test_data_is_found() -> None:
    assert not examined(header(l1=bytes(15) + b"\1")).empty


@pytest.mark.parametrize(
    "data",
    [b"", b"QFI\xfb", bytes(512), header()[:4100], header(version=3).replace(b"\0\0\0\3", b"\0\0\0\4", 1)],
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(qcow2.NotQcow2):
        examined(data)


def test_no_path_is_relative_to_an_export() -> None:
    assert meant("base", NBD, "qcow2") is None


FILE = '"file":{"driver":"file","filename":"/images/base.qcow2"%s}'
RBD_NODE = '"file":{"driver":"rbd","pool":"pool","image":"img"%s}'
MORE_THAN_AN_IMAGE = {
    "an rbd snapshot": (RBD, RBD_NODE % ',"snapshot":"s"'),
    "another Ceph configuration": (RBD, RBD_NODE % ',"conf":"/etc/ceph/other.conf"'),
    "encrypted by rbd": (RBD, RBD_NODE % ',"encrypt":{"format":"luks"}'),
    "raw, where the header says qcow2": (BASE.source, f'"driver":"raw",{FILE % ""}'),
    "raw, a part of it": (BASE.source, f'"driver":"raw","offset":512,"size":1024,{FILE % ""}'),
    "a part of it": (BASE.source, f'"offset":512,{FILE % ""}'),
    "another image below": (BASE.source, f'"driver":"qcow2","backing":"x",{FILE % ""}'),
    "another image below, as a node": (
        BASE.source,
        f'"driver":"qcow2","backing":{{"driver":"null-co"}},{FILE % ""}',
    ),
    "no image below": (BASE.source, f'"driver":"qcow2","backing":null,{FILE % ""}'),
    "another data file": (BASE.source, f'"driver":"qcow2","data-file.filename":"/x",{FILE % ""}'),
    "encrypted": (BASE.source, f'"driver":"qcow2","encrypt.format":"luks",{FILE % ""}'),
    "an option that tells nothing of the image": (BASE.source, FILE % ',"locking":"off"'),
    "a filter in between": (BASE.source, f'"driver":"qcow2","file":{{"driver":"blkdebug",{FILE % ""}}}'),
    "a protocol alone": (BASE.source, '"driver":"file","filename":"/images/base.qcow2"'),
    "a key twice": (BASE.source, f'"file.filename":"/x",{FILE % ""}'),
    "a name twice": (BASE.source, FILE % ',"filename":"/images/base.qcow2"'),
    "a path that is relative to nothing": (
        Source.file("base.qcow2"),
        '"file":{"driver":"file","filename":"base.qcow2"}',
    ),
    "a number that is none": (
        ISCSI,
        '"file":{"driver":"iscsi","portal":"san:3260","target":"iqn.2024-01.org:t","lun":1.0}',
    ),
    "iSCSI over RDMA": (
        ISCSI,
        '"file":{"driver":"iscsi","transport":"iser","portal":"san:3260",'
        '"target":"iqn.2024-01.org:t","lun":1}',
    ),
    "NBD over vsock": (
        NBD,
        '"file":{"driver":"nbd","server.type":"vsock","server.host":"127.0.0.1","server.port":"10809",'
        '"export":"exp"}',
    ),
}


@pytest.mark.parametrize(("active", "inside"), MORE_THAN_AN_IMAGE.values(), ids=MORE_THAN_AN_IMAGE)
def test_a_header_that_says_more_than_which_image_is_refused(active: Source, inside: str) -> None:
    """A5: what is not understood is refused."""
    words = f"json:{{{inside}}}"
    wrong = fault(replace(GOOD, backing=words), OVERLAY, Layer(active, "qcow2"), GIB)
    assert wrong is not None
    assert f"its header names {words} below it" in wrong


@pytest.mark.parametrize(
    "words",
    [
        "rbd:pool/img:conf=/etc/ceph/other.conf",
        "rbd:pool/img:mon_host=a:snapshot=s",
        "rbd:pool/img:id=a:id=b",
        "rbd:pool/img:namespace=n",
        "gluster://g,h/gv0/dir/img",
        "gluster://g/gv0/dir/img?debug=9",
        "volume:pool/img",
    ],
)
def test_words_that_say_more_than_which_image_mean_none(words: str) -> None:
    assert meant(words, OVERLAY, "qcow2") is None


def test_a_raw_image_below_is_named_as_raw() -> None:
    words = 'json:{"driver":"raw","file":{"driver":"file","filename":"/images/base.qcow2"}}'
    raw = replace(GOOD, backing=words, backing_format="raw")
    assert fault(raw, OVERLAY, Layer(BASE.source, "raw"), GIB) is None


@pytest.mark.parametrize(
    ("kind", "xml", "words"),
    [
        (
            "file",
            "<source file='/x.tar'><slices><slice type='storage' offset='0' size='1024'/></slices></source>",
            "/x.tar",
        ),
        (
            "network",
            "<source protocol='http' name='x' query='token=a'><host name='h'/></source>",
            "http://h/x",
        ),
    ],
)
def test_an_image_that_no_header_can_name_is_above_nothing(kind: str, xml: str, words: str) -> None:
    active = Layer(Source.from_element(kind, etree.fromstring(xml)), "qcow2")
    assert fault(replace(GOOD, backing=words), OVERLAY, active, GIB) is not None
    assert meant(words, OVERLAY, "qcow2") is not None, "it is understood, and names the whole"
