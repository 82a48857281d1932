"""Domain XML to :class:`DomainDefinition`, for live and inactive documents and any disk type.

The parser reports what the document says and nothing more: a missing ``<backingStore>`` is an unknown
end, an empty one a known end. It never guesses an index and never follows a path.
"""

from __future__ import annotations

import copy

from lxml import etree

from controller.chain.disk import ChainEnd, Disk, DomainDefinition, Layer, Mirror
from controller.chain.source import Source

JOURNAL_NAMESPACE = "https://varve.dev/ns/chain/1"
"""Namespace of varve's element inside ``<metadata>`` (design, section 8)."""

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True, huge_tree=True)
_MAX_DEPTH = 1000
"""Far above libvirt's limit of 200 layers; a document nested deeper is refused instead of followed."""


class ParseError(ValueError):
    """The document is not a domain XML that varve can trust. Nothing may be concluded from it."""


def parse_domain(xml: str) -> DomainDefinition:
    """Parse one domain XML document.

    Raises :class:`ParseError` for anything that is not a well-formed domain with name and UUID.
    """
    try:
        root = etree.fromstring(xml.encode(), _PARSER)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise ParseError(f"domain XML is not well-formed: {error}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        # libvirt writes none, and text with an unexpanded entity in it would be read as a shorter text.
        raise ParseError("domain XML has a document type definition")
    if root.tag != "domain":
        raise ParseError(f"expected <domain>, found <{root.tag}>")
    uuid, name = root.findtext("uuid"), root.findtext("name")
    if not uuid or not name:
        raise ParseError("domain XML has no name or no UUID")
    kind = root.find("os/type")
    journal = root.find(f"metadata/{{{JOURNAL_NAMESPACE}}}*")
    return DomainDefinition(
        uuid=uuid.strip(),
        name=name,
        disks=tuple(_disk(element) for element in root.iterfind("devices/disk")),
        journal_xml=None if journal is None else etree.tostring(journal, encoding="unicode", with_tail=False),
        run=root.get("id", ""),
        machine="" if kind is None else kind.get("machine", ""),
    )


def _disk(element: etree._Element) -> Disk:
    target = element.find("target")
    if target is None or not target.get("dev"):
        raise ParseError("a <disk> has no <target dev=…>")
    layers, end = _layers(element)
    return Disk(
        target=target.get("dev", ""),
        device=element.get("device", "disk"),
        bus=target.get("bus", ""),
        layers=layers,
        end=end,
        readonly=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        transient=element.find("transient") is not None,
        mirror=_mirror(element),
    )


def layers_of(disk: etree._Element) -> tuple[Layer, ...]:
    """The layers that a ``<disk>`` element names, top to base."""
    return _layers(disk)[0]


def _layers(disk: etree._Element) -> tuple[tuple[Layer, ...], ChainEnd]:
    """Walk from the disk element down its nested ``<backingStore>`` elements."""
    layers: list[Layer] = []
    element: etree._Element | None = disk
    while element is not None:
        layer = _layer(element)
        if layer is None:
            # A drive without medium, or the empty <backingStore/> that ends a known chain.
            return tuple(layers), ChainEnd.KNOWN
        layers.append(layer)
        if len(layers) > _MAX_DEPTH:
            raise ParseError(f"a chain of more than {_MAX_DEPTH} layers")
        element = element.find("backingStore")
    # libvirt does not look below images on the network; but a raw image has no header to name one below it.
    return tuple(layers), ChainEnd.KNOWN if layers[-1].format == "raw" else ChainEnd.UNKNOWN


def _layer(element: etree._Element) -> Layer | None:
    """The layer that a ``<disk>`` or ``<backingStore>`` describes; None when it names no image."""
    source_element = element.find("source")
    if source_element is None:
        return None
    source = Source.from_element(element.get("type", "file"), _with_access(element, source_element))
    if source.is_empty:
        return None
    index = source_element.get("index") or element.get("index")
    described = element.find("driver") if element.tag == "disk" else element.find("format")
    return Layer(
        source=source,
        format=described.get("type", "") if described is not None else "",
        index=int(index) if index and index.isdigit() else None,
    )


def _with_access(element: etree._Element, source: etree._Element) -> etree._Element:
    """The ``<source>`` with the credentials that older documents have beside it.

    libvirt leaves ``<auth>`` and ``<encryption>`` of a disk where it found them (measured, libvirt 9.0), but
    knows neither there in a ``<backingStore>`` nor in a snapshot: whatever is built from the source needs
    them inside.
    """
    beside = [
        child
        for child in element.iterchildren("auth", "encryption")
        if element.tag == "disk" and source.find(child.tag) is None
    ]
    if not beside:
        return source
    whole = copy.deepcopy(source)
    whole.extend(copy.deepcopy(child) for child in beside)
    return whole


def _mirror(disk: etree._Element) -> Mirror | None:
    element = disk.find("mirror")
    if element is None:
        return None
    source_element = element.find("source")
    job, ready = element.get("job", "copy"), element.get("ready") == "yes"
    if source_element is None:
        return Mirror(job=job, ready=ready, source_key="")
    source = Source.from_element(element.get("type", "file"), source_element)
    switching = element.get("ready") == "pivot"
    return Mirror(job, ready, source.key, switching=switching, footprint=source.footprint)
