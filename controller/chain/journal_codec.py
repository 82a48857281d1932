"""The journal as XML inside ``<metadata>``, namespace :data:`controller.chain.parse.JOURNAL_NAMESPACE`.

Sources are embedded verbatim as libvirt wrote them, so that a layer can be found, put back into an XML or
removed years later without knowing its protocol. Credentials are not in them: libvirt's ``<auth>`` holds a
reference to a secret, never the secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lxml import etree

from controller.chain.disk import Layer
from controller.chain.journal import (
    Approved,
    Attempt,
    DiskJournal,
    Drift,
    Journal,
    Known,
    Operation,
    OperationKind,
    Owner,
    Point,
    Removal,
)
from controller.chain.journal_form import refuse_unknown
from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.seal import ATTRIBUTE, Sealing, Trust, Whose
from controller.chain.source import Source

VERSION = "1"

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped (its production Char)."""

_PARSER = etree.XMLParser(
    resolve_entities=False, no_network=True, remove_blank_text=True, remove_comments=True, huge_tree=True
)


class JournalError(ValueError):
    """The element is not a journal that this version understands. Nothing may be done to the domain."""


def encode(journal: Journal, sealing: Sealing | None = None, *, domain: str = "") -> str | None:
    """Serialise; None when there is nothing to record, so the element can be removed. With ``sealing`` each
    record is sealed for the domain of that UUID.

    Everything is in the journal's namespace, embedded sources too: virDomainSetMetadata puts elements
    without a namespace into it anyway (measured, libvirt 9.0).
    """
    if journal.is_empty:
        return None
    root = etree.Element("chain", version=VERSION, cluster=journal.cluster)
    for disk in journal.disks:
        element = etree.SubElement(root, "disk", target=disk.target)
        _encode_disk(element, disk)
        if sealing is not None:
            element.set(ATTRIBUTE, sealing.seals.seal(element, Whose(journal.cluster, domain)))
    whole = etree.Element(
        f"{{{JOURNAL_NAMESPACE}}}chain",
        _attributes(root),
        nsmap={None: JOURNAL_NAMESPACE},  # type: ignore[dict-item]  # the stubs do not know a default namespace
    )
    _copy_into_namespace(root, whole)
    return etree.tostring(whole, encoding="unicode")


def _copy_into_namespace(plain: etree._Element, into: etree._Element) -> None:
    for child in plain:
        copy = etree.SubElement(into, f"{{{JOURNAL_NAMESPACE}}}{child.tag}", _attributes(child))
        copy.text = child.text
        _copy_into_namespace(child, copy)


def _attributes(element: etree._Element) -> dict[str, str]:
    return {str(name): str(value) for name, value in element.attrib.items()}


def _without_namespace(root: etree._Element) -> None:
    for element in root.iter(etree.Element):
        name = etree.QName(element)
        if name.namespace not in {None, JOURNAL_NAMESPACE}:
            raise JournalError(
                f"journal has <{name.text}>, which is no element of varve: upgrade the controller"
            )
        element.tag = name.localname
    etree.cleanup_namespaces(root)


@dataclass(frozen=True)
class Read:
    """A journal, and what its seals say."""

    journal: Journal
    trust: Mapping[str, Trust]
    """By target, for every disk of the journal; empty when nobody asked for it."""


def decode(xml: str | None) -> Journal:
    """Parse what :func:`encode` wrote, as libvirt gives it back. No element is an empty journal.

    Raises :class:`JournalError` for anything else, a newer version included.
    """
    return read(xml, None).journal


def read(xml: str | None, sealing: Sealing | None, *, domain: str = "") -> Read:
    """As :func:`decode`, with what the seals say of each record; ``domain`` is the UUID whose journal it is.

    What is believed is what stands there, element by element, not what this version makes of it.
    """
    if xml is None:
        return Read(Journal(), {})
    try:
        root = etree.fromstring(xml.encode(), _PARSER)
        if root.getroottree().docinfo.internalDTD is not None:
            raise JournalError("journal has a document type definition, which varve never writes")
        _without_namespace(root)
        if root.tag != "chain" or root.get("version") != VERSION:
            raise JournalError(
                f"journal <{root.tag} version={root.get('version')!r}> was not written by "
                f"this version of varve (it reads version {VERSION}); upgrade the controller"
            )
        refuse_unknown(root)
        elements = root.findall("disk")
        disks = tuple(_decode_disk(disk) for disk in elements)
        if len({disk.target for disk in disks}) < len(disks):
            raise JournalError("journal names a disk twice")
        whose = Whose(root.get("cluster", ""), domain)
        trust = {} if sealing is None else {_required(d, "target"): sealing.trust(d, whose) for d in elements}
        return Read(Journal(cluster=whose.cluster, disks=disks), trust)
    except (etree.XMLSyntaxError, ValueError) as error:
        if isinstance(error, JournalError):
            raise
        raise JournalError(f"journal cannot be read: {error}") from error


