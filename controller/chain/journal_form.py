"""The form of a journal: every element, attribute and yes-or-no that this version reads and writes.

What is not listed here was written by a newer version, and would be lost with the next write, so a journal
that has it is refused (ADR 15). Whoever adds something to the journal adds it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lxml import etree

YES_NO = frozenset({"yes", "no"})


class NotKnown(ValueError):
    """The journal holds something that this version does not know; for people."""


@dataclass(frozen=True)
class Form:
    """What one element may hold."""

    attributes: frozenset[str] = frozenset()
    """Attributes with any text or number."""
    flags: frozenset[str] = frozenset()
    """Attributes that are ``yes`` or ``no``."""
    one: Mapping[str, Form] = field(default_factory=dict)
    """Children that may be there once."""
    many: Mapping[str, Form] = field(default_factory=dict)
    verbatim: bool = False
    """Kept as it is, whatever is in it: a ``<source>`` as libvirt wrote it."""


def _form(
    attributes: str = "",
    flags: str = "",
    *,
    one: Mapping[str, Form] | None = None,
    many: Mapping[str, Form] | None = None,
) -> Form:
    return Form(frozenset(attributes.split()), frozenset(flags.split()), one=one or {}, many=many or {})


_SOURCE = Form(verbatim=True)
_KEY = _form("key")
_OWNER = _form("namespace name uid")
_LAYER = _form("type format", one={"source": _SOURCE})
_APPROVED = _form("plan", many={"boundary": _KEY})
_POINT = _form("overlay taken consistency message capacity", "spoiled", many={"owner": _OWNER})
_OPERATION = _form(
    "kind begun attempt run capacity consistency message process",
    "lent prepared pivoting",
    one={"kept": _LAYER, "below": _LAYER, "approved": _APPROVED},
    many={"owner": _OWNER, "merged": _LAYER},
)
_REMOVAL = _form("left since run", "attempted", one={"image": _LAYER}, many={"owner": _OWNER})
_DISK = _form(
    "target seal",
    one={
        "operation": _OPERATION,
        "known": _form("at", "whole", many={"layer": _KEY}),
        "drift": _form("since", many={"added": _KEY, "gone": _KEY}),
        "approved": _APPROVED,
    },
    many={
        "point": _POINT,
        "image": _KEY,
        "lent": _KEY,
        "removal": _REMOVAL,
        "attempt": _form("uid number"),
    },
)
CHAIN = _form("version cluster", many={"disk": _DISK})
"""The root, ``<chain>``."""


def refuse_unknown(element: etree._Element, form: Form = CHAIN) -> None:
    """Raise :class:`NotKnown` when an element (without namespaces) holds more than its form allows."""
    if form.verbatim:
        return
    for name, value in element.attrib.items():
        if name not in form.attributes | form.flags:
            raise _not_known(f"the attribute {name!s} in <{element.tag!s}>")
        if name in form.flags and value not in YES_NO:
            raise _not_known(f"{name!s}={value!s} in <{element.tag!s}>")
    seen: set[str] = set()
    for child in element:
        tag = str(child.tag)
        known = form.one.get(tag) or form.many.get(tag)
        if known is None:
            raise _not_known(f"<{tag}> in <{element.tag!s}>")
        if tag in form.one and tag in seen:
            raise _not_known(f"<{tag}> twice in <{element.tag!s}>")
        seen.add(tag)
        refuse_unknown(child, known)
    if any(text and text.strip() for text in (element.text, *(child.tail for child in element))):
        raise _not_known(f"text in <{element.tag!s}>")


def _not_known(what: str) -> NotKnown:
    return NotKnown(
        f"journal has {what}, which this version of varve does not know: a newer one wrote it. Upgrade the "
        f"controller; until then nothing is done to the disks of this domain"
    )
