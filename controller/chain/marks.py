"""Snapshots and checkpoints that libvirt itself keeps of a domain, as far as merges must respect them.

varve's own points have no such metadata. Other tools make it: ``virsh snapshot-create``, backup software.
What is inside an image without libvirt's knowledge (``qemu-img snapshot``) cannot be seen through libvirt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lxml import etree

from controller.chain.parse import ParseError
from controller.chain.source import Source

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True, huge_tree=True)


class MarkKind(StrEnum):
    """What libvirt keeps."""

    SNAPSHOT = "snapshot"
    """An external one: the image that was active then is to stay as it is."""
    INTERNAL = "internal snapshot"
    """It lies inside the image that was active then, and goes with it."""
    CHECKPOINT = "checkpoint"
    """Bitmaps of what was written since, in the image that was active then and in all above it. libvirt
    carries them through takes and merges."""


@dataclass(frozen=True)
class Mark:
    """One snapshot or checkpoint."""

    kind: MarkKind
    name: str
    images: Mapping[str, frozenset[str]]
    """By target of the disks that it concerns: footprints of the images that it names (the one that was
    active then, and an external snapshot's overlay); empty when it does not say."""


def parse_mark(xml: str) -> Mark:
    """Read a ``<domainsnapshot>`` or ``<domaincheckpoint>`` as libvirt prints it, with the domain as it was.

    Raises :class:`ParseError`: what cannot be understood must not be taken for nothing.
    """
    try:
        root = etree.fromstring(xml.encode(), _PARSER)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise ParseError(f"snapshot XML is not well-formed: {error}") from error
    if root.tag not in ("domainsnapshot", "domaincheckpoint"):
        raise ParseError(f"expected a snapshot or a checkpoint, found <{root.tag}>")
    word = "snapshot" if root.tag == "domainsnapshot" else "checkpoint"
    listed = {disk.get("name", ""): disk for disk in root.iterfind("disks/disk")}
    images: dict[str, frozenset[str]] = {}
    ways: set[str] = set()
    for disk in root.iterfind("domain/devices/disk"):
        target = disk.find("target")
        name = "" if target is None else target.get("dev", "")
        entry = listed.pop(name, None)
        way = "no" if entry is None else entry.get(word, "no")
        if way != "no":
            ways.add(way)
            images[name] = _footprints(disk) | (frozenset() if entry is None else _footprints(entry))
    left = {name: entry.get(word, "no") for name, entry in listed.items()}
    images |= {name: frozenset[str]() for name, way in left.items() if way != "no"}
    ways |= {way for way in left.values() if way != "no"}
    return Mark(_kind(word, ways), root.findtext("name") or "", images)


def _kind(word: str, ways: set[str]) -> MarkKind:
    if word == "checkpoint":
        return MarkKind.CHECKPOINT
    return MarkKind.INTERNAL if "internal" in ways else MarkKind.SNAPSHOT


def _footprints(element: etree._Element) -> frozenset[str]:
    source = element.find("source")
    if source is None:
        return frozenset()
    found = Source.from_element(element.get("type", "file"), source)
    return frozenset() if found.is_empty else frozenset({found.footprint})
