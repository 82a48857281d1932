"""The words in the header of a qcow2 image that name the image below it."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from controller.chain.source import Host, Source
from controller.chain.source_uri import NotAnImage

_LONGEST = 1023
"""QEMU's limit of the name, bytes (qcow2.txt, backing_file_size)."""


def meant(words: str, holder: Source) -> Source | None:
    """The image that a header of ``holder`` names by ``words``, as QEMU reads them; None when that is not one
    of the ways that are known here."""
    if len(words) > _LONGEST:
        return None
    try:
        if words.startswith("json:"):
            node = json.loads(words.removeprefix("json:"))
            return _node(node) if isinstance(node, dict) else None
        if words.startswith("rbd:"):
            return _rbd(words.removeprefix("rbd:"))
        return Source.from_uri(words) if "://" in words else _path(words, holder)
    except (NotAnImage, ValueError, KeyError, TypeError):
        return None


def _path(words: str, holder: Source) -> Source | None:
    """A path, relative to the directory of ``holder`` where that has one."""
    if not words or ":" in words.partition("/")[0]:
        return None
    if holder.path:
        return Source.file(posixpath.join(posixpath.dirname(holder.path), words))
    if words.startswith("/"):
        return Source.file(words)
    name = posixpath.join(posixpath.dirname(holder.name), words)
    return Source.network("gluster", name, holder.hosts) if holder.protocol == "gluster" else None


def _rbd(words: str) -> Source:
    """``pool/image:option=value…``, with ``\\`` before what is not a separator."""
    plain = words.replace("\\:", "\0").split(":")
    name, options = plain[0], dict(option.partition("=")[::2] for option in plain[1:])
    hosts = []
    for address in options.get("mon_host", "").replace("\0", ":").replace("\\;", ";").split(";"):
        host, _, port = address.rpartition(":") if ":" in address else (address, "", "")
        if host:
            hosts.append(Host(name=host.strip("[]"), port=port))
    return Source.network("rbd", name, hosts)


def _node(node: Mapping[str, Any]) -> Source | None:
    """A QEMU block node, nested or with dotted keys."""
    flat = dict(_flat(node))
    prefix = "file." if "file.driver" in flat else ""
    flat = {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}
    driver = flat.get("driver", "")
    if driver in {"file", "host_device"}:
        return Source.file(flat["filename"])
    if driver == "nbd":
        socket = flat.get("server.path") or flat.get("path")
        host = Host(transport="unix", socket=socket) if socket else _host(flat, "server.")
        return Source.network("nbd", flat.get("export", ""), [host])
    if driver == "iscsi":
        name, _, port = flat["portal"].rpartition(":") if ":" in flat["portal"] else (flat["portal"], "", "")
        return Source.network("iscsi", f"{flat['target']}/{flat.get('lun', '0')}", [Host(name, port)])
    count = len({key.split(".")[1] for key in flat if key.startswith("server.")})
    hosts = [_host(flat, f"server.{number}.") for number in range(count)]
    if driver == "rbd":
        parts = (flat["pool"], flat.get("namespace", ""), flat["image"])
        return Source.network("rbd", "/".join(part for part in parts if part), hosts)
    if driver == "gluster":
        return Source.network("gluster", f"{flat['volume']}/{flat['path'].lstrip('/')}", hosts)
    return None


def _host(flat: Mapping[str, str], prefix: str) -> Host:
    return Host(name=flat.get(f"{prefix}host", ""), port=flat.get(f"{prefix}port", ""))


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield from _flat({str(number): item for number, item in enumerate(value)}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
