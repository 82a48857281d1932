"""Every form of ``<source>`` that libvirt knows: through whole disks and chains and back, nothing lost, and
what of it makes the identity."""

from __future__ import annotations

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from controller.chain.chain_xml import backing_store
from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.parse import parse_domain
from controller.chain.source import Source
from tests.chain.strategies import NETWORK, SPELLINGS

UUID = "11111111-2222-4333-8444-555555555555"
AUTH = f'<auth username="u"><secret type="ceph" uuid="{UUID}"/></auth>'
LUKS = f'<encryption format="luks"><secret type="passphrase" uuid="{UUID}"/></encryption>'
FORMS: dict[str, tuple[str, str]] = {
    "a file": ("file", '<source file="/a b/&amp;x.raw" startupPolicy="optional"/>'),
    "a part of a file": (
        "file",
        '<source file="/x.tar"><slices><slice type="storage" offset="512" size="1024"/></slices></source>',
    ),
    "an encrypted file": ("file", f'<source file="/x.raw">{LUKS}</source>'),
    "labels": ("file", '<source file="/x"><seclabel model="dac" relabel="no"/></source>'),
    "a block device": ("block", '<source dev="/dev/vg/a"/>'),
    "reservations": (
        "block",
        '<source dev="/dev/sdx"><reservations managed="no">'
        '<source type="unix" path="/run/pr.sock" mode="client"/></reservations></source>',
    ),
    "a directory": ("dir", '<source dir="/srv/d"/>'),
    "a volume": ("volume", '<source pool="p" volume="v" mode="direct" startupPolicy="optional"/>'),
    "NVMe": (
        "nvme",
        '<source type="pci" managed="yes" namespace="1">'
        '<address domain="0x0000" bus="0x01" slot="0x00" function="0x0"/></source>',
    ),
    "gluster over all transports": (
        "network",
        '<source protocol="gluster" name="gv0/x"><host name="h" port="24007"/>'
        '<host name="h2" port="24008" transport="rdma"/><host transport="unix" socket="/r/g"/></source>',
    ),
    "NBD with TLS": (
        "network",
        '<source protocol="nbd" name="e" tls="yes" tlsHostname="t.example">'
        '<host name="h" port="10809"/></source>',
    ),
    "NBD's default export": ("network", '<source protocol="nbd"><host name="h" port="10809"/></source>'),
    "NBD over a socket": (
        "network",
        '<source protocol="nbd" name="e"><host transport="unix" socket="/r/s"/></source>',
    ),
    "RBD": (
        "network",
        '<source protocol="rbd" name="p/ns/i"><host name="m1" port="6789"/><host name="m2"/>'
        f'<snapshot name="s"/><config file="/etc/ceph/x.conf"/>{AUTH}</source>',
    ),
    "iSCSI": (
        "network",
        '<source protocol="iscsi" name="iqn.2013-07.com.example:t/1"><host name="::1" port="3260"/>'
        f'<initiator><iqn name="iqn.x:me"/></initiator>{AUTH.replace("ceph", "iscsi")}</source>',
    ),
    "HTTPS": (
        "network",
        '<source protocol="https" name="d/x.iso" query="token=a&amp;b=c"><host name="h" port="8443"/>'
        '<ssl verify="no"/><cookies><cookie name="c">v&amp;w</cookie></cookies><readahead size="65536"/>'
        '<timeout seconds="60"/></source>',
    ),
    "FTP": ("network", '<source protocol="ftp" name="x"><host name="h" port="21"/></source>'),
    "SSH": ("network", '<source protocol="ssh" name="/x"><host name="h" port="22"/></source>'),
    "NFS": (
        "network",
        '<source protocol="nfs" name="/e/x"><host name="h"/><identity user="+0" group="root"/></source>',
    ),
    "sheepdog": ("network", '<source protocol="sheepdog" name="vdi"><host name="h" port="7000"/></source>'),
}
"""As libvirt 9.0 writes them; :func:`test_libvirt_writes_these_forms` holds that."""


def canonical(xml: str) -> str:
    parser = etree.XMLParser(remove_blank_text=True)
    root = etree.fromstring(xml, parser)
    for element in root.iter():
        element[:] = sorted(element, key=lambda child: etree.tostring(child, method="c14n"))
    return etree.tostring(root, method="c14n").decode()


