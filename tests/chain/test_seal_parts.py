"""Each element and each attribute of a record is under its seal."""

from __future__ import annotations

import pytest
from lxml import etree

from controller.chain.journal_codec import JournalError, decode, encode, read
from controller.chain.seal import Sealing, Seals, Trust
from tests.chain.test_journal_codec import FULL

SEALING = Sealing(Seals(b"k" * 32))
DOMAIN = "0a4f4f0e-5f1c-4e0e-9a53-0c9fd1a3c001"
SEALED = encode(decode(FULL), SEALING, domain=DOMAIN) or ""


def disk() -> etree._Element:
    """The record, all of whose parts are there."""
    return etree.fromstring(SEALED)[0]


def trust(part: etree._Element, domain: str = DOMAIN) -> Trust | None:
    """What is made of the journal that the part is in; None when it cannot even be read."""
    text = etree.tostring(part.getroottree().getroot(), encoding="unicode")
    try:
        (found,) = read(text, SEALING, domain=domain).trust.values()
    except JournalError:
        return None
    return found


ELEMENTS = range(1, len(list(disk().iter(etree.Element))))
ATTRIBUTES = [
    (position, str(name))
    for position, element in enumerate(disk().iter(etree.Element))
    for name in element.attrib
    if name != "seal"
]


def test_as_it_was_written_it_is_sealed_and_for_this_machine_alone() -> None:
    assert trust(disk()) is Trust.SEALED
    assert trust(disk(), DOMAIN[:-1] + "2") is Trust.BROKEN


@pytest.mark.parametrize(("position", "name"), ATTRIBUTES)
def test_an_attribute(position: int, name: str) -> None:
    for value in ("other", "yes", "no", "1", "", None):
        root = disk()
        element = list(root.iter(etree.Element))[position]
        if element.get(name) == value:
            continue
        if value is None:
            del element.attrib[name]
        else:
            element.set(name, value)
        assert trust(root) in {Trust.BROKEN, None}, value


@pytest.mark.parametrize("position", ELEMENTS)
def test_an_element(position: int) -> None:
    for change in ("cut", "twice", "moved"):
        root = disk()
        element = list(root.iter(etree.Element))[position]
        parent = element.getparent()
        assert parent is not None
        if change == "twice":
            element.addnext(etree.fromstring(etree.tostring(element, with_tail=False)))
        else:
            parent.remove(element)
        if change == "moved":
            if parent is root and position == len(ELEMENTS):
                continue  # it is the last one
            root.append(element)
        if change != "moved" or list(root.iter(etree.Element))[position] is not element:
            assert trust(root) in {Trust.BROKEN, None}, change
