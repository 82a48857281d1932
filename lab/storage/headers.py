"""Opening an image together with those below it when servers ask for credentials.

No header names credentials, so a program that follows headers by itself stops at the first such server.
Here the headers are read one after the other, to tell QEMU what each server asks for in addition to what the
header says, which decides as for any other program.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from lab.errors import LabError
from lab.storage import blockdev
from lab.storage.access import Access
from lab.storage.image import ImageSource, run_qemu_tool

AccessOf = Callable[[ImageSource], Access | None]
_DEPTH = 200  # libvirt's own limit


def opening(source: ImageSource, image_format: str, access_of: AccessOf) -> list[str]:
    """Arguments for qemu-img that open the image and all below it, each with its credentials.

    Raises LabError for a header that cannot be read or names what the lab does not know.
    """
    images: list[tuple[ImageSource, str]] = []
    following: tuple[ImageSource, str] | None = (source, image_format)
    while following is not None:
        if len(images) == _DEPTH:
            raise LabError(f"{source.uri} has more than {_DEPTH} images below it")
        found = replace(following[0], access=access_of(following[0]))
        images.append((found, following[1]))
        following = _below(found, following[1])
    needed: dict[str, str] = {}
    below: blockdev.Node = {}
    for found, _ in reversed(images[1:]):
        needed |= blockdev.objects(found)
        # What the header above says, and this in addition.
        below = {"backing": {"file": blockdev.credentials(found), **below}}
    top = {"driver": image_format, "file": blockdev.protocol_node(images[0][0]), **below}
    return blockdev.arguments(top, blockdev.objects(images[0][0]) | needed)


def _below(source: ImageSource, image_format: str) -> tuple[ImageSource, str] | None:
    """What the image's header names, None at the end of the chain."""
    if image_format == "raw":
        return None
    opened = source.tool_arguments(image_format)
    header = json.loads(run_qemu_tool("qemu-img", "info", "-U", "--output=json", *opened))
    name = header.get("backing-filename")
    if name is None:
        return None
    backing_format = header.get("backing-filename-format")
    if backing_format is None:
        raise LabError(f"the header of {source.uri} does not say which format {name} has")
    return named_in_header(name, source), backing_format


def named_in_header(name: str, parent: ImageSource) -> ImageSource:
    """The image that a header names: a path, a URI, a `json:` description or a name beside its parent."""
    if name.startswith("json:"):
        described: dict[str, Any] = json.loads(name.removeprefix("json:"))
        return _described(described.get("file", described))
    if name.startswith("/"):
        return ImageSource(*(("block",) if name.startswith("/dev/") else ("file",)), name)
    if name.startswith("rbd:"):  # as qemu-img writes it: it says no server, so it is the parent's
        return replace(parent, name=name.removeprefix("rbd:").partition(":")[0])
    if "://" not in name:
        return replace(parent, name=posixpath.normpath(posixpath.join(posixpath.dirname(parent.name), name)))
    parts = urlsplit(name)
    protocol, _, transport = parts.scheme.partition("+")
    path = unquote(parts.path).removeprefix("/")
    if transport == "unix":
        return ImageSource(protocol, path, socket=parse_qs(parts.query)["socket"][0])
    return ImageSource(protocol, path, parts.hostname or "", parts.port or 0)


def _described(node: dict[str, Any]) -> ImageSource:
    """From QEMU's words for it, as libvirt writes them when there is no URI."""
    match node["driver"]:
        case "rbd":
            server = node["server"][0]
            return ImageSource("rbd", f"{node['pool']}/{node['image']}", server["host"], int(server["port"]))
        case "nbd" if node["server"]["type"] == "unix":
            return ImageSource("nbd", node["export"], socket=node["server"]["path"])
        case "nbd":
            server = node["server"]
            return ImageSource("nbd", node["export"], server["host"], int(server["port"]))
        case "iscsi":
            host, _, port = node["portal"].rpartition(":")
            return ImageSource("iscsi", f"{node['target']}/{node['lun']}", host, int(port))
        case "http" | "https":
            return named_in_header(node["url"], ImageSource("http", ""))
    raise LabError(f"a header names what the lab does not know: {json.dumps(node)}")
