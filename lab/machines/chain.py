"""The backing chain of a disk as libvirt reports it."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from lab.errors import LabError
from lab.storage.image import ImageSource


@dataclass(frozen=True, slots=True)
class Layer:
    """One image of a chain. `index` is libvirt's (the N of `vda[N]`), None in a machine that is shut off."""

    index: int | None
    image_format: str
    source: ImageSource


def parse_chain(domain_xml: str, target: str) -> list[Layer]:
    """The layers of disk `target`, the active one first.

    Raises LabError if there is no such disk or no source.
    """
    root = etree.fromstring(domain_xml.encode())
    for disk in root.iterfind("devices/disk"):
        element = disk.find("target")
        if element is not None and element.get("dev") == target:
            return _layers(disk, target)
    raise LabError(f"the machine has no disk {target}")


def _layers(disk: etree._Element, target: str) -> list[Layer]:
    layers: list[Layer] = []
    node: etree._Element | None = disk
    while node is not None:
        source = node.find("source")
        if source is None:
            break  # an empty <backingStore/> ends the chain
        described = node.find("driver" if node is disk else "format")
        if described is None:
            raise LabError(f"a layer of {target} has no format: {etree.tostring(node, encoding='unicode')}")
        index = source.get("index") if node is disk else node.get("index")
        layers.append(
            Layer(int(index) if index else None, described.get("type") or "", ImageSource.from_xml(source))
        )
        node = node.find("backingStore")
    if not layers:
        raise LabError(f"disk {target} has no source")
    return layers
