"""Everything that a definition names on its host or on the network, not only the images of its disks.

A machine may have a file as NVRAM, kernel, log or memory, a directory as a file system, a LUN as a host
device, and in ``<qemu:commandline>`` anything. What is named is found by how it looks, wherever it stands:
so nothing is forgotten that a later libvirt adds. A host device that is named by its address (PCI, USB, SCSI)
cannot be told from a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from controller.chain.parse import JOURNAL_NAMESPACE, ParseError
from controller.chain.source import Source, path_footprint

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True, huge_tree=True)
_PATHS = re.compile(r"""(?<![^\s=,;:"'\[{(])/[^\s,;"'\]})]*""")
"""Absolute paths within a text: as in ``file=/a/b,if=virtio`` and ``{"filename": "/a/b"}``."""
_LONGEST = 65536
"""Characters of one text that are looked into; no argument of QEMU is longer."""


def mentions(xml: str) -> frozenset[str]:
    """Footprints of all that a domain XML names, varve's own record left out. A directory is also there by
    its key (``dir:PATH``): what lies in it is the machine's as well. Raises :class:`ParseError`.
    """
    try:
        root = etree.fromstring(xml.encode(), _PARSER)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise ParseError(f"domain XML is not well-formed: {error}") from error
    for journal in list(root.iterfind(f"metadata/{{{JOURNAL_NAMESPACE}}}*")):
        journal.getparent().remove(journal)
    return frozenset(name for element in root.iter(etree.Element) for name in _named(element))


def _named(element: etree._Element) -> Iterator[str]:
    if element.tag == "source":
        yield from _sources(element)
    texts = [element.text or "", *(str(value) for value in element.attrib.values())]
    for text in texts:
        if "/" in text:
            for path in _paths(text.strip()[:_LONGEST]):
                yield path_footprint(path)


def _sources(element: etree._Element) -> Iterator[str]:
    """The image of a ``<source>`` that is not a path: of a disk, or of a host device."""
    if element.get("protocol"):
        yield Source.from_element("network", element).footprint
    elif element.get("pool") and element.get("volume"):
        yield Source.from_element("volume", element).footprint
    directory = element.get("dir", "")
    if directory.startswith("/"):
        yield Source.from_element("dir", element).key


def _paths(text: str) -> Iterator[str]:
    if text.startswith("/"):
        yield text
    for found in _PATHS.finditer(text):
        yield found.group()
