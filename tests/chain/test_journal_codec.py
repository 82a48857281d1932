"""The journal's XML: nothing lost, and nothing guessed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from controller.chain.journal import DiskJournal, Journal, OperationKind, Removal
from controller.chain.journal_codec import JournalError, decode, encode
from controller.chain.parse import JOURNAL_NAMESPACE, parse_domain
from tests.chain import builders as b
from tests.chain.strategies import journals


def through_libvirt(xml: str) -> str:
    """As libvirt gives it back, read out of the domain's document: every element in the namespace, by the
    prefix that virDomainSetMetadata was given (measured, libvirt 9.0)."""
    root = _prefixed(etree.fromstring(xml), None)
    metadata = etree.tostring(root, encoding="unicode", pretty_print=True)
    document = f"<domain><name>x</name><uuid>u</uuid><metadata>{metadata}</metadata></domain>"
    found = parse_domain(document).journal_xml
    assert found is not None
    assert found.startswith("<varve:chain")
    return found


def _prefixed(element: etree._Element, parent: etree._Element | None) -> etree._Element:
    tag = f"{{{JOURNAL_NAMESPACE}}}{etree.QName(element).localname}"
    attributes = {str(name): str(value) for name, value in element.attrib.items()}
    if parent is None:
        copy = etree.Element(tag, attributes, nsmap={"varve": JOURNAL_NAMESPACE})
    else:
        copy = etree.SubElement(parent, tag, attributes)
    copy.text = element.text
    for child in element:
        _prefixed(child, copy)
    return copy


@given(journals())
def test_a_journal_comes_back_as_it_was(journal: Journal) -> None:
    xml = encode(journal)
    if xml is None:
        assert journal.is_empty
        return
    assert decode(xml) == journal
    assert decode(through_libvirt(xml)) == journal


def test_nothing_to_record_is_no_element() -> None:
    assert encode(Journal()) is None
    assert encode(Journal(cluster="c-1")) is None
    assert decode(None) == Journal()


def test_white_space_in_a_message_survives() -> None:
    removal = Removal(b.layer("a"), left="first line\n\tsecond <line> & \"more\" 'text' ✂")
    journal = Journal("c", (DiskJournal("vda", removals=(removal,)),))
    assert decode(through_libvirt(encode(journal) or "")) == journal


def test_text_that_xml_cannot_hold_does_not_stop_the_record() -> None:
    """libvirt's error texts are quoted in the journal, and quote names in turn."""
    removal = Removal(b.layer("a"), left="cannot unlink '\x1b[31m\x00\ud800\ufffe'")
    read = decode(encode(Journal("c", (DiskJournal("vda", removals=(removal,)),))))
    assert read.disk("vda").removals[0].left == "cannot unlink '�[31m���'"


def test_a_journal_as_libvirt_gives_it_back() -> None:
    xml = f"""<varve:chain xmlns:varve='{JOURNAL_NAMESPACE}' version='1' cluster='c-1'>
  <disk target='vda'>
    <point overlay='file:/images/o' taken='{b.TAKEN}' consistency='CrashConsistent' capacity='1048576'>
      <owner namespace='shop' name='a' uid='uid-a'/>
    </point>
    <image key='file:/images/o'/>
    <operation kind='commit' begun='{b.TAKEN}' attempt='1' capacity='1048576'>
      <owner namespace='shop' name='a' uid='uid-a'/>
      <kept type='file' format='qcow2'><source file='/images/base'/></kept>
      <merged type='file' format='qcow2'><source file='/images/o'/></merged>
    </operation>
  </disk>
</varve:chain>"""
    begun = b.operation(OperationKind.COMMIT, "base", "o")
    assert decode(xml) == Journal("c-1", (b.record(b.point("o", b.owner("a")), operation=begun),))


def test_a_journal_whose_every_element_has_the_namespace() -> None:
    head = f"<chain xmlns='{JOURNAL_NAMESPACE}' version='1' cluster='c'>"
    xml = f"{head}<disk target='vda'><image key='k'/></disk></chain>"
    assert decode(xml) == Journal("c", (DiskJournal("vda", images=frozenset({"k"})),))


