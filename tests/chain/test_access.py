"""What a new image gets from one on the same server: the way in, and nothing that is the image's own."""

from __future__ import annotations

import pytest
from lxml import etree

from controller.chain.access import model_of, with_access
from controller.chain.blocked import Why
from controller.chain.guards import disk_guard
from controller.chain.source import Host, Source
from tests.chain import builders as b


def source(xml: str, kind: str = "network") -> Source:
    return Source.from_element(kind, etree.fromstring(xml))


CEPH = source(
    "<source protocol='rbd' name='pool/disk'><host name='a' port='6789'/><host name='b'/>"
    "<snapshot name='s'/><config file='/etc/ceph/other.conf'/>"
    "<auth username='u'><secret type='ceph' uuid='0a4f4f0e-5f1c-4e0e-9a53-0c9fd1a3c001'/></auth>"
    "<encryption format='luks'><secret type='passphrase' usage='x'/></encryption>"
    "<slices><slice type='storage' offset='0' size='1'/></slices></source>"
)
TLS = source("<source protocol='nbd' name='one' tls='yes'><host name='nbd.example' port='10810'/></source>")
PLAIN = source("<source protocol='nbd' name='two'><host name='nbd.example' port='10809'/></source>")
CHAP = source(
    "<source protocol='iscsi' name='iqn.2024-01.org:t/1'><host name='san'/>"
    "<auth username='u'><secret type='iscsi' usage='x'/></auth>"
    "<initiator><iqn name='iqn.2024-01.org:me'/></initiator></source>"
)


def test_the_way_in_is_taken_and_what_is_the_images_own_is_not() -> None:
    found = with_access(Source.network("rbd", "other/new", [Host("b")]), [CEPH])
    element = found.element()
    assert [child.tag for child in element] == ["host", "auth", "config"]
    assert element.get("name") == "other/new"
    assert element.find("auth/secret") is not None
    assert [host.name for host in found.hosts] == ["b"]


def test_ceph_without_hosts_is_the_disks_cluster() -> None:
    found = with_access(Source.network("rbd", "pool/new"), [PLAIN, CEPH])
    assert [host.name for host in found.hosts] == ["a", "b"]
    assert found.key == Source.network("rbd", "pool/new", CEPH.hosts).key
    assert with_access(Source.network("rbd", "pool/new"), [PLAIN]).hosts == ()


def test_initiator_and_secret_of_a_target() -> None:
    found = with_access(Source.network("iscsi", "iqn.2024-01.org:t/2", [Host("SAN", "3260")]), [CHAP])
    assert [child.tag for child in found.element()] == ["host", "auth", "initiator"]


@pytest.mark.parametrize(
    ("port", "tls"),
    [("10810", "yes"), ("10809", None), ("10811", "yes")],
    ids=["the TLS port", "the plain port", "another port of the host"],
)
def test_tls_is_that_of_the_port_if_that_is_known(port: str, tls: str | None) -> None:
    target = Source.network("nbd", "three", [Host("nbd.example", port)])
    assert with_access(target, [TLS, PLAIN]).element().get("tls") == tls


@pytest.mark.parametrize(
    "target",
    [
        Source.network("nbd", "one", [Host("other.example", "10810")]),
        Source.network("gluster", "one/two", [Host("nbd.example")]),
        Source.network("nbd", "one", [Host(transport="unix", socket="/run/x")]),
        Source.file("/images/x"),
    ],
)
def test_nothing_goes_to_another_server(target: Source) -> None:
    assert with_access(target, [TLS, PLAIN, CHAP, CEPH]) == target
    assert model_of(target, [TLS, PLAIN, CHAP, CEPH]) is None


def test_an_encrypted_disk_has_no_points() -> None:
    layer = b.layer("a")
    element = layer.source.element()
    element.append(etree.fromstring("<encryption format='luks'/>"))
    encrypted = b.disk("a", layers=(type(layer)(Source.from_element("file", element), "qcow2"),))
    blocked = disk_guard(encrypted)
    assert blocked is not None
    assert blocked.why is Why.DISK_UNSUPPORTED
    assert "unencrypted" in blocked.message
    assert disk_guard(b.disk("a")) is None
