"""Seals: what varve wrote stays sealed whatever libvirt does to it, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lxml import etree

from controller.chain import journal_form
from controller.chain.journal import DiskJournal, Journal
from controller.chain.journal_codec import JournalError, decode, encode, read
from controller.chain.journal_form import NotKnown, refuse_unknown
from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.seal import Sealing, Seals, Trust, key_id
from controller.chain.untrusted import distrust
from tests.chain.strategies import journals
from tests.chain.test_journal_codec import FULL, through_libvirt

KEY, OTHER = b"k" * 32, b"o" * 32
SEALING = Sealing(Seals(KEY))
DOMAIN = "0a4f4f0e-5f1c-4e0e-9a53-0c9fd1a3c001"
SOME = journals().filter(lambda journal: not journal.is_empty)


def sealed(journal: Journal) -> str:
    """The journal as varve writes it."""
    return encode(journal, SEALING, domain=DOMAIN) or ""


def trust(xml: str, sealing: Sealing = SEALING, domain: str = DOMAIN) -> set[Trust]:
    """What the seals say, of all disks together."""
    return set(read(xml, sealing, domain=domain).trust.values())


def text_of(element: etree._Element) -> str:
    """The whole document that the element is in."""
    return etree.tostring(element.getroottree().getroot(), encoding="unicode")


@settings(max_examples=40)
@given(SOME)
def test_what_varve_wrote_is_sealed_also_as_libvirt_gives_it_back(journal: Journal) -> None:
    xml = sealed(journal)
    assert trust(xml) == trust(through_libvirt(xml)) == {Trust.SEALED}
    assert decode(through_libvirt(xml)) == journal
    again = encode(decode(through_libvirt(xml)), SEALING, domain=DOMAIN)
    assert again == xml, "written again it is the same"


@settings(max_examples=30)
@given(SOME)
def test_the_copy_that_stays_without_a_process_is_sealed_by_itself(journal: Journal) -> None:
    assert trust(sealed(journal.lasting)) == {Trust.SEALED}


@settings(max_examples=60)
@given(SOME, st.data())
def test_no_part_can_be_changed_added_cut_or_moved(journal: Journal, data: st.DataObject) -> None:
    """Every element and attribute of what is sealed, those inside a source as well."""
    xml = sealed(journal)
    disks = [one for one in etree.fromstring(xml) if isinstance(one.tag, str)]
    disk = data.draw(st.sampled_from(disks))
    places = list(disk.iter(etree.Element))
    element = data.draw(st.sampled_from(places))
    how = data.draw(st.sampled_from(["change", "drop", "add", "cut", "twice", "text", "child", "order"]))
    names = [name for name in element.attrib if name != "seal"]
    target = str(disk.get("target"))
    if how in {"change", "drop"}:
        assume(names)
        name = data.draw(st.sampled_from(names))
        if how == "drop":
            del element.attrib[name]
        else:
            element.set(name, element.attrib[name] + "x")
            target += "x" if element is disk and name == "target" else ""
    elif how == "add":
        element.set("attempted", "no" if element.get("attempted") == "yes" else "yes")
    elif how in {"cut", "twice", "order"}:
        parent = element.getparent()
        assume(parent is not None and element is not disk)
        assert parent is not None
        if how == "cut":
            parent.remove(element)
        elif how == "twice":
            element.addnext(etree.fromstring(etree.tostring(element, with_tail=False)))
        else:
            beside = element.getnext()
            assume(beside is not None)
            assert beside is not None
            assume(etree.tostring(beside, with_tail=False) != etree.tostring(element, with_tail=False))
            parent.insert(parent.index(element), beside)
    elif how == "text":
        element.text = (element.text or "") + "words"
    else:
        etree.SubElement(element, f"{{{JOURNAL_NAMESPACE}}}seclabel")
    changed = text_of(disk)
    try:
        found = read(changed, SEALING, domain=DOMAIN)
    except JournalError:
        return  # nothing is done by it either
    assert found.trust[target] is Trust.BROKEN
    assert distrust("web-1", "c", found.trust)


@settings(max_examples=30)
@given(SOME)
def test_a_record_is_of_one_machine_and_one_cluster(journal: Journal) -> None:
    xml = sealed(journal)
    assert trust(xml, domain=DOMAIN[:-1] + "2") == {Trust.BROKEN}, "a clone"
    root = etree.fromstring(xml)
    root.set("cluster", journal.cluster + "x")
    assert trust(text_of(root)) == {Trust.BROKEN}


@settings(max_examples=30)
@given(SOME.filter(lambda journal: len(journal.disks) > 1))
def test_records_cannot_change_places(journal: Journal) -> None:
    root = etree.fromstring(sealed(journal))
    first, second = root[0], root[1]
    one, two = str(first.get("target")), str(second.get("target"))
    first.set("target", two)
    second.set("target", one)
    found = read(text_of(root), SEALING, domain=DOMAIN).trust
    assert {found[one], found[two]} == {Trust.BROKEN}
    first.set("target", one)
    second.set("target", two)
    first.set("seal", str(second.get("seal")))
    assert read(text_of(root), SEALING, domain=DOMAIN).trust[one] is Trust.BROKEN


def test_the_key_that_was_is_believed_and_seals_nothing() -> None:
    xml = encode(decode(FULL), Sealing(Seals(OTHER)), domain=DOMAIN) or ""
    rotated = Sealing(Seals(KEY, [OTHER]))
    assert trust(xml, rotated) == {Trust.SEALED}
    assert f'seal="{key_id(KEY)}:' in (encode(decode(xml), rotated, domain=DOMAIN) or "")
    assert trust(xml) == {Trust.STRANGE}


def test_a_lost_key_is_given_up_for_the_cluster_that_is_named_alone() -> None:
    xml = encode(decode(FULL), Sealing(Seals(OTHER)), domain=DOMAIN) or ""
    assert trust(xml, Sealing(Seals(KEY), {"c"})) == {Trust.UNSEALED}
    assert trust(xml, Sealing(Seals(KEY), {"d"})) == {Trust.STRANGE}
    mine = (
        sealed(decode(FULL))
        .replace("attempted='yes'", "attempted='no'")
        .replace('attempted="yes"', 'attempted="no"')
    )
    assert trust(mine, Sealing(Seals(KEY), {"c"})) == {Trust.BROKEN}, "the key is here, so it is a forgery"


def test_a_key_is_long_and_its_name_tells_nothing_of_it() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Seals(KEY, [b"short"])
    assert KEY.hex()[:8] not in SEALING.seals.ids


# Upgrade and roll-back ----------------------------------------------------------------------------------


def test_a_journal_of_before_seals_is_read_as_it_was() -> None:
    """FULL is all that the version before writes."""
    found = read(FULL, SEALING, domain=DOMAIN)
    assert found.trust == {"vda": Trust.UNSEALED}
    assert found.journal == decode(sealed(found.journal))


def test_the_version_before_refuses_a_sealed_journal_and_says_what_to_do() -> None:
    """ADR 15: it knew no attribute of this name."""
    disk = journal_form.CHAIN.many["disk"]
    before = replace(disk, attributes=disk.attributes - {"seal"})
    root = etree.fromstring(sealed(decode(FULL)))
    for element in root.iter(etree.Element):
        element.tag = etree.QName(element).localname
    with pytest.raises(NotKnown, match=r"attribute seal in <disk>.*Upgrade the controller"):
        refuse_unknown(root, replace(journal_form.CHAIN, many={"disk": before}))
    refuse_unknown(root)


def test_the_seal_is_all_that_is_new() -> None:
    """Versions before ADR 15 drop it: what is left is what they have always read."""
    root = etree.fromstring(sealed(decode(FULL)))
    for disk in root:
        del disk.attrib["seal"]
    assert text_of(root) == encode(decode(FULL))


def test_without_keys_nothing_is_sealed() -> None:
    assert "seal" not in (encode(decode(FULL)) or "")
    assert read(FULL, None).trust == {}


def test_a_mixture_was_not_written_by_varve() -> None:
    """Each write seals all records, and an older version leaves none sealed."""
    journal = Journal("c", tuple(DiskJournal(t, images=frozenset({"k"})) for t in ("vda", "vdb")))
    root = etree.fromstring(sealed(journal))
    assert distrust("web-1", "c", read(text_of(root), SEALING, domain=DOMAIN).trust) == ""
    del root[1].attrib["seal"]
    assert "disk vdb" in distrust("web-1", "c", read(text_of(root), SEALING, domain=DOMAIN).trust)
    del root[0].attrib["seal"]
    assert distrust("web-1", "c", read(text_of(root), SEALING, domain=DOMAIN).trust) == ""


@pytest.mark.parametrize("seal", ["", ":", key_id(KEY), f"{key_id(KEY)}:", "x:" + "0" * 64, "é:é"])
def test_a_seal_that_is_none_seals_nothing(seal: str) -> None:
    root = etree.fromstring(sealed(decode(FULL)))
    root[0].set("seal", seal)
    assert trust(text_of(root)) <= {Trust.BROKEN, Trust.STRANGE}