HEAD = "<chain version='1' cluster='c'>"
WORDS = "<point overlay='k' taken='t' consistency='c' capacity='one'/>"
BEGUN = f"{HEAD}<disk target='vda'><operation kind='pull' begun='t'>"
END = "</operation></disk></chain>"
HALF_OWNED = "<point overlay='k' taken='t' consistency='c' capacity='1'><owner name='n'/></point>"
KEPT = "<kept type='file' format='raw'><source file='/a'/></kept>"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "cannot be read"),
        ("no xml", "cannot be read"),
        ("<chain", "cannot be read"),
        ("<chain version='1'>\ud800</chain>", "cannot be read"),
        ("<chain/>", "version 1"),
        ("<chain version='2'/>", "upgrade the controller"),
        ("<chain version='01'/>", "upgrade the controller"),
        ("<points version='1'/>", "not written by"),
        (f"{HEAD}<disk/></chain>", "no attribute target"),
        (f"{HEAD}<disc target='vda'/></chain>", "<disc>"),
        (f"{HEAD}<disk target='vda'><pointe/></disk></chain>", "<pointe>"),
        (f"{HEAD}<disk target='vda'/><disk target='vda'/></chain>", "twice"),
        (f"{HEAD}<disk target='vda'><point/></disk></chain>", "no attribute overlay"),
        (f"{HEAD}<disk target='vda'>{WORDS}</disk></chain>", "cannot be read"),
        (f"{HEAD}<disk target='vda'>{HALF_OWNED}</disk></chain>", "namespace"),
        (f"{HEAD}<disk target='vda'><image/></disk></chain>", "no attribute key"),
        (
            f"{BEGUN.replace('pull', 'melt')}{KEPT}{END}",
            "melt",
        ),
        (f"{BEGUN}{END}", "no <kept>"),
        (
            f"{BEGUN}<kept type='file'/>{END}",
            "no <source>",
        ),
        (f"{HEAD}<disk target='vda'><removal/></disk></chain>", "no <image>"),
    ],
)
def test_what_is_no_journal_of_ours_is_refused(xml: str, message: str) -> None:
    with pytest.raises(JournalError, match=message):
        decode(xml)


# What a newer version may have written -------------------------------------------------------------------


FULL = f"""<chain version='1' cluster='c' xmlns='{JOURNAL_NAMESPACE}'><disk target='vda'>
<point overlay='o' taken='t' consistency='c' capacity='1' message='m' spoiled='yes'>
  <owner namespace='n' name='a' uid='u'/></point>
<image key='i'/><lent key='l'/>
<operation kind='pull' begun='t' attempt='2' run='r' capacity='1' consistency='c' message='m' lent='yes'
  prepared='yes' process='p' pivoting='yes'><owner namespace='n' name='a' uid='u'/>
  <kept type='file' format='raw'><source file='/k'><seclabel relabel='no'/></source></kept>
  <merged type='file' format='raw'><source file='/m'/></merged>
  <below type='file' format='raw'><source file='/b'/></below>
  <approved plan='p'><boundary key='b'/></approved></operation>
<removal left='why' since='t' run='r' attempted='yes'>
  <image type='file' format='raw'><source file='/r'/></image>
  <owner namespace='n' name='a' uid='u'/></removal>
<attempt uid='u' number='2'/>
<known whole='yes' at='t'><layer key='k'/></known>
<drift since='t'><added key='a'/><gone key='g'/></drift>
<approved plan='p'><boundary key='b'/></approved></disk></chain>"""
"""All that this version writes."""


def elements(xml: str) -> list[etree._Element]:
    """All elements but those within a source, which are libvirt's."""
    root = etree.fromstring(xml)
    inside = "ancestor-or-self::*[local-name()='source']"
    return [one for one in root.iter(etree.Element) if not one.xpath(inside)]


