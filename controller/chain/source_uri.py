"""Images as people read and write them: a local path, ``volume:pool/name``, or a URI.

The URIs are those of QEMU and libvirt where these have one (``gluster://host:24007/gv0/image``,
``nbd+unix:///export?socket=/path``, ``iscsi://portal:3260/iqn…/lun``). Several hosts stand in a row, divided
by commas; of an RBD image a snapshot follows as ``@name``. No secret, user name, query or cookie is ever in
one: a query can be a signature that opens the image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from controller.chain.address import DEFAULT_PORTS, Host

_SAFE = "/:.,=+-_"
_ROOTED = {"http", "https", "ftp", "ftps", "tftp", "ssh", "nfs"}
"""Protocols whose image name is the path of a URI: with or without the first slash it is the same."""
_PROTOCOLS = {*DEFAULT_PORTS, "rbd", "nfs"}

_URI = re.compile(
    r"(?P<protocol>[a-z]+)(?:\+(?P<transport>[a-z]+))?://(?P<hosts>[^/?#]*)(?:/(?P<name>[^?#]*))?"
    r"(?:\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(?:(?P<transport>[a-z]+)\+)?(?P<name>\[[^\]]*\]|[^:\[\]@+]*)(?::(?P<port>[0-9]{1,5}))?")


class NotAnImage(ValueError):
    """The text names no image. The message says what to write and does not repeat the text."""


@dataclass(frozen=True)
class Parts:
    """What a URI of an image says."""

    protocol: str
    name: str
    hosts: tuple[Host, ...] = ()
    snapshot: str = ""


def image_name(protocol: str, name: str) -> str:
    """The name without the first slash where that means nothing."""
    return name.lstrip("/") if protocol in _ROOTED else name


def write(parts: Parts) -> str:
    """The URI of a network image."""
    name = quote(image_name(parts.protocol, parts.name), safe=_SAFE)
    snapshot = f"@{quote(parts.snapshot, safe='')}" if parts.snapshot else ""
    if [host.transport for host in parts.hosts] == ["unix"]:
        socket = quote(parts.hosts[0].socket, safe=_SAFE)
        return f"{parts.protocol}+unix:///{name}{snapshot}?socket={socket}"
    hosts = ",".join(host.in_uri(parts.protocol) for host in parts.hosts)
    return f"{parts.protocol}://{hosts}/{name}{snapshot}"


def write_volume(pool: str, volume: str) -> str:
    """A volume of a libvirt storage pool."""
    return f"volume:{quote(pool, safe='')}/{quote(volume, safe=_SAFE)}"


def read_volume(text: str) -> tuple[str, str]:
    """The pool and the volume of what :func:`write_volume` made. Raises NotAnImage."""
    pool, slash, volume = text.removeprefix("volume:").partition("/")
    if not (pool and slash and volume):
        raise NotAnImage("a volume is written volume:POOL/NAME")
    return unquote(pool), unquote(volume)


def read(text: str) -> Parts:
    """Take the URI of a network image apart. Raises NotAnImage for everything else."""
    found = _URI.fullmatch(text)
    if found is None or found["protocol"] not in _PROTOCOLS:
        raise NotAnImage("write an absolute path, volume:POOL/NAME or protocol://host:port/name")
    protocol, rest, query = found["protocol"], found["name"] or "", found["query"]
    name, _, snapshot = rest.partition("@") if protocol == "rbd" else (rest, "", "")
    if found["transport"] == "unix":
        hosts: tuple[Host, ...] = (_unix(found["hosts"], query or ""),)
    elif query is not None:
        raise NotAnImage("leave out the query: only ?socket= of a unix socket is part of an image's name")
    else:
        transport = found["transport"] or "tcp"
        hosts = tuple(_host(one, transport) for one in found["hosts"].split(",")) if found["hosts"] else ()
    rooted = "/" if protocol in {"ssh", "nfs"} else ""
    return Parts(protocol, rooted + unquote(name), hosts, unquote(snapshot))


def _unix(authority: str, query: str) -> Host:
    name, _, socket = query.partition("=")
    if authority or name != "socket" or "&" in socket or ";" in socket or not socket:
        raise NotAnImage("a unix socket is written protocol+unix:///name?socket=/path")
    return Host(transport="unix", socket=unquote(socket))


def _host(text: str, transport: str) -> Host:
    if text.startswith("unix+"):
        return Host(transport="unix", socket=unquote(text.removeprefix("unix+")))
    found = _HOST.fullmatch(text)
    if found is None:
        raise NotAnImage("a server is written host, host:port or [address]:port, without user or password")
    name = unquote(found["name"].strip("[]"))
    return Host(name=name, port=found["port"] or "", transport=found["transport"] or transport)
