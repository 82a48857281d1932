"""The libvirt XML of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lxml import etree

from lab.machines.disk import Disk
from lab.storage.image import ImageSource


def target_name(position: int) -> str:
    """vda for 0, vdb for 1 …"""
    return f"vd{chr(ord('a') + position)}"


def domain_xml(
    *,
    name: str,
    uuid: str,
    disks: Sequence[tuple[ImageSource, Disk]],
    cache: str,
    serial: Path,
    kvm: bool,
    memory_mib: int,
) -> str:
    """The smallest machine that boots from its first disk.

    `disks`: the source of each, and the rest; `cache`: that of those that do not say.
    """
    domain = etree.Element("domain", type="kvm" if kvm else "qemu")
    _text(domain, "name", name)
    _text(domain, "uuid", uuid)
    _text(domain, "memory", str(memory_mib), unit="MiB")
    _text(domain, "vcpu", "1")
    system = etree.SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="pc")
    devices = etree.SubElement(domain, "devices")
    _text(devices, "emulator", "/usr/bin/qemu-system-x86_64")
    for position, (source, disk) in enumerate(disks):
        _disk(devices, position, source, disk, disk.cache or cache)
    etree.SubElement(devices, "controller", type="usb", model="none")
    port = etree.SubElement(devices, "serial", type="file")
    etree.SubElement(port, "source", path=str(serial))
    etree.SubElement(devices, "memballoon", model="none")
    return etree.tostring(domain, encoding="unicode")


def _disk(devices: etree._Element, position: int, source: ImageSource, wanted: Disk, cache: str) -> None:
    disk = etree.SubElement(devices, "disk", type=source.disk_type, device="disk")
    etree.SubElement(disk, "driver", name="qemu", type=wanted.image_format, cache=cache)
    disk.append(source.to_xml())
    etree.SubElement(disk, "target", dev=target_name(position), bus="virtio")
    etree.SubElement(disk, "boot", order=str(position + 1))  # the BIOS numbers its drives in this order


def _text(parent: etree._Element, tag: str, text: str, **attributes: str) -> None:
    etree.SubElement(parent, tag, attributes).text = text
