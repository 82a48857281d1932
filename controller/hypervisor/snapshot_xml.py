"""``<domainsnapshot>`` documents for external, disk-only snapshots.

Every disk that is not to be frozen is listed with ``snapshot='no'``: a disk that is not listed at all is
snapshotted under a name of libvirt's own (measured, libvirt 9.0).
"""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from controller.chain.disk import DomainDefinition, Layer


def snapshot_xml(definition: DomainDefinition, overlays: Mapping[str, Layer]) -> str:
    """The document that puts ``overlays`` (by target) on top of those disks and leaves all others alone.

    ``<driver type>`` is always written: libvirt would otherwise choose. Raises ValueError when the domain
    has no disk of one of the targets.
    """
    missing = set(overlays) - {disk.target for disk in definition.disks}
    if missing:
        raise ValueError(f"domain {definition.name} has no disk {', '.join(sorted(missing))}")
    root = etree.Element("domainsnapshot")
    disks = etree.SubElement(root, "disks")
    for disk in definition.disks:
        element = etree.SubElement(disks, "disk", name=disk.target)
        overlay = overlays.get(disk.target)
        if overlay is None:
            element.set("snapshot", "no")
            continue
        element.set("snapshot", "external")
        element.set("type", overlay.source.type)
        etree.SubElement(element, "driver", type=overlay.format)
        element.append(overlay.source.element())
    return etree.tostring(root, encoding="unicode")
