"""QEMU's own word on what it has open, over its monitor.

libvirt's view is wrong for the rest of a QEMU's life when libvirtd is killed between QEMU's answer to a
snapshot or a pivot and its own note of it (measured, libvirt 9.0). Nothing else of libvirt's tells that.
Asking marks the domain as tainted (``custom-monitor``), no more.

Every function blocks and runs on a thread of the connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import libvirt
import libvirt_qemu
from lxml import etree

from controller.chain.opened import OpenedImage
from controller.hypervisor import reading
from controller.hypervisor.driver import Opened
from controller.hypervisor.errors import OperationFailed

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)


def opened(connection: libvirt.virConnect, uuid: str) -> Opened:
    """What the QEMU of this domain has open. Raises Busy beside a pull, whose end the question must not
    meet."""
    domain = connection.lookupByUUIDString(uuid)
    reading.refuse_beside_a_pull(domain)
    targets = _targets(domain.XMLDesc(0))
    disks = {}
    for device in _ask(domain, "query-block"):
        target = next((targets[part] for part in _path(device) if part in targets), None)
        if target is not None:
            disks[target] = tuple(_chain(device.get("inserted", {}).get("image")))
    nodes = _ask(domain, "query-named-block-nodes", flat=True)
    return Opened(disks, frozenset(str(node["file"]) for node in nodes if node.get("file")))


def _path(device: Mapping[str, Any]) -> list[str]:
    """``/machine/peripheral/virtio-disk0/virtio-backend``: one part is the alias that libvirt gave the
    disk."""
    return str(device.get("qdev", "")).split("/")


def _targets(xml: str) -> dict[str, str]:
    """Targets by alias."""
    found = {}
    for disk in etree.fromstring(xml.encode(), _PARSER).iterfind("devices/disk"):
        alias, target = disk.find("alias"), disk.find("target")
        if alias is not None and target is not None:
            found[alias.get("name", "")] = target.get("dev", "")
    return found


def _chain(image: Mapping[str, Any] | None) -> Iterator[OpenedImage]:
    while image:
        details = image.get("format-specific", {}).get("data", {})
        yield OpenedImage(
            str(image["filename"]),
            str(image.get("format", "")),
            capacity=int(image.get("virtual-size", 0)),
            data_file=str(details.get("data-file", "")),
            flaws=tuple(_flaws(image, details)),
        )
        image = image.get("backing-image")


def _flaws(image: Mapping[str, Any], details: Mapping[str, Any]) -> Iterator[str]:
    if image.get("encrypted") or details.get("encrypt"):
        yield "it is encrypted"
    if image.get("snapshots"):
        yield "it holds internal snapshots"


def _ask(domain: libvirt.virDomain, execute: str, **arguments: object) -> Any:
    request = json.dumps({"execute": execute, "arguments": arguments})
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, request, 0))
    if "error" in answer:
        raise OperationFailed(f"QEMU does not answer {execute}: {answer['error']['desc']}")
    return answer["return"]