def from_xml(kind: str, xml: str) -> Source:
    return Source.from_element(kind, etree.fromstring(xml))


def disk_xml(kind: str, source: str, below: str = "", beside: str = "") -> str:
    return (
        f"<disk type='{kind}' device='disk'><driver name='qemu' type='raw'/>{beside}{source}{below}"
        "<target dev='vda' bus='virtio'/></disk>"
    )


def parsed(disk: str) -> Disk:
    return parse_domain(f"<domain><name>x</name><uuid>u</uuid><devices>{disk}</devices></domain>").disks[0]


@pytest.mark.parametrize(("kind", "xml"), FORMS.values(), ids=FORMS)
def test_each_form_comes_back_as_it_was(kind: str, xml: str) -> None:
    (layer,) = parsed(disk_xml(kind, xml)).layers
    assert canonical(layer.source.xml) == canonical(xml)
    (again,) = parsed(disk_xml(kind, layer.source.xml)).layers
    assert again == layer
    assert (again.key, again.source.uri, again.source.footprint) == (
        layer.key,
        layer.source.uri,
        layer.source.footprint,
    )


CHAINS = st.lists(
    st.builds(
        Layer,
        SPELLINGS.map(lambda two: from_xml(*two)),
        st.sampled_from(["qcow2", "raw"]),
    ),
    min_size=1,
    max_size=4,
)


@given(CHAINS, st.sampled_from(ChainEnd))
def test_whole_chains_come_back_as_they_were(layers: list[Layer], end: ChainEnd) -> None:
    """Mixed chains of any sources: written out below a disk, and read again."""
    active, *below = layers
    element = backing_store(below, end)
    chain = "" if element is None else etree.tostring(element, encoding="unicode")
    disk = parsed(disk_xml(active.source.type, active.source.xml, chain).replace("raw", active.format, 1))
    assert [layer.source for layer in disk.layers] == [layer.source for layer in layers]
    assert [layer.format for layer in disk.layers[1:]] == [layer.format for layer in below]
    known = end is ChainEnd.KNOWN or layers[-1].format == "raw"
    assert disk.end is (ChainEnd.KNOWN if known else ChainEnd.UNKNOWN)
    again = backing_store(disk.layers[1:], end)
    assert (again is None) == (element is None)
    assert again is None or etree.tostring(again, encoding="unicode") == chain


@pytest.mark.parametrize("credentials", [AUTH, LUKS], ids=["auth", "encryption"])
def test_credentials_beside_the_source_go_with_it(credentials: str) -> None:
    """The older form: libvirt leaves it at the disk, and a layer needs it in the source."""
    source = '<source protocol="rbd" name="p/i"><host name="m"/></source>'
    (layer,) = parsed(disk_xml("network", source, beside=credentials)).layers
    assert canonical(layer.source.xml) == canonical(source.replace("</source>", f"{credentials}</source>"))
    overlay = layer.source.beside("new")
    assert overlay is not None
    assert ("<auth" in overlay.xml) == (credentials == AUTH)


def test_credentials_in_the_source_are_not_doubled() -> None:
    source = f'<source protocol="rbd" name="p/i"><host name="m"/>{AUTH}</source>'
    (layer,) = parsed(disk_xml("network", source, beside=AUTH.replace('"u"', '"v"'))).layers
    assert canonical(layer.source.xml) == canonical(source)


@pytest.fixture(scope="module")
def connection() -> libvirt.virConnect:
    """libvirt's own parser and writer of domain XML, with no daemon and no machine."""
    return libvirt.open("test:///default")


def through_libvirt(connection: libvirt.virConnect, disk: str) -> str:
    """The disk as libvirt gives it back, with what it shows only to those who may see secrets."""
    name = "a-form"
    document = (
        f"<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os>"
        f"<devices>{disk}</devices></domain>"
    )
    domain = connection.defineXML(document)
    try:
        root = etree.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
    finally:
        domain.undefine()
    found = root.find("devices/disk")
    assert found is not None
    return etree.tostring(found, encoding="unicode", with_tail=False)


