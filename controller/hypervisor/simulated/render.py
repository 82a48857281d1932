"""Domain XML as libvirt writes it, live and inactive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lxml import etree

from controller.hypervisor.simulated.machine import DiskDefinition, Link, LiveDisk, Machine

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)


@dataclass(frozen=True)
class _DiskPage:
    """One disk as the document shows it; hashable, so that an unchanged domain is not rendered again."""

    definition: DiskDefinition
    indexes: tuple[int, ...] = ()
    mirror: tuple[str, str, Link, int | None] | None = None


@dataclass(frozen=True)
class _Page:
    name: str
    uuid: str
    id: int | None
    metadata: tuple[str, ...]
    disks: tuple[_DiskPage, ...]


class Pages:
    """The documents of one domain, rendered when they changed."""

    def __init__(self) -> None:
        self._last: dict[bool, tuple[_Page, str]] = {}

    def live(self, machine: Machine) -> str | None:
        """The XML of the running domain; None when it is not running."""
        process = machine.process
        if process is None:
            return None
        disks = []
        for disk in process.disks.values():
            indexes = tuple(node.index for node in disk.listed)
            mirror = _mirror_of(disk)
            disks.append(_DiskPage(disk.as_defined(), indexes, mirror))
        return self._render(True, machine, process.id, machine.live_metadata, disks)

    def inactive(self, machine: Machine) -> str | None:
        """The persistent XML; None for a transient domain."""
        if machine.definition is None:
            return None
        disks = [_DiskPage(definition) for definition in machine.definition.values()]
        return self._render(False, machine, None, machine.config_metadata, disks)

    def _render(
        self,
        live: bool,
        machine: Machine,
        number: int | None,
        metadata: Mapping[str, str],
        disks: Iterable[_DiskPage],
    ) -> str:
        page = _Page(machine.name, machine.uuid, number, tuple(metadata.values()), tuple(disks))
        last = self._last.get(live)
        if last is not None and last[0] == page:
            return last[1]
        xml = _domain(page)
        self._last[live] = (page, xml)
        return xml


def _mirror_of(disk: LiveDisk) -> tuple[str, str, Link, int | None] | None:
    """Job, ``ready``, image and index of the mirror that libvirt shows."""
    job, left = disk.job, disk.left_mirror
    if left is not None:
        kind, ready, image = "active-commit", left.ready, left.image
    elif job is not None and job.mirrored is not None and job.noted:
        kind, ready, image = str(job.kind), "yes" if job.ready else "", job.mirrored
    else:
        return None
    index = next((node.index for node in disk.listed if node.image is image), None)
    return kind, ready, Link(image.source, image.format), index


def _domain(page: _Page) -> str:
    root = etree.Element("domain", type="qemu")
    if page.id is not None:
        root.set("id", str(page.id))
    etree.SubElement(root, "name").text = page.name
    etree.SubElement(root, "uuid").text = page.uuid
    if page.metadata:
        metadata = etree.SubElement(root, "metadata")
        for text in page.metadata:
            metadata.append(etree.fromstring(text, _PARSER))
    etree.SubElement(root, "memory", unit="KiB").text = "16384"
    etree.SubElement(root, "vcpu", placement="static").text = "1"
    devices = etree.SubElement(root, "devices")
    for disk in page.disks:
        devices.append(_disk(disk))
    etree.SubElement(devices, "controller", type="pci", index="0", model="pci-root")
    return etree.tostring(root, encoding="unicode")


def _disk(page: _DiskPage) -> etree._Element:
    definition = page.definition
    kind = definition.chain[0].source.type if definition.chain else "file"
    element = etree.Element("disk", type=kind, device=definition.device)
    if definition.chain:
        active = definition.chain[0]
        etree.SubElement(element, "driver", name="qemu", type=active.format)
        element.append(_source(active, page.indexes[0] if page.indexes else None, live=bool(page.indexes)))
        _lower(element, page)
    else:
        etree.SubElement(element, "driver", name="qemu")
    if page.mirror is not None:
        element.append(_mirror(*page.mirror))
    etree.SubElement(element, "target", dev=definition.target, bus=definition.bus)
    if definition.readonly:
        etree.SubElement(element, "readonly")
    if definition.shareable:
        etree.SubElement(element, "shareable")
    return element


def _lower(parent: etree._Element, page: _DiskPage) -> None:
    """The nested ``<backingStore>`` elements, with the empty one only at a known end."""
    for position, link in enumerate(page.definition.chain[1:], 1):
        element = etree.SubElement(parent, "backingStore", type=link.source.type)
        if page.indexes:
            element.set("index", str(page.indexes[position]))
        etree.SubElement(element, "format", type=link.format)
        element.append(_source(link, None, live=bool(page.indexes)))
        parent = element
    if page.definition.terminated:
        etree.SubElement(parent, "backingStore")


def _mirror(job: str, ready: str, link: Link, index: int | None) -> etree._Element:
    element = etree.Element("mirror", type=link.source.type, job=job)
    if ready:
        element.set("ready", ready)
    etree.SubElement(element, "format", type=link.format)
    element.append(_source(link, index, live=True))
    return element


def _source(link: Link, index: int | None, *, live: bool) -> etree._Element:
    """The ``<source>``; in a live document libvirt writes out what it assumed for NBD (measured)."""
    source = link.source.element()
    if live and link.source.protocol == "nbd" and source.get("tls") is None:
        source.set("tls", "no")
    if index is not None:
        source.set("index", str(index))
    return source
