"""Where an image is, in the words of libvirt's XML and of qemu-img."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree

from lab.errors import LabError
from lab.hosts.glfs_stub import glfs_stub
from lab.storage import blockdev
from lab.storage.access import SECRET_TYPES, Access

_TOOL_SECONDS = 120.0
_LUNS_CHANGED = "UNIT_ATTENTION"
_LOCAL = {"file": "file", "block": "dev"}  # protocol -> attribute of <source> that holds the path
_FIXED = {"nbd", "iscsi", "block"}  # made by their server or by the kernel, so only formatted


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A file or block device (`protocol` "file" or "block", `name` its path) or a network image (`name` as
    libvirt writes it), at `host`:`port` or at a unix `socket`; or a volume of a pool of libvirt's (`protocol`
    "volume", `name` its pool and its own name), which is only read from XML.

    `access` is no part of what it is: the same image with and without it is equal.
    """

    protocol: str
    name: str
    host: str = ""
    port: int = 0
    socket: str = ""
    access: Access | None = field(default=None, compare=False)

    @classmethod
    def file(cls, path: Path) -> ImageSource:
        """A file."""
        return cls("file", str(path))

    @property
    def uri(self) -> str:
        """What qemu-img takes. A path is absolute, so it cannot be mistaken for a protocol."""
        if self.protocol in _LOCAL:
            return self.name
        if self.protocol == "rbd":
            return f"rbd:{self.name}"
        if self.socket:
            return f"{self.protocol}+unix:///{self.name}?socket={self.socket}"
        return f"{self.protocol}://{self.host}:{self.port}/{self.name}"

    @property
    def disk_type(self) -> str:
        """The `type` attribute of libvirt's <disk> and <backingStore>."""
        return self.protocol if self.protocol in {*_LOCAL, "volume"} else "network"

    def to_xml(self) -> etree._Element:
        """libvirt's <source>."""
        if self.protocol in _LOCAL:
            return etree.Element("source", {_LOCAL[self.protocol]: self.name})
        if self.protocol == "volume":
            pool, _, volume = self.name.partition("/")
            return etree.Element("source", pool=pool, volume=volume)
        element = etree.Element("source", protocol=self.protocol, name=self.name)
        if self.socket:
            etree.SubElement(element, "host", transport="unix", socket=self.socket)
        else:
            etree.SubElement(element, "host", name=self.host, port=str(self.port))
        if self.access is not None:
            self._add_access(element, self.access)
        return element

    def _add_access(self, element: etree._Element, access: Access) -> None:
        if access.tls and self.protocol == "nbd":
            element.set("tls", "yes")
        if not access.verify:
            etree.SubElement(element, "ssl", verify="no")
        if access.user:
            auth = etree.SubElement(element, "auth", username=access.user)
            etree.SubElement(auth, "secret", type=SECRET_TYPES[self.protocol], usage=access.usage)

    @classmethod
    def from_xml(cls, element: etree._Element) -> ImageSource:
        """From libvirt's <source>, without its access: the XML does not say where the secrets are.

        Raises LabError for a kind of source that the lab does not make.
        """
        for protocol, attribute in _LOCAL.items():
            path = element.get(attribute)
            if path is not None:
                return cls(protocol, path)
        if element.get("volume"):
            return cls("volume", f"{element.get('pool')}/{element.get('volume')}")
        host = element.find("host")
        network = element.get("protocol")
        if host is None or network is None:
            raise LabError(f"not a source that the lab knows: {etree.tostring(element, encoding='unicode')}")
        name = element.get("name") or ""
        if host.get("transport") == "unix":
            return cls(network, name, socket=host.get("socket") or "")
        return cls(network, name, host.get("name") or "", int(host.get("port") or 0))

    def tool_arguments(self, image_format: str) -> list[str]:
        """What qemu-img and qemu-io take to open it, with its access if it has one."""
        if self.access is None:
            return ["-f", image_format, self.uri]
        node = {"driver": image_format, "file": blockdev.protocol_node(self)}
        return blockdev.arguments(node, blockdev.objects(self))

    def create(self, image_format: str, size: int, backing: tuple[ImageSource, str] | None = None) -> None:
        """Make an image of `size` bytes as the guest sees it, on top of `backing` (an image and its format).

        An export, a LUN or a device exists already and is only formatted.
        """
        if self.protocol in _FIXED and image_format == "raw":
            return
        if self.protocol in _FIXED and self.access is not None:
            self._format_in_place(image_format, size, backing)
        else:
            run_qemu_tool(*_creation(image_format, size, backing, self._creation_name()))

    def _creation_name(self) -> str:
        """qemu-img makes images by URI only, and RBD's may name the file that says how to get in."""
        if self.protocol == "rbd" and self.access is not None:
            return f"{self.uri}:id={self.access.user}:conf={self.access.configuration}"
        return self.uri

    def _format_in_place(self, image_format: str, size: int, backing: tuple[ImageSource, str] | None) -> None:
        """Copy an empty image there byte by byte."""
        with tempfile.TemporaryDirectory() as scratch:
            empty = str(Path(scratch) / "empty")
            run_qemu_tool(*_creation(image_format, size, backing, empty))
            ways = [word for text in blockdev.objects(self).values() for word in ("--object", text)]
            target = _dotted(blockdev.protocol_node(self))
            run_qemu_tool(
                "qemu-img", "convert", "-n", *ways, "-f", "raw", "--target-image-opts", empty, target
            )

    def write(self, image_format: str, offset: int, content: Path) -> None:
        """Write a file's bytes at `offset` (bytes) of the image as the guest sees it.

        No machine may use it.
        """
        command = f"write -q -s {content} {offset} {content.stat().st_size}"
        output = run_qemu_tool("qemu-io", "-c", command, *self.tool_arguments(image_format))
        if output.strip():  # qemu-io ends with 0 whatever happens to its commands
            raise LabError(f"qemu-io {command} on {self.uri}: {output.strip()}")