@pytest.mark.parametrize(("kind", "xml"), FORMS.values(), ids=FORMS)
def test_libvirt_writes_these_forms(connection: libvirt.virConnect, kind: str, xml: str) -> None:
    """And takes back what we write."""
    disk = disk_xml(kind, xml)
    if kind == "dir":
        disk = disk.replace("raw", "fat").replace("'disk'><driver", "'floppy'><driver")
        disk = disk.replace("dev='vda' bus='virtio'/>", "dev='fda' bus='fdc'/><readonly/>")
    elif "reservations" in xml:
        disk = disk.replace("'disk'><driver", "'lun'><driver").replace(
            "dev='vda' bus='virtio'", "dev='sda' bus='scsi'"
        )
    elif "ftp" in xml:
        disk = disk.replace("'disk'><driver", "'cdrom'><driver")
        disk = disk.replace("dev='vda' bus='virtio'/>", "dev='sda' bus='sata'/><readonly/>")
    (layer,) = parsed(through_libvirt(connection, disk)).layers
    assert canonical(layer.source.xml) == canonical(xml)


def test_libvirt_keeps_credentials_beside_the_source(connection: libvirt.virConnect) -> None:
    source = '<source protocol="rbd" name="p/i"><host name="m"/></source>'
    given_back = through_libvirt(connection, disk_xml("network", source, beside=AUTH))
    assert etree.fromstring(given_back).find("auth") is not None
    assert "<auth" in parsed(given_back).layers[0].source.xml


def test_libvirt_writes_default_ports_and_the_first_lun(connection: libvirt.virConnect) -> None:
    """What it writes has the identity of what it was given."""
    for protocol in ("gluster", "nbd", "iscsi", "http", "https", "ssh", "sheepdog", "rbd"):
        plain = f'<source protocol="{protocol}" name="iqn.x:t"><host name="h"/></source>'.replace(
            "iqn.x:t", "v/i" if protocol in {"gluster", "rbd"} else "iqn.x:t"
        )
        (given_back,) = parsed(through_libvirt(connection, disk_xml("network", plain))).layers
        assert given_back.source.key == from_xml("network", plain).key, protocol
        assert given_back.source.uri == from_xml("network", plain).uri, protocol


def network(protocol: str, name: str, *hosts: str, inner: str = "") -> Source:
    found = "".join(f"<host {host}/>" for host in hosts)
    return from_xml("network", f"<source protocol='{protocol}' name='{name}'>{found}{inner}</source>")


A, B = "name='a'", "name='b'"

ONE_IMAGE = {
    "case": (network("nbd", "e", "name='Store.Example'"), network("nbd", "e", "name='store.example'")),
    "the dot at the end": (network("nbd", "e", "name='a.b.'"), network("nbd", "e", "name='a.b'")),
    "IPv6": (network("nbd", "e", "name='::1'"), network("nbd", "e", "name='0:0:0:0:0:0:0:1'")),
    "IPv6 in brackets": (network("nbd", "e", "name='::1'"), network("nbd", "e", "name='[::1]'")),
    "a port with zeros": (network("nbd", "e", "name='a' port='010809'"), network("nbd", "e", A)),
    "Ceph's ports": (
        network("rbd", "p/i", A),
        network("rbd", "p/i", "name='a' port='6789'", "name='a' port='3300'"),
    ),
    "order": (network("rbd", "p/i", A, B), network("rbd", "p/i", B, A)),
    "the first LUN": (network("iscsi", "iqn.x:t", A), network("iscsi", "IQN.x:T/0", A)),
    "the first slash": (network("http", "/x", A), network("http", "x", A)),
    "dots in a volume": (network("gluster", "gv0/a/../../b", A), network("gluster", "gv0/b", A)),
    "who asks": (network("rbd", "p/i", A), network("rbd", "p/i", A, inner=AUTH)),
    "TLS": (
        network("nbd", "e", A),
        from_xml(
            "network", "<source protocol='nbd' name='e' tls='yes' tlsHostname='x'><host name='a'/></source>"
        ),
    ),
    "the initiator": (
        network("iscsi", "iqn.x:t/1", A),
        network("iscsi", "iqn.x:t/1", A, inner="<initiator><iqn name='iqn.y'/></initiator>"),
    ),
    "patience": (
        network("https", "x", A),
        network("https", "x", A, inner="<readahead size='1'/><timeout seconds='2'/><ssl verify='no'/>"),
    ),
}


@pytest.mark.parametrize(("one", "other"), ONE_IMAGE.values(), ids=ONE_IMAGE)
def test_one_image_has_one_identity(one: Source, other: Source) -> None:
    assert one.key == other.key
    assert one.footprint == other.footprint


