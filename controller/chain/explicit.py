"""When the persistent definition must spell a chain out, and how it then reads.

libvirt finds the layers below a local image from the header. It does not look into images on the network (of
NBD, RBD and iSCSI none, of gluster with its storage driver only), and no header holds what is needed to log
in. Started from a definition that names only the top of such a chain, a machine has layers that libvirt
cannot merge, or does not start at all (measured, libvirt 9.0: RBD with cephx). libvirt itself writes the
whole chain into the definition with every take and merge; a definition becomes short when somebody defines
the domain anew from a file that knows nothing of the layers.

Only the chain of the running machine proves what the next start must use: QEMU has it open. What the journal
remembers does not, because a written chain wins over the headers, and somebody may have changed those while
the machine was off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lxml import etree

from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.naming import is_ours
from controller.chain.observation import DiskFacts
from controller.chain.parse import layers_of
from controller.chain.source import Source

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)


class NotThePrefix(ValueError):
    """The definition names other images than the running machine has: somebody wants that, or it is new."""


def is_short(facts: DiskFacts) -> bool:
    """True when the next start would know less of the chain than is known now."""
    live, inactive = facts.live, facts.inactive
    if live is None or inactive is None or not inactive.layers or inactive.end is ChainEnd.KNOWN:
        return False
    listed = len(inactive.layers)
    if inactive.keys != live.keys[:listed]:
        return False
    if listed < len(live.layers):
        return any(layer.source.type == "network" for layer in live.layers[listed - 1 :])
    last = live.layers[-1].source
    return live.end is ChainEnd.KNOWN and last.type == "network" and last.protocol != "gluster"


def is_started_short(facts: DiskFacts) -> bool:
    """True when the machine was started from a shorter definition than there is now: the next start mends
    it."""
    live, inactive = facts.live, facts.inactive
    if live is None or inactive is None or not live.layers or live.end is ChainEnd.KNOWN:
        return False
    return inactive.keys[: len(live.layers)] == live.keys and len(inactive.layers) > len(live.layers)


def goes_on(facts: DiskFacts) -> bool:
    """True when there surely are layers below the last one that libvirt shows: the definition names some, or
    the last one was an overlay from its first moment on."""
    chain = facts.chain
    if chain is None or not chain.layers or chain.end is ChainEnd.KNOWN:
        return False
    return is_started_short(facts) or is_ours(chain.layers[-1].source.leaf)


def made_true(
    xml: str, target: str, chain: Sequence[Layer], *, end: ChainEnd, leaving: Iterable[Layer]
) -> str:
    """The persistent definition ``xml`` with ``chain`` (top to base) as the chain of the disk; all else
    stays.

    It replaces a definition that names only layers of ``chain`` and of ``leaving``: what libvirt left there
    when it was ended before it wrote the new chain. Raises :class:`NotThePrefix` for any other.
    """
    root = etree.fromstring(xml.encode(), _PARSER)
    disk = _disk_of(root, target)
    allowed = {layer.source.footprint for layer in (*chain, *leaving)}
    for layer in layers_of(disk):
        if layer.source.footprint not in allowed:
            raise NotThePrefix(f"the definition of {target} names {layer.source.uri}, which somebody wants")
    _put(disk, chain[0], described="driver")
    element = disk
    for layer in chain[1:]:
        element = etree.SubElement(element, "backingStore", type=layer.source.type)
        _put(element, layer, described="format")
    if end is ChainEnd.KNOWN:
        etree.SubElement(element, "backingStore")
    return etree.tostring(root, encoding="unicode")


def _put(element: etree._Element, layer: Layer, *, described: str) -> None:
    """Let a ``<disk>`` or ``<backingStore>`` name this layer and nothing below it."""
    source = layer.source.element()
    for child in element.iterchildren("source", "backingStore", "mirror"):
        element.remove(child)
    for name in ("auth", "encryption"):  # where older documents have what the source has inside
        old = element.find(name)
        if old is not None and source.find(name) is not None:
            element.remove(old)
    element.set("type", layer.source.type)
    said = element.find(described)
    if said is None:
        said = etree.SubElement(element, described)
    said.set("type", layer.format)
    said.addnext(source)


def _disk_of(root: etree._Element, target: str) -> etree._Element:
    found = [
        disk
        for disk in root.iterfind("devices/disk")
        if (named := disk.find("target")) is not None and named.get("dev") == target
    ]
    if len(found) != 1:
        raise NotThePrefix(f"the definition has no disk {target}")
    return found[0]


def spelled_out(xml: str, running: Disk) -> str:
    """The persistent definition ``xml`` with the whole chain of ``running``; all else stays as it is.

    Raises :class:`NotThePrefix` when what it names is not the top of that chain.
    """
    root = etree.fromstring(xml.encode(), _PARSER)
    element = _disk_of(root, running.target)
    for position, layer in enumerate(running.layers):
        if position:
            element = _below(element, layer)
        if _source_key(element) != layer.key:
            raise NotThePrefix(f"the definition of {running.target} does not name {layer.source.uri}")
    end = element.find("backingStore")
    if end is not None and len(end):
        raise NotThePrefix(f"the definition of {running.target} has more layers than the running machine")
    if end is None and running.end is ChainEnd.KNOWN:
        element.append(etree.Element("backingStore"))
    return etree.tostring(root, encoding="unicode")


def _below(element: etree._Element, layer: Layer) -> etree._Element:
    """The element of the next layer: the one that is there, or a new one."""
    listed = element.find("backingStore")
    if listed is None:
        listed = etree.SubElement(element, "backingStore", type=layer.source.type)
        etree.SubElement(listed, "format", type=layer.format)
        listed.append(layer.source.element())
    return listed


def _source_key(element: etree._Element) -> str:
    source = element.find("source")
    return "" if source is None else Source.from_element(element.get("type", "file"), source).key
