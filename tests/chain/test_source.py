"""Sources: nothing lost on the way through, an identity that does not depend on spelling, safe neighbours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from controller.chain.parse import parse_domain
from controller.chain.source import Host, Source
from tests.chain.strategies import NAME, SOURCES, SPELLINGS


def canonical(xml: str) -> str:
    return etree.tostring(etree.fromstring(xml), method="c14n").decode()


@given(SPELLINGS, st.integers(1, 999))
def test_a_source_survives_a_domain_document(spelling: tuple[str, str], index: int) -> None:
    kind, xml = spelling
    source = etree.fromstring(xml)
    source.set("index", str(index))
    root = etree.fromstring(
        "<domain><name>x</name><uuid>u</uuid><devices><disk><target dev='vda'/></disk></devices></domain>"
    )
    disk = root.find("devices/disk")
    assert disk is not None
    disk.set("type", kind)
    disk.append(source)
    layer = parse_domain(etree.tostring(root, encoding="unicode")).disks[0].layers[0]
    assert layer.index == index
    assert layer.source.type == kind
    assert canonical(layer.source.xml) == canonical(xml)
    again = Source.from_element(kind, layer.source.element())
    assert again == layer.source
    assert (again.key, again.uri, again.leaf) == (layer.source.key, layer.source.uri, layer.source.leaf)


@given(SOURCES, SOURCES)
def test_different_identities_have_different_elements(one: Source, other: Source) -> None:
    assert (one.key == other.key) or (one != other)


@given(SOURCES, NAME)
def test_a_neighbour_differs_in_its_name_and_in_what_is_of_one_image(source: Source, leaf: str) -> None:
    beside = source.beside(leaf)
    if beside is None:
        assert source.type != "file"
        return
    assert beside.type == source.type
    assert beside.leaf == leaf
    assert beside.hosts == source.hosts
    assert beside.protocol == source.protocol
    attribute = "file" if source.type == "file" else "name"
    mine, theirs = source.element(), beside.element()
    for element in (mine, theirs):
        element.attrib.pop(attribute)
        element.attrib.pop("query", "")
        element.attrib.pop("startupPolicy", "")
        # Of one image, not of its place.
        for tag in ("slices", "encryption", "reservations", "snapshot", "seclabel"):
            for child in element.findall(tag):
                element.remove(child)
    assert etree.tostring(mine, method="c14n") == etree.tostring(theirs, method="c14n")
    folder = (source.path or source.name).rpartition("/")[0]
    assert (beside.path or beside.name).rpartition("/")[0] == folder


@pytest.mark.parametrize("leaf", ["", ".", "..", "a/b", "../x", "/etc/passwd", "x/"])
@pytest.mark.parametrize(
    "source", [Source.file("/images/a"), Source.network("gluster", "gv0/a", [Host("vm")])]
)
def test_a_neighbour_is_one_path_component(source: Source, leaf: str) -> None:
    with pytest.raises(ValueError, match="one path component"):
        source.beside(leaf)


def from_xml(kind: str, xml: str) -> Source:
    return Source.from_element(kind, etree.fromstring(xml))


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("file", "<source file='/a/b'/>", "<source file='//a/./b'/>"),
        ("file", "<source file='/a/b' index='3'/>", "<source file='/a/x/../b' startupPolicy='optional'/>"),
        (
            "network",
            "<source protocol='nbd' name='e'><host name='h'/></source>",
            "<source protocol='nbd' name='e'><host name='H' port='10809'/></source>",
        ),
        (
            "network",
            "<source protocol='rbd' name='p/i'><host name='a'/><host name='b'/></source>",
            "<source protocol='rbd' name='p/i'><host name='b'/><host name='a'/><auth username='u'/></source>",
        ),
        (
            "network",
            "<source protocol='gluster' name='gv0/./b'><host name='h'/></source>",
            "<source protocol='gluster' name='gv0/b'><host name='h' port='24007'/></source>",
        ),
    ],
)
def test_spellings_of_one_image(kind: str, one: str, other: str) -> None:
    assert from_xml(kind, one).key == from_xml(kind, other).key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "<source protocol='nbd' name='e'><host name='h'/></source>",
            "<source protocol='nbd' name='e'><host name='h' port='1'/></source>",
        ),
        (
            "<source protocol='nbd' name='e'><host name='h'/></source>",
            "<source protocol='nbd' name='f'><host name='h'/></source>",
        ),
        (
            "<source protocol='nbd' name='e'><host name='h'/></source>",
            "<source protocol='nbd' name='e'><host transport='unix' socket='/h'/></source>",
        ),
        ("<source protocol='rbd' name='p/i'/>", "<source protocol='gluster' name='p/i'/>"),
        ("<source protocol='rbd' name='p/i'/>", "<source protocol='rbd' name='p/./i'/>"),
        ("<source protocol='http' name='x' query='a'/>", "<source protocol='http' name='x' query='b'/>"),
    ],
)
def test_images_that_only_look_alike(one: str, other: str) -> None:
    assert from_xml("network", one).key != from_xml("network", other).key


@pytest.mark.parametrize(
    ("kind", "xml", "beside"),
    [
        (
            "file",
            "<source file='/images//a.raw' startupPolicy='optional'>"
            "<slices><slice type='storage' offset='1' size='2'/></slices></source>",
            '<source file="/images/new"/>',
        ),
        (
            "network",
            "<source protocol='gluster' name='gv0/dir/./a.raw' index='3'>"
            "<host name='vm' port='24007'/></source>",
            '<source protocol="gluster" name="gv0/dir/new"><host name="vm" port="24007"/></source>',
        ),
        (
            "network",
            "<source protocol='rbd' name='p/a'><host name='m'/><snapshot name='s'/>"
            "<encryption format='luks'/>"
            "<auth username='u'><secret type='ceph' uuid='x'/></auth></source>",
            '<source protocol="rbd" name="p/new"><host name="m"/>'
            '<auth username="u"><secret type="ceph" uuid="x"/></auth></source>',
        ),
    ],
)
def test_a_neighbour_as_xml(kind: str, xml: str, beside: str) -> None:
    found = from_xml(kind, xml).beside("new")
    assert found is not None
    assert found.xml == beside


@pytest.mark.parametrize(
    ("kind", "xml"),
    [
        ("block", "<source dev='/dev/vg/a'/>"),
        ("volume", "<source pool='p' volume='v'/>"),
        ("network", "<source protocol='nbd' name='dir/exp'><host name='h'/></source>"),
        ("network", "<source protocol='iscsi' name='iqn.x:t/1'><host name='h'/></source>"),
        ("network", "<source protocol='http' name='t/base.raw'><host name='h'/></source>"),
        ("network", "<source protocol='rbd' name='image-without-pool'><host name='h'/></source>"),
        ("network", "<source protocol='gluster' name='gv0'><host name='h'/></source>"),
    ],
)
def test_no_place_beside(kind: str, xml: str) -> None:
    assert from_xml(kind, xml).beside("new") is None


@pytest.mark.parametrize(
    ("kind", "xml", "uri"),
    [
        ("file", "<source file='/images//./a b'/>", "/images/a b"),
        (
            "network",
            "<source protocol='gluster' name='gv0/./a b'><host name='vm'/></source>",
            "gluster://vm:24007/gv0/a%20b",
        ),
        (
            "network",
            "<source protocol='nbd' name='e'><host name='::1' port='1'/></source>",
            "nbd://[::1]:1/e",
        ),
        (
            "network",
            "<source protocol='nbd' name='e'><host transport='unix' socket='/run/s'/></source>",
            "nbd+unix:///e?socket=/run/s",
        ),
        ("volume", "<source pool='p' volume='v'/>", "volume:p/v"),
    ],
)
def test_what_people_read(kind: str, xml: str, uri: str) -> None:
    assert from_xml(kind, xml).uri == uri


def test_a_network_source_is_built_as_libvirt_wants_it() -> None:
    built = Source.network("nbd", "e", [Host("h", "1"), Host(transport="unix", socket="/s")])
    hosts = '<host name="h" port="1"/><host socket="/s" transport="unix"/>'
    assert built.xml == f'<source protocol="nbd" name="e">{hosts}</source>'


def test_no_secret_is_ever_in_what_people_read() -> None:
    source = from_xml(
        "network",
        "<source protocol='rbd' name='p/i'><host name='m'/>"
        "<auth username='bob'><secret type='ceph' uuid='s3cret'/></auth></source>",
    )
    assert "s3cret" not in source.uri + source.key
    assert "bob" not in source.uri + source.key