def canonical(xml: str | None) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every element with its attributes, in any order."""
    found = etree.fromstring(xml or "").iter(etree.Element)
    return sorted((str(one.tag), sorted((str(k), str(v)) for k, v in one.attrib.items())) for one in found)


def test_all_that_is_written_is_read() -> None:
    assert canonical(encode(decode(FULL))) == canonical(FULL)


@settings(max_examples=40)
@given(journals().filter(lambda journal: not journal.is_empty), st.data())
def test_what_is_not_known_is_refused_wherever_it_stands(journal: Journal, data: st.DataObject) -> None:
    """B22: it would be lost with the next write, and an older version may not do what it forbids."""
    xml = encode(journal) or ""
    places = elements(xml)
    place = data.draw(st.integers(0, len(places) - 1))
    kind = data.draw(st.sampled_from(["attribute", "child", "text", "namespace"]))
    element = elements(xml)[place]
    root = element.getroottree().getroot()
    if kind == "attribute":
        element.set(data.draw(st.sampled_from(["locked", "exported", "{urn:x}key"])), "yes")
    elif kind == "child":
        etree.SubElement(element, f"{{{JOURNAL_NAMESPACE}}}branch")
    elif kind == "text":
        element.text = "words"
    else:
        etree.SubElement(element, "{urn:x}owner", namespace="n", name="a", uid="u")
    with pytest.raises(JournalError, match="pgrade the controller"):
        decode(etree.tostring(root, encoding="unicode"))


@pytest.mark.parametrize("position", range(len(elements(FULL))))
def test_an_attribute_that_is_not_known_is_refused_in_every_element(position: int) -> None:
    """B22: the message names it, and says what to do."""
    element = elements(FULL)[position]
    element.set("locked", "until tomorrow")
    tag = etree.QName(element).localname
    with pytest.raises(JournalError, match=rf"attribute locked in <{tag}>.*newer one wrote it. Upgrade"):
        decode(etree.tostring(element.getroottree().getroot(), encoding="unicode"))


@pytest.mark.parametrize("flag", ["whole", "spoiled", "lent", "prepared", "pivoting", "attempted"])
def test_a_yes_or_no_that_is_neither_is_refused(flag: str) -> None:
    with pytest.raises(JournalError, match=rf"{flag}=later in .*Upgrade"):
        decode(FULL.replace(f"{flag}='yes'", f"{flag}='later'"))


@pytest.mark.parametrize("tag", ["operation", "known", "drift", "kept", "below"])
def test_what_may_be_there_once_is_refused_twice(tag: str) -> None:
    root = etree.fromstring(FULL)
    element = root.find(f".//{{{JOURNAL_NAMESPACE}}}{tag}")
    assert element is not None
    element.addnext(etree.fromstring(etree.tostring(element)))
    with pytest.raises(JournalError, match=f"<{tag}> twice"):
        decode(etree.tostring(root, encoding="unicode"))


def test_a_source_may_hold_whatever_libvirt_wrote() -> None:
    journal = decode(
        FULL.replace("<source file='/r'/>", "<source file='/r' odd='1'><new><x/></new></source>")
    )
    assert decode(encode(journal)) == journal
    assert "<new><x/></new>" in journal.disk("vda").removals[0].layer.source.xml


def test_an_external_entity_is_not_read() -> None:
    with pytest.raises(JournalError):
        decode(
            "<!DOCTYPE chain [<!ENTITY x SYSTEM 'file:///etc/hostname'>]><chain version='1' cluster='&x;'/>"
        )


def test_an_element_of_another_root_is_not_taken_for_ours() -> None:
    other = f"<o:c xmlns:o='{JOURNAL_NAMESPACE}x'/>"
    xml = f"<domain><name>x</name><uuid>u</uuid><metadata>{other}</metadata></domain>"
    assert parse_domain(xml).journal_xml is None


def test_claims() -> None:
    """What another cluster must respect: points, operations, removals under way. Not the orphans."""
    assert not Journal("c").claims
    assert not Journal("c", (b.record(images=["a"]),)).claims
    assert not Journal("c", (b.record(removals=(Removal(b.layer("a"), left="why"),)),)).claims
    assert Journal("c", (b.record(removals=(Removal(b.layer("a")),)),)).claims
    assert Journal("c", (b.record(b.point("o")),)).claims
    assert Journal("c", (b.record(operation=b.operation(OperationKind.COMMIT, "base", "o")),)).claims


def test_disks_are_kept_in_order_and_dropped_when_empty() -> None:
    journal = Journal("c")
    for target in ("vdc", "vda", "vdb"):
        journal = journal.with_disk(DiskJournal(target, images=frozenset({"k"})))
    assert [disk.target for disk in journal.disks] == ["vda", "vdb", "vdc"]
    assert [disk.target for disk in journal.with_disk(DiskJournal("vdb")).disks] == ["vda", "vdc"]
    assert journal.disk("vdz") == DiskJournal("vdz")
    assert journal.disk("vdz").is_empty