def _creation(image_format: str, size: int, backing: tuple[ImageSource, str] | None, name: str) -> list[str]:
    # -u: it is only named; qemu-img could not open one whose server asks who comes.
    below = ["-u", "-b", _named_below(backing[0]), "-F", backing[1]] if backing else []
    return ["qemu-img", "create", "-q", "-f", image_format, *below, name, str(size)]


def _named_below(source: ImageSource) -> str:
    """How a header names an image: by URI, unless a client would not get in by that and may be told how."""
    if source.access is None or source.access.verify:
        return source.uri
    return f"json:{json.dumps({'file': blockdev.protocol_node(source)})}"


def _dotted(node: Mapping[str, Any], prefix: str = "") -> str:
    """A node as --target-image-opts takes it: a.b=c,… (a comma within a value is doubled)."""
    words = []
    for key, value in node.items():
        if isinstance(value, Mapping):
            words.append(_dotted(value, f"{prefix}{key}."))
        else:
            words.append(f"{prefix}{key}={str(value).replace(',', ',,')}")
    return ",".join(words)


def run_qemu_tool(*command: str | bytes, timeout: float = _TOOL_SECONDS) -> str:
    """Run qemu-img or qemu-io with the gluster workaround; its output.

    Once more when an iSCSI target tells a new session that its LUNs have changed: other initiators ask again
    by themselves, QEMU's does not. Raises LabError when it fails or is too slow.
    """
    answer = _run_qemu_tool(command, timeout)
    if _LUNS_CHANGED in answer.stderr:
        answer = _run_qemu_tool(command, timeout)
    if answer.returncode != 0:
        raise LabError(f"{_shown(command)}: {answer.stderr.strip()}")
    return answer.stdout


def _shown(command: Sequence[str | bytes]) -> str:
    return " ".join(os.fsdecode(word) for word in command)


def _run_qemu_tool(command: Sequence[str | bytes], timeout: float) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_PRELOAD": str(glfs_stub())}
    try:
        return subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{_shown(command)}: no answer within {timeout:g} s") from None
