"""Forged journals: what somebody writes into a machine's metadata who wants varve to destroy something.

Each is made from what he can see: the journal as it is, those of before, those of other machines. He does not
have the key. :func:`forged` draws one by a number; the same number gives the same forgery.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lxml import etree

from controller.chain.journal_codec import JournalError, decode, encode
from controller.chain.journal_form import CHAIN, Form
from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.seal import Sealing, Seals
from controller.chain.source import Source

OWN_KEY = Sealing(Seals(b"the forger's own key, 32 bytes or more"))


@dataclass(frozen=True)
class Known:
    """What the forger knows."""

    journals: Sequence[str]
    """Of this machine: now, and at earlier times; all sealed."""
    foreign: Sequence[str]
    """Sealed for other machines."""
    images: Sequence[Source]
    """Images that he wants gone or changed, and those of the machine."""
    owners: Sequence[tuple[str, str, str]]
    """Namespace, name and UID of objects, and of some that do not exist."""
    domain: str
    """UUID."""


def forged(known: Known, number: int) -> str:
    """One forgery."""
    dice = random.Random(number)  # noqa: S311  # no secret: the same forgery again
    root = _root(dice.choice([*known.journals, *known.journals, *known.foreign]))
    for _ in range(dice.choice([0, 1, 1, 2, 3, 6])):
        dice.choice(_CHANGES)(root, known, dice)
    match dice.randrange(8):
        case 0 | 1 | 2 | 3:  # as a version before seals would write it
            for disk in root:
                disk.attrib.pop("seal", None)
        case 4:  # sealed by a key of his own
            for disk in root:
                disk.attrib.pop("seal", None)
            root = _sealed_anew(root, known)
        case 5:  # a seal of somewhere else
            seals = [d.get("seal") for text in (*known.journals, *known.foreign) for d in _root(text)]
            for disk in root:
                disk.set("seal", dice.choice([seal for seal in seals if seal]))
        case _:
            pass
    return _written(root)


def _root(text: str) -> etree._Element:
    root = etree.fromstring(text)
    for element in root.iter(etree.Element):
        element.tag = etree.QName(element).localname
    etree.cleanup_namespaces(root)
    return root


def _written(root: etree._Element) -> str:
    whole = etree.Element(f"{{{JOURNAL_NAMESPACE}}}{root.tag}", nsmap={"varve": JOURNAL_NAMESPACE})
    _copy(root, whole)
    return etree.tostring(whole, encoding="unicode")


def _copy(element: etree._Element, into: etree._Element) -> None:
    for name, value in element.attrib.items():
        into.set(name, value)
    into.text = element.text
    for child in element:
        _copy(child, etree.SubElement(into, f"{{{JOURNAL_NAMESPACE}}}{child.tag}"))


def _sealed_anew(root: etree._Element, known: Known) -> etree._Element:

    try:
        text = encode(decode(_written(root)), OWN_KEY, domain=known.domain)
    except JournalError:
        return root
    return root if text is None else _root(text)


# Changes ------------------------------------------------------------------------------------------------


def _disk(root: etree._Element, dice: random.Random) -> etree._Element:
    disks = root.findall("disk")
    if disks and dice.random() < 0.95:
        return dice.choice(disks)
    return etree.SubElement(root, "disk", target=dice.choice(["vda", "vdb", "vdz"]))


def _layer(parent: etree._Element, tag: str, known: Known, dice: random.Random) -> None:
    source = dice.choice(known.images)
    layer = etree.SubElement(parent, tag, type=source.type, format=dice.choice(["qcow2", "raw"]))
    layer.append(source.element())


def _key(known: Known, dice: random.Random) -> str:
    return dice.choice(known.images).key


def _owner(parent: etree._Element, known: Known, dice: random.Random) -> None:
    namespace, name, uid = dice.choice(known.owners)
    etree.SubElement(parent, "owner", namespace=namespace, name=name, uid=uid)


def _owners(parent: etree._Element, known: Known, dice: random.Random) -> None:
    for _ in range(dice.choice([0, 1, 1, 2])):
        _owner(parent, known, dice)


def _add_removal(root: etree._Element, known: Known, dice: random.Random) -> None:
    removal = etree.SubElement(_disk(root, dice), "removal", since="2026-01-01T00:00:00Z")
    removal.set("attempted", dice.choice(["yes", "no", "no"]))
    if dice.random() < 0.3:
        removal.set("left", dice.choice(_LEFT))
    if dice.random() < 0.2:
        removal.set("run", dice.choice(["1", "2", "99"]))
    _layer(removal, "image", known, dice)
    _owners(removal, known, dice)


def _add_point(root: etree._Element, known: Known, dice: random.Random) -> None:
    point = etree.SubElement(_disk(root, dice), "point", overlay=_key(known, dice), taken="t")
    point.set("consistency", "CrashConsistent")
    point.set("capacity", "1")
    if dice.random() < 0.3:
        point.set("spoiled", "yes")
    _owners(point, known, dice)


def _set_operation(root: etree._Element, known: Known, dice: random.Random) -> None:
    disk = _disk(root, dice)
    for old in disk.findall("operation"):
        disk.remove(old)
    operation = etree.SubElement(disk, "operation", begun="2026-01-01T00:00:00Z")
    operation.set("kind", dice.choice(["take", "commit", "active-commit", "pull"]))
    for flag in ("lent", "prepared", "pivoting"):
        if dice.random() < 0.3:
            operation.set(flag, "yes")
    for name, values in (("run", ["1", "2", "99"]), ("process", ["p"]), ("capacity", ["67108864"])):
        if dice.random() < 0.5:
            operation.set(name, dice.choice(values))
    _owners(operation, known, dice)
    _layer(operation, "kept", known, dice)
    for _ in range(dice.choice([1, 1, 2])):
        _layer(operation, "merged", known, dice)
    if dice.random() < 0.3:
        _layer(operation, "below", known, dice)


def _disown(root: etree._Element, known: Known, dice: random.Random) -> None:
    owners = root.findall(".//owner")
    if owners:
        owner = dice.choice(owners)
        parent = owner.getparent()
        assert parent is not None
        parent.remove(owner)
        if dice.random() < 0.6:
            _owner(parent, known, dice)


def _add_key(root: etree._Element, known: Known, dice: random.Random) -> None:
    etree.SubElement(_disk(root, dice), dice.choice(["image", "image", "lent"]), key=_key(known, dice))


def _note(root: etree._Element, known: Known, dice: random.Random) -> None:
    disk = _disk(root, dice)
    tag, inner = dice.choice([("known", "layer"), ("drift", "gone"), ("approved", "boundary")])
    for old in disk.findall(tag):
        disk.remove(old)
    note = etree.SubElement(disk, tag)
    attributes = {"known": {"whole": "yes"}, "drift": {"since": "t"}, "approved": {"plan": "p"}}[tag]
    note.attrib.update(attributes)
    for _ in range(dice.randrange(4)):
        etree.SubElement(note, inner, key=_key(known, dice))


def _cut(root: etree._Element, known: Known, dice: random.Random) -> None:
    places = [one for one in root.iter(etree.Element) if one is not root]
    if places:
        victim = dice.choice(places)
        parent = victim.getparent()
        assert parent is not None
        parent.remove(victim)


def _twice(root: etree._Element, known: Known, dice: random.Random) -> None:
    victim = dice.choice(list(root.iter(etree.Element)))
    if victim is not root:
        victim.addnext(etree.fromstring(etree.tostring(victim, with_tail=False)))


def _set_attribute(root: etree._Element, known: Known, dice: random.Random) -> None:
    """Any attribute of the form, of any element, to a value that one of that name could have."""
    element = dice.choice(list(root.iter(etree.Element)))
    form = _form_of(element)
    if form is None or form.verbatim:
        names = [str(name) for name in element.attrib]
        if names:
            element.set(dice.choice(names), dice.choice(known.images).path or "x")
        return
    name = dice.choice(sorted(form.attributes | form.flags))
    if name in form.flags:
        element.set(name, dice.choice(["yes", "no"]))
        return
    uid = dice.choice(known.owners)[2]
    values = {
        "key": [_key(known, dice)],
        "overlay": [_key(known, dice)],
        "uid": [uid],
        "cluster": ["c", "", "another"],
        "target": ["vda", "vdb", "vdz"],
        "kind": ["take", "commit", "active-commit", "pull"],
        "number": ["1", "7"],
        "attempt": ["1", "7"],
        "capacity": ["1", "67108864"],
        "left": ["", *_LEFT],
        "run": ["", "1", "99"],
        "type": ["file", "block", "network"],
    }
    element.set(name, dice.choice(values.get(name, ["", "x"])))


def _form_of(element: etree._Element) -> Form | None:
    parent = element.getparent()
    if parent is None:
        return CHAIN
    outer = _form_of(parent)
    if outer is None or outer.verbatim:
        return None
    return outer.one.get(str(element.tag)) or outer.many.get(str(element.tag))


def _other_image(root: etree._Element, known: Known, dice: random.Random) -> None:
    sources = root.findall(".//source")
    if sources:
        old, new = dice.choice(sources), dice.choice(known.images)
        parent = old.getparent()
        assert parent is not None
        parent.set("type", new.type)
        parent.replace(old, new.element())


_LEFT = (
    "somebody else merged it away and may want it, so varve leaves it where it is",
    "varve did not make this image, so it does not remove it",
    "anything",
)
_CHANGES: tuple[Callable[[etree._Element, Known, random.Random], None], ...] = (
    _add_removal,
    _add_removal,
    _add_removal,
    _add_point,
    _add_point,
    _set_operation,
    _set_operation,
    _disown,
    _disown,
    _add_key,
    _note,
    _cut,
    _twice,
    _set_attribute,
    _set_attribute,
    _other_image,
)