def _encode_disk(element: etree._Element, disk: DiskJournal) -> None:
    for point in disk.points:
        _encode_point(etree.SubElement(element, "point"), point)
    for key in sorted(disk.images):
        etree.SubElement(element, "image", key=key)
    for key in sorted(disk.lent):
        etree.SubElement(element, "lent", key=key)
    if disk.operation:
        _encode_operation(etree.SubElement(element, "operation"), disk.operation)
    for removal in disk.removals:
        _encode_removal(etree.SubElement(element, "removal"), removal)
    for attempt in disk.attempts:
        etree.SubElement(element, "attempt", uid=attempt.uid, number=str(attempt.number))
    _encode_notes(element, disk)


def _encode_point(element: etree._Element, point: Point) -> None:
    element.set("overlay", point.overlay)
    element.set("taken", point.taken)
    element.set("consistency", point.consistency)
    element.set("capacity", str(point.capacity))
    if point.consistency_message:
        element.set("message", _text(point.consistency_message))
    if point.spoiled:
        element.set("spoiled", "yes")
    _encode_owners(element, point.owners)


def _encode_removal(element: etree._Element, removal: Removal) -> None:
    if removal.left:
        element.set("left", _text(removal.left))
    if removal.since:
        element.set("since", removal.since)
    if removal.run:
        element.set("run", removal.run)
    element.set("attempted", "yes" if removal.attempted else "no")
    _encode_layer(element, "image", removal.layer)
    _encode_owners(element, removal.owners)


def _encode_notes(element: etree._Element, disk: DiskJournal) -> None:
    if disk.known:
        child = etree.SubElement(element, "known", whole="yes" if disk.known.whole else "no")
        if disk.known.at:
            child.set("at", disk.known.at)
        _encode_keys(child, "layer", disk.known.keys)
    if disk.drift:
        child = etree.SubElement(element, "drift", since=disk.drift.since)
        _encode_keys(child, "added", disk.drift.added)
        _encode_keys(child, "gone", disk.drift.gone)
    if disk.approved:
        _encode_approved(element, disk.approved)


def _encode_approved(element: etree._Element, approved: Approved) -> None:
    child = etree.SubElement(element, "approved", plan=approved.plan)
    _encode_keys(child, "boundary", sorted(approved.boundaries))


def _encode_keys(element: etree._Element, tag: str, keys: Iterable[str]) -> None:
    for key in keys:
        etree.SubElement(element, tag, key=key)


def _encode_operation(element: etree._Element, operation: Operation) -> None:
    attributes = {
        "kind": operation.kind.value,
        "begun": operation.begun,
        "attempt": str(operation.attempt),
        "run": operation.run,
        "capacity": str(operation.capacity),
        "consistency": operation.consistency,
        "message": _text(operation.consistency_message),
        "lent": "yes" if operation.lent else "",
        "prepared": "yes" if operation.prepared else "",
        "process": operation.process,
        "pivoting": "yes" if operation.pivoting else "",
    }
    for name, value in attributes.items():
        if value:
            element.set(name, value)
    _encode_owners(element, operation.owners)
    _encode_layer(element, "kept", operation.kept)
    for layer in operation.merged:
        _encode_layer(element, "merged", layer)
    if operation.below:
        _encode_layer(element, "below", operation.below)
    if operation.approved:
        _encode_approved(element, operation.approved)


def _text(message: str) -> str:
    """A message for people, with what XML cannot hold replaced: libvirt's errors quote names as they are."""
    return _NOT_XML.sub("\ufffd", message)


def _encode_owners(element: etree._Element, owners: tuple[Owner, ...]) -> None:
    for owner in owners:
        etree.SubElement(element, "owner", namespace=owner.namespace, name=owner.name, uid=owner.uid)


