"""The words in the header of a qcow2 image that name the image below it."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controller.chain.source import Host, Source
from controller.chain.source_uri import NotAnImage

_LONGEST = 1023
"""QEMU's limit of the name, bytes (qcow2.txt, backing_file_size)."""
_URIS = frozenset({"gluster", "nbd", "iscsi", "http", "https", "ftp", "ftps", "ssh", "nfs"})
"""What QEMU reads as a URI. ``rbd:`` is followed by a name; others it takes for something else."""

_SERVER = r"type|host|port|path"
_KEYS: dict[str, str] = {
    "file": r"filename",
    "host_device": r"filename",
    "nbd": rf"export|server\.({_SERVER})|path|tls-creds|tls-hostname",
    "iscsi": r"transport|portal|target|lun|user|password-secret|initiator-name",
    "rbd": r"pool|namespace|image|server\.\d+\.(host|port)|user|key-secret|auth-client-required\.\d+",
    "gluster": rf"volume|path|server\.\d+\.({_SERVER})",
}
"""By driver of QEMU: what a node may say besides, as a pattern of the whole key. All of it says which image
is meant or who asks for it. Everything else may mean another content (``snapshot`` and ``conf`` of rbd,
``offset`` and ``size`` of raw, ``backing``, ``data-file``, ``encrypt``) and is not understood."""
_RBD_OPTIONS = frozenset({"id", "mon_host", "auth_supported", "key"})


def meant(words: str, holder: Source, form: str) -> Source | None:
    """The image that a header of ``holder`` names by ``words``, as QEMU reads them; None when that is not one
    of the ways that are known here, or when they name more than an image. ``form`` is the format that the
    header says of it: words that say another are not understood."""
    if len(words) > _LONGEST:
        return None
    try:
        if words.startswith("json:"):
            node = json.loads(words.removeprefix("json:"), object_pairs_hook=_once)
            return _node(node, form) if isinstance(node, dict) else None
        if words.startswith("rbd:"):
            return _rbd(words.removeprefix("rbd:"))
        return _uri(words) if "://" in words else _path(words, holder)
    except (NotAnImage, ValueError, KeyError, TypeError):
        return None


def image_of(node: Mapping[str, Any]) -> Source | None:
    """The image that a node of a protocol has open, whatever else QEMU says of it: its options do not change
    where the bytes are. None when that is not known here. For what is to be trusted, see :func:`meant`."""
    try:
        flat = dict(_flat(node, strict=False))
        return _image(flat["driver"], flat)
    except (NotAnImage, ValueError, KeyError, TypeError):
        return None


def _uri(words: str) -> Source | None:
    """A URI of QEMU's own, with one server."""
    source = Source.from_uri(words)
    return source if source.protocol in _URIS and len(source.hosts) == 1 else None


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
    name, options = plain[0], _once(option.partition("=")[::2] for option in plain[1:])
    if not options.keys() <= _RBD_OPTIONS:
        raise NotAnImage("an option of rbd that may mean another image")
    hosts = []
    for address in options.get("mon_host", "").replace("\0", ":").replace("\\;", ";").split(";"):
        host, _, port = address.rpartition(":") if ":" in address else (address, "", "")
        if host:
            hosts.append(Host(name=host.strip("[]"), port=port))
    return Source.network("rbd", name, hosts)


def _node(node: Mapping[str, Any], form: str) -> Source | None:
    """A QEMU block node, nested or with dotted keys: one of the format, with one of a protocol below it.

    A protocol's node alone is none: QEMU opens it as the format that the header says, and finds no image in
    it (measured, 7.2).
    """
    whole = _once(_flat(node))
    outer = {key: value for key, value in whole.items() if not key.startswith("file.")}
    flat = {key.removeprefix("file."): value for key, value in whole.items() if key.startswith("file.")}
    if outer not in ({}, {"driver": form}):
        return None
    driver = flat.pop("driver")
    if any(re.fullmatch(_KEYS.get(driver, ""), key) is None for key in flat):
        return None
    return _image(driver, flat)


def _image(driver: str, flat: Mapping[str, str]) -> Source | None:
    """The image of a protocol's node, whose keys are all known."""
    if driver in {"file", "host_device"} and flat["filename"].startswith("/"):
        return Source.file(flat["filename"])
    if driver == "nbd":
        host = Host(transport="unix", socket=flat["path"]) if "path" in flat else _host(flat, "server.")
        return Source.network("nbd", flat.get("export", ""), [host])
    if driver == "iscsi" and flat.get("transport", "tcp") == "tcp":
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
    """One server. ``type`` may be left out only by rbd, which has no other than addresses."""
    kind = flat.get(f"{prefix}type", "inet")
    if kind == "unix":
        return Host(transport="unix", socket=flat[f"{prefix}path"])
    if kind not in {"inet", "tcp"} or f"{prefix}path" in flat:
        raise NotAnImage("a server of another kind")
    return Host(name=flat[f"{prefix}host"], port=flat.get(f"{prefix}port", ""))


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary of pairs whose keys are all different: of two, QEMU may take the other."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise NotAnImage("a key is there twice")
        found[key] = value
    return found


def _flat(node: Mapping[str, Any], prefix: str = "", *, strict: bool = True) -> Iterator[tuple[str, str]]:
    """Dotted keys. What is neither a text nor a whole number is refused, or left out."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.", strict=strict)
        elif isinstance(value, list):
            listed = {str(number): item for number, item in enumerate(value)}
            yield from _flat(listed, f"{prefix}{key}.", strict=strict)
        elif isinstance(value, str) or type(value) is int:
            yield f"{prefix}{key}", str(value)
        elif strict:
            raise NotAnImage("neither a text nor a whole number")
