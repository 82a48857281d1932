"""The bare libvirt calls, with nothing of the controller: what the demo and tests compare with."""

import libvirt
from lxml import etree

from lab.deadline import wait_until
from lab.machines.chain import Layer
from lab.machines.machine import Machine
from lab.storage.image import ImageSource

_TAKE = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA


def take(machine: Machine, disk: str, overlay: ImageSource) -> None:
    """Put a new overlay on one disk."""
    snapshot = etree.Element("domainsnapshot")
    disks = etree.SubElement(snapshot, "disks")
    for name in machine.disks:
        if name != disk:
            etree.SubElement(disks, "disk", name=name, snapshot="no")
            continue
        element = etree.SubElement(disks, "disk", name=name, snapshot="external", type=overlay.disk_type)
        etree.SubElement(element, "driver", type="qcow2")
        element.append(overlay.to_xml())
    machine.domain.snapshotCreateXML(etree.tostring(snapshot, encoding="unicode"), _TAKE)


def commit(machine: Machine, disk: str, *, top: Layer, base: Layer) -> None:
    """Commit frozen layers of the running machine down into `base`."""
    domain = machine.domain
    domain.blockCommit(disk, f"{disk}[{base.index}]", f"{disk}[{top.index}]", 0, 0)
    wait_until(lambda: not domain.blockJobInfo(disk), timeout=30, what="the commit")


def commit_active(machine: Machine, disk: str) -> None:
    """Commit the active layer into the one below it, and pivot."""
    domain = machine.domain
    flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
    domain.blockCommit(disk, None, None, 0, flags)
    wait_until(lambda: "ready='yes'" in domain.XMLDesc(), timeout=30, what="the commit")
    domain.blockJobAbort(disk, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def pull(machine: Machine, disk: str) -> None:
    """Pull everything into the active layer."""
    domain = machine.domain
    domain.blockRebase(disk, None, 0, 0)
    wait_until(lambda: not domain.blockJobInfo(disk), timeout=30, what="the pull")