def _encode_layer(parent: etree._Element, tag: str, layer: Layer) -> None:
    element = etree.SubElement(parent, tag, type=layer.source.type, format=layer.format)
    element.append(layer.source.element())


def _decode_disk(element: etree._Element) -> DiskJournal:
    operation = element.find("operation")
    return DiskJournal(
        target=_required(element, "target"),
        points=tuple(_decode_point(point) for point in element.iterfind("point")),
        images=frozenset(_required(image, "key") for image in element.iterfind("image")),
        lent=frozenset(_required(lent, "key") for lent in element.iterfind("lent")),
        operation=None if operation is None else _decode_operation(operation),
        removals=tuple(_decode_removal(removal) for removal in element.iterfind("removal")),
        attempts=tuple(
            Attempt(_required(one, "uid"), int(_required(one, "number")))
            for one in element.iterfind("attempt")
        ),
        known=_decode_known(element.find("known")),
        drift=_decode_drift(element.find("drift")),
        approved=_decode_approved(element.find("approved")),
    )


def _decode_removal(element: etree._Element) -> Removal:
    """Versions that did not note it put down merged images with the owners whose deletion waited for them,
    and the overlays of takes that they believed not to have happened without any."""
    owners, left = _decode_owners(element), element.get("left", "")
    return Removal(
        layer=_decode_layer(element, "image"),
        owners=owners,
        left=left,
        since=element.get("since", ""),
        attempted=element.get("attempted", "no" if owners or left else "yes") == "yes",
        run=element.get("run", ""),
    )


def _decode_known(element: etree._Element | None) -> Known | None:
    if element is None:
        return None
    whole = element.get("whole") == "yes"
    return Known(_keys(element, "layer"), whole=whole, at=element.get("at", ""))


def _decode_drift(element: etree._Element | None) -> Drift | None:
    if element is None:
        return None
    return Drift(_required(element, "since"), added=_keys(element, "added"), gone=_keys(element, "gone"))


def _decode_approved(element: etree._Element | None) -> Approved | None:
    if element is None:
        return None
    return Approved(_required(element, "plan"), frozenset(_keys(element, "boundary")))


def _keys(element: etree._Element, tag: str) -> tuple[str, ...]:
    return tuple(_required(child, "key") for child in element.iterfind(tag))


def _decode_point(element: etree._Element) -> Point:
    return Point(
        overlay=_required(element, "overlay"),
        owners=_decode_owners(element),
        taken=_required(element, "taken"),
        consistency=_required(element, "consistency"),
        consistency_message=element.get("message", ""),
        capacity=int(_required(element, "capacity")),
        spoiled=element.get("spoiled") == "yes",
    )


def _decode_operation(element: etree._Element) -> Operation:
    return Operation(
        kind=OperationKind(_required(element, "kind")),
        begun=_required(element, "begun"),
        attempt=int(element.get("attempt", "1")),
        run=element.get("run", ""),
        owners=_decode_owners(element),
        kept=_decode_layer(element, "kept"),
        merged=tuple(_layer(merged) for merged in element.iterfind("merged")),
        below=_decode_layer(element, "below") if element.find("below") is not None else None,
        capacity=int(element.get("capacity", "0")),
        consistency=element.get("consistency", ""),
        consistency_message=element.get("message", ""),
        lent=element.get("lent") == "yes",
        prepared=element.get("prepared") == "yes",
        process=element.get("process", ""),
        pivoting=element.get("pivoting") == "yes",
        approved=_decode_approved(element.find("approved")),
    )


def _decode_owners(element: etree._Element) -> tuple[Owner, ...]:
    return tuple(
        Owner(_required(owner, "namespace"), _required(owner, "name"), _required(owner, "uid"))
        for owner in element.iterfind("owner")
    )


def _decode_layer(parent: etree._Element, tag: str) -> Layer:
    element = parent.find(tag)
    if element is None:
        raise JournalError(f"<{parent.tag}> has no <{tag}>")
    return _layer(element)


def _required(element: etree._Element, attribute: str) -> str:
    value = element.get(attribute)
    if value is None:
        raise JournalError(f"<{element.tag}> has no attribute {attribute}")
    return value


def _layer(element: etree._Element) -> Layer:
    source = element.find("source")
    if source is None:
        raise JournalError(f"<{element.tag}> has no <source>")
    return Layer(
        source=Source.from_element(_required(element, "type"), source), format=element.get("format", "")
    )
