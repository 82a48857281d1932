"""Every part of a ``<source>``: what goes over to a new image beside it, and what is done about the rest.

B18: labels and handed-in files are not inherited. A5: nor is the file that holds the data of another image.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from controller.chain.blocked import Why
from controller.chain.cost import Choice, Range
from controller.chain.desired import Policy
from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.guards import disk_guard
from controller.chain.journal import OperationKind
from controller.chain.merge_guards import MergeCase, merge_verdict, shared_guard, understood_guard
from controller.chain.source import Source
from controller.chain.source_parts import ATTRIBUTES, CHILDREN, Of
from tests.chain import builders as b
from tests.chain.verdicts import says

SCHEMAS = Path("/usr/share/libvirt/schemas")
RNG = "{http://relaxng.org/ns/structure/1.0}"

STORE = '<dataStore type="block"><format type="raw"/><source dev="/dev/vg/data" index="4"/></dataStore>'
CHILD = {
    "host": '<host name="g2" port="24008"/>',
    "auth": '<auth username="u"><secret type="ceph" uuid="11111111-2222-4333-8444-555555555555"/></auth>',
    "config": '<config file="/etc/ceph/other.conf"/>',
    "initiator": '<initiator><iqn name="iqn.2024-01.org:me"/></initiator>',
    "ssl": '<ssl verify="no"/>',
    "cookies": '<cookies><cookie name="c">v</cookie></cookies>',
    "readahead": '<readahead size="65536"/>',
    "timeout": '<timeout seconds="5"/>',
    "reconnect": '<reconnect delay="5"/>',
    "identity": '<identity user="u" group="g"/>',
    "knownHosts": '<knownHosts path="/k"/>',
    "slices": '<slices><slice type="storage" offset="0" size="512"/></slices>',
    "encryption": '<encryption format="luks"/>',
    "reservations": '<reservations managed="yes"/>',
    "snapshot": '<snapshot name="s"/>',
    "seclabel": '<seclabel model="dac" relabel="no"/>',
    "dataStore": STORE,
    "address": '<address domain="0x0000" bus="0x01" slot="0x00" function="0x0"/>',
    "privateData": "<privateData><nodenames/></privateData>",
}
"""One of each child that is listed."""


def source(xml: str, kind: str = "file") -> Source:
    return Source.from_element(kind, etree.fromstring(xml))


@pytest.mark.parametrize("tag", CHILD)
def test_a_child_goes_over_if_it_is_the_servers(tag: str) -> None:
    gluster = source(f'<source protocol="gluster" name="gv0/a">{CHILD[tag]}</source>', "network")
    beside = gluster.beside("new")
    assert beside is not None
    kept = [etree.tostring(one, encoding="unicode") for one in beside.element()]
    assert kept == ([CHILD[tag]] if CHILDREN[tag] is Of.SERVER else [])
    assert (beside.name, beside.protocol) == ("gv0/new", "gluster")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_an_attribute_goes_over_if_it_is_the_servers(attribute: str) -> None:
    element = etree.Element("source", file="/images/a")
    element.set(attribute, element.get(attribute, "yes"))
    beside = Source.from_element("file", element).beside("new")
    assert beside is not None
    left = dict(beside.element().attrib)
    assert left.pop("file") == "/images/new"
    assert left == ({attribute: "yes"} if ATTRIBUTES[attribute] is Of.SERVER else {})


@pytest.mark.parametrize(
    "xml",
    [
        '<source file="/images/a"><seclabel model="dac" relabel="no"/></source>',
        '<source file="/images/a"><seclabel model="dac"><label>+1:+1</label></seclabel></source>',
        '<source file="/images/a" fdgroup="handed-in"/>',
        '<source file="/images/a" startupPolicy="optional"/>',
        f'<source file="/images/a">{STORE}</source>',
    ],
)
def test_an_overlay_beside_a_file_is_a_plain_file(xml: str) -> None:
    """B18 and A5: what made every take fail."""
    assert source(xml).beside("new") == Source.file("/images/new")


def parts(element: etree._Element, defines: dict[str, list[etree._Element]], *, inside: bool) -> set[str]:
    """Attributes and children of every ``<source>`` that this piece of a schema allows."""
    found: set[str] = set()
    for child in element.iterchildren(etree.Element):
        name, kind = child.get("name", ""), etree.QName(child).localname
        if kind in {"attribute", "element"} and inside:
            found.add(f"@{name}" if kind == "attribute" else name)
        elif kind == "ref":
            for one in defines.get(name, []):
                found |= parts(one, defines, inside=inside)
        elif kind != "attribute":
            found |= parts(child, defines, inside=name == "source" if kind == "element" else inside)
    return found


def test_all_of_libvirts_own_schema_is_listed() -> None:
    """Attributes and children of ``<source>`` as the schema of the installed libvirt has them."""
    names = ("domaincommon", "storagecommon", "privatedata", "domainoverrides")
    if not SCHEMAS.exists():
        pytest.skip("libvirt's schemas are not installed")
    defines: dict[str, list[etree._Element]] = {}
    for name in names:
        for one in etree.parse(str(SCHEMAS / f"{name}.rng")).getroot().iter(f"{RNG}define"):
            defines.setdefault(one.get("name", ""), []).append(one)
    found = parts(defines["diskSource"][0], defines, inside=False)
    assert {"seclabel", "slices", "@file", "@startupPolicy"} <= found
    assert found <= {*CHILDREN, *(f"@{name}" for name in ATTRIBUTES)}


# Data files ---------------------------------------------------------------------------------------------


WITH_STORE = source(f'<source file="/images/base" index="1">{STORE}</source>')
DATA = source('<source dev="/dev/vg/data"/>', "block")


def test_a_data_file_is_an_image_of_its_own() -> None:
    """A5: it counts wherever somebody asks who uses an image, and its index is no part of it."""
    assert WITH_STORE.data_file == DATA
    assert WITH_STORE.footprints == {Source.file("/images/base").footprint, DATA.footprint}
    assert WITH_STORE.key == Source.file("/images/base").key
    disk = Disk("vda", "disk", (Layer(WITH_STORE, "qcow2"),), ChainEnd.KNOWN)
    assert disk.footprints == WITH_STORE.footprints


def test_a_layer_may_go_above_it() -> None:
    assert disk_guard(Disk("vda", "disk", (Layer(WITH_STORE, "qcow2"),), ChainEnd.KNOWN)) is None


def case(kept: int, chain: Disk, **changes: object) -> MergeCase:
    kind = OperationKind.PULL if kept == 0 else OperationKind.ACTIVE_COMMIT
    observation = replace(b.observation(b.facts(chain)), **changes)  # type: ignore[arg-type]
    way = Choice(Range(0, len(chain.layers) - 1), kept, 0, (kind,))
    return MergeCase(observation, b.facts(chain), chain, way, Policy())


CHAIN = b.disk("top", "base")
ON_STORE = replace(CHAIN, layers=(CHAIN.layers[0], Layer(WITH_STORE, "qcow2", 1)))


def test_nothing_is_merged_into_it() -> None:
    says(
        merge_verdict(case(1, ON_STORE)),
        Why.UNSUPPORTED_TOPOLOGY,
        "/images/base",
        "another file (/dev/vg/data)",
        "merge.direction: Pull",
        "Retain",
    )


def test_it_may_be_pulled_up_which_only_reads_it() -> None:
    assert merge_verdict(case(0, ON_STORE)) is None
    assert understood_guard(case(1, CHAIN)) is None


def test_whoever_uses_the_data_file_uses_the_image() -> None:
    used = {DATA.footprint: "disk vdb of web-2"}
    says(shared_guard(case(1, ON_STORE, in_use_elsewhere=used)), Why.IMAGE_PROTECTED, "disk vdb of web-2")


# What no version up to now writes -----------------------------------------------------------------------


ODD = source('<source file="/images/base" mirrorOf="x"><dedup ratio="2"/></source>')


def test_what_is_not_understood_is_refused() -> None:
    """A5: neither a layer above such an image nor a merge into it."""
    assert ODD.not_understood == ("@mirrorOf", "<dedup>")
    says(
        disk_guard(Disk("vda", "disk", (Layer(ODD, "qcow2"),), ChainEnd.KNOWN)),
        Why.DISK_UNSUPPORTED,
        "@mirrorOf, <dedup>",
        "/images/base",
    )
    above = replace(CHAIN, layers=(CHAIN.layers[0], Layer(ODD, "qcow2", 1)))
    says(merge_verdict(case(1, above)), Why.UNSUPPORTED_TOPOLOGY, "@mirrorOf, <dedup>", "upgrade")
    assert merge_verdict(case(0, above)) is None


@pytest.mark.parametrize(
    ("kind", "xml", "words"),
    [
        ("vhostuser", '<source type="unix" path="/run/v.sock"/>', "vhostuser"),
        ("vhostvdpa", '<source dev="/dev/vhost-vdpa-0"/>', "vhostvdpa"),
        ("dir", '<source dir="/srv/d"/>', "a directory"),
    ],
)
def test_disks_that_can_have_no_layers(kind: str, xml: str, words: str) -> None:
    disk = Disk("vda", "disk", (Layer(source(xml, kind), "raw"),), ChainEnd.KNOWN)
    says(disk_guard(disk), Why.DISK_UNSUPPORTED, words)