SLICE = "<source file='/x'><slices><slice type='storage' offset='{}' size='2'/></slices></source>"
TWO_IMAGES = {
    "a snapshot": (network("rbd", "p/i", A), network("rbd", "p/i", A, inner="<snapshot name='s'/>")),
    "a name that looks like a snapshot": (
        network("rbd", "p/i@s", A),
        network("rbd", "p/i", A, inner="<snapshot name='s'/>"),
    ),
    "another cluster": (
        network("rbd", "p/i", inner="<config file='/etc/ceph/a.conf'/>"),
        network("rbd", "p/i", inner="<config file='/etc/ceph/b.conf'/>"),
    ),
    "another port of Ceph": (network("rbd", "p/i", A), network("rbd", "p/i", "name='a' port='6790'")),
    "a part": (from_xml("file", SLICE.format(0)), Source.file("/x")),
    "another part": (from_xml("file", SLICE.format(0)), from_xml("file", SLICE.format(1))),
    "a socket with a slash": (
        network("nbd", "c", "transport='unix' socket='/a/b'"),
        network("nbd", "b/c", "transport='unix' socket='/a'"),
    ),
    "a host called unix": (
        network("nbd", "e", "name='unix' port='1'"),
        network("nbd", "e", "transport='unix' socket='1'"),
    ),
    "a host with a comma": (network("rbd", "p/i", "name='a,b'"), network("rbd", "p/i", A, B)),
    "a volume's dots": (network("gluster", "gv0/../gv1/x", A), network("gluster", "gv1/x", A)),
    "loopback and another name for it": (
        network("nbd", "e", "name='localhost'"),
        network("nbd", "e", "name='127.0.0.1'"),
    ),
}


@pytest.mark.parametrize(("one", "other"), TWO_IMAGES.values(), ids=TWO_IMAGES)
def test_two_images_have_two_identities(one: Source, other: Source) -> None:
    assert one.key != other.key


MAYBE_ONE = {
    "hosts of one cluster": (network("rbd", "p/i", A, B), network("rbd", "p/i", B)),
    "other hosts of the cluster": (network("gluster", "gv0/x", A), network("gluster", "gv0/x", B)),
    "a cluster from its file": (network("rbd", "p/i", A), network("rbd", "p/i")),
    "two portals": (network("iscsi", "iqn.x:t/1", A), network("iscsi", "iqn.x:t/1", B)),
    "two names of one server": (
        network("nbd", "e", "name='localhost'"),
        network("nbd", "e", "name='127.0.0.1'"),
    ),
    "a file that is a device": (Source.file("/dev/vg/a"), from_xml("block", "<source dev='/dev/vg/a'/>")),
    "a part and the whole": (from_xml("file", SLICE.format(0)), Source.file("/x")),
}


@pytest.mark.parametrize(("one", "other"), MAYBE_ONE.values(), ids=MAYBE_ONE)
def test_what_may_share_bytes_has_one_footprint(one: Source, other: Source) -> None:
    assert one.footprint == other.footprint
    assert one.key != other.key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (network("nbd", "", A), network("nbd", "", "name='a' port='10810'")),
        (network("nbd", "e", A), network("nbd", "e", "transport='unix' socket='/s'")),
        (network("rbd", "p/i", A), network("rbd", "q/i", A)),
        (network("rbd", "p/i", A), network("rbd", "p/i", A, inner="<snapshot name='s'/>")),
        (network("iscsi", "iqn.x:t/1", A), network("iscsi", "iqn.x:t/2", A)),
        (network("rbd", "p/i", A), network("gluster", "p/i", A)),
    ],
)
def test_what_shares_nothing_has_two_footprints(one: Source, other: Source) -> None:
    assert one.footprint != other.footprint


@given(SPELLINGS, SPELLINGS)
def test_one_identity_has_one_footprint(one: tuple[str, str], other: tuple[str, str]) -> None:
    """The guards' view is the coarser one: what is one image for the chain is one for them."""
    first, second = from_xml(*one), from_xml(*other)
    assert first.key != second.key or first.footprint == second.footprint


def test_each_protocol_of_the_property_tests_has_a_form_here() -> None:
    listed = {from_xml(kind, xml).protocol for kind, xml in FORMS.values()} | {"http"}
    assert set(NETWORK) <= listed
