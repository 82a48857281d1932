"""Where an image is, in the words of libvirt's XML and of qemu-img."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from lab.errors import LabError
from lab.hosts.glfs_stub import glfs_stub

_TOOL_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A file (`protocol` "file", `name` its path) or a network image (`name` as libvirt writes it)."""

    protocol: str
    name: str
    host: str = ""
    port: int = 0

    @classmethod
    def file(cls, path: Path) -> ImageSource:
        """A file."""
        return cls("file", str(path))

    @property
    def uri(self) -> str:
        """What qemu-img takes. A path is absolute, so it cannot be mistaken for a protocol."""
        if self.protocol == "file":
            return self.name
        return f"{self.protocol}://{self.host}:{self.port}/{self.name}"

    @property
    def disk_type(self) -> str:
        """The `type` attribute of libvirt's <disk> and <backingStore>."""
        return "file" if self.protocol == "file" else "network"

    def to_xml(self) -> etree._Element:
        """libvirt's <source>."""
        if self.protocol == "file":
            return etree.Element("source", file=self.name)
        element = etree.Element("source", protocol=self.protocol, name=self.name)
        etree.SubElement(element, "host", name=self.host, port=str(self.port))
        return element

    @classmethod
    def from_xml(cls, element: etree._Element) -> ImageSource:
        """From libvirt's <source>. Raises LabError for a kind of source that the lab does not make."""
        path = element.get("file")
        if path is not None:
            return cls("file", path)
        host = element.find("host")
        protocol = element.get("protocol")
        if host is None or protocol is None:
            raise LabError(f"not a source that the lab knows: {etree.tostring(element, encoding='unicode')}")
        return cls(protocol, element.get("name") or "", host.get("name") or "", int(host.get("port") or 0))

    def create(self, image_format: str, size: int) -> None:
        """Make an image of `size` bytes as the guest sees it.

        An NBD export exists already and is only formatted.
        """
        if image_format != "raw" or self.protocol != "nbd":
            run_qemu_tool("qemu-img", "create", "-q", "-f", image_format, self.uri, str(size))

    def write(self, image_format: str, offset: int, content: Path) -> None:
        """Write a file's bytes at `offset` (bytes) of the image as the guest sees it.

        No machine may use it.
        """
        command = f"write -q -s {content} {offset} {content.stat().st_size}"
        output = run_qemu_tool("qemu-io", "-f", image_format, "-c", command, self.uri)
        if output.strip():  # qemu-io ends with 0 whatever happens to its commands
            raise LabError(f"qemu-io {command} on {self.uri}: {output.strip()}")


def run_qemu_tool(*command: str, timeout: float = _TOOL_SECONDS) -> str:
    """Run qemu-img or qemu-io with the gluster workaround; its output.

    Raises LabError when it fails or is too slow.
    """
    environment = {**os.environ, "LD_PRELOAD": str(glfs_stub())}
    try:
        answer = subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(command)}: no answer within {timeout:g} s") from None
    if answer.returncode != 0:
        raise LabError(f"{' '.join(command)}: {answer.stderr.strip()}")
    return answer.stdout
