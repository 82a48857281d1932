"""Where the bytes of one layer live: a libvirt ``<source>`` element and its identity.

The element is kept verbatim (minus libvirt's ``index``), so that whatever libvirt wrote there, hosts,
transport, TLS, a reference to a secret, goes back unchanged into every XML that varve builds from it.
Identity is separate from spelling: two elements name the same image when their :attr:`Source.key` is
equal. It is made of protocol, all hosts and the whole name, never of a piece of a path.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from lxml import etree

DEFAULT_PORTS = {"gluster": "24007", "nbd": "10809", "iscsi": "3260", "http": "80", "https": "443"}
"""Ports that libvirt assumes when ``<host>`` has none (libvirt documentation, domain XML, disk source)."""

_PATH_ATTRIBUTE = {"file": "file", "block": "dev", "dir": "dir"}
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True)


@dataclass(frozen=True, slots=True)
class Host:
    """One ``<host>`` of a network source."""

    name: str = ""
    port: str = ""
    transport: str = "tcp"
    socket: str = ""

    def address(self, protocol: str) -> str:
        """The host as ``name:port`` or ``unix:socket``, with the protocol's default port made explicit."""
        if self.transport == "unix":
            return f"unix:{self.socket}"
        name = f"[{self.name}]" if ":" in self.name else self.name.lower()
        port = self.port or DEFAULT_PORTS.get(protocol, "")
        suffix = f":{port}" if port else ""
        prefix = "" if self.transport == "tcp" else f"{self.transport}+"
        return f"{prefix}{name}{suffix}"


@dataclass(frozen=True)
class Source:
    """One image, as libvirt names it.

    ``type`` is the ``type`` attribute of the disk or backingStore (``file``, ``block``, ``network``,
    ``volume`` …), ``xml`` the serialised ``<source>`` element without ``index``.
    """

    type: str
    xml: str

    @classmethod
    def from_element(cls, kind: str, element: etree._Element) -> Source:
        """Keep a copy of ``element`` (a ``<source>``) without libvirt's per-process ``index``."""
        copy = etree.fromstring(etree.tostring(element, with_tail=False), _PARSER)
        _drop(copy, "index")
        return cls(kind, etree.tostring(copy, encoding="unicode"))

    @classmethod
    def file(cls, path: str) -> Source:
        """A local image file."""
        return cls.from_element("file", etree.Element("source", file=path))

    @classmethod
    def network(cls, protocol: str, name: str, hosts: Iterable[Host] = ()) -> Source:
        """A network image with plain hosts; for sources with more to say, parse or derive one."""
        element = etree.Element("source", protocol=protocol, name=name)
        for host in hosts:
            attributes = {"name": host.name, "port": host.port, "socket": host.socket}
            if host.transport != "tcp":
                attributes["transport"] = host.transport
            etree.SubElement(element, "host", {k: v for k, v in attributes.items() if v})
        return cls.from_element("network", element)

    def element(self) -> etree._Element:
        """A fresh ``<source>`` element, free to be put into another document."""
        return etree.fromstring(self.xml, _PARSER)

    @cached_property
    def _element(self) -> etree._Element:
        return self.element()

    @property
    def protocol(self) -> str:
        """``gluster``, ``nbd`` … for a network source, otherwise the empty string."""
        return self._element.get("protocol", "") if self.type == "network" else ""

    @property
    def path(self) -> str:
        """The local path of a file, block or dir source, otherwise the empty string."""
        attribute = _PATH_ATTRIBUTE.get(self.type)
        return self._element.get(attribute, "") if attribute else ""

    @property
    def name(self) -> str:
        """The image name of a network source exactly as written."""
        return self._element.get("name", "") if self.type == "network" else ""

    @cached_property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts of a network source in document order."""
        return tuple(
            Host(
                name=host.get("name", ""),
                port=host.get("port", ""),
                transport=host.get("transport", "tcp"),
                socket=host.get("socket", ""),
            )
            for host in self._element.findall("host")
        )

    @cached_property
    def key(self) -> str:
        """The identity of the image: equal keys mean the same bytes.

        Paths are normalised textually: a running machine's gluster layer reads ``gv0/./base.raw`` after a
        restart (measured, libvirt 9.0). Host order does not matter, an absent port is the default port.
        """
        if self.path:
            return f"{self.type}:{_normal(self.path)}"
        if self.type == "network":
            name = _normal(self.name) if self.protocol == "gluster" else self.name
            addresses = ",".join(sorted(host.address(self.protocol) for host in self.hosts))
            query = self._element.get("query", "")
            return f"{self.protocol}://{addresses}/{name}" + (f"?{query}" if query else "")
        if self.type == "volume":
            return f"volume:{self._element.get('pool', '')}/{self._element.get('volume', '')}"
        return f"{self.type}:{self.xml}"

    @cached_property
    def uri(self) -> str:
        """The image for people and for patterns: the path of a local image, otherwise a URI without secrets.

        Normalised like the identity, so that ``/images//golden/x`` does not slip past a pattern.
        """
        if self.path:
            return _normal(self.path)
        if self.type == "network":
            name = quote(_normal(self.name) if self.protocol == "gluster" else self.name, safe="/:.,=@+-_")
            unix = [host for host in self.hosts if host.transport == "unix"]
            if unix:
                return f"{self.protocol}+unix:///{name}?socket={quote(unix[0].socket)}"
            return f"{self.protocol}://{','.join(h.address(self.protocol) for h in self.hosts)}/{name}"
        return self.key

    @property
    def is_empty(self) -> bool:
        """True for a ``<source>`` that names nothing (an empty CD-ROM drive)."""
        return self.type in _PATH_ATTRIBUTE and not self.path

    def beside(self, leaf: str) -> Source | None:
        """The image called ``leaf`` in the same directory, volume or pool on the same server.

        Everything else of the element (hosts, transport, TLS, auth reference) is copied. None when there
        is no such place: an NBD export, a LUN or a block device has no directory to put a neighbour in.
        """
        if "/" in leaf or leaf in {"", ".", ".."}:
            raise ValueError(f"an image name must be one path component, got {leaf!r}")
        element = self.element()
        for child in ("slices", "encryption", "reservations", "snapshot"):
            for found in element.findall(child):
                element.remove(found)
        if self.type == "file":
            element.set("file", posixpath.join(posixpath.dirname(_normal(self.path)), leaf))
            _drop(element, "startupPolicy")
        elif self.protocol in {"gluster", "rbd"} and "/" in self.name:
            name = _normal(self.name) if self.protocol == "gluster" else self.name
            element.set("name", posixpath.join(posixpath.dirname(name), leaf))
            _drop(element, "query")
        else:
            return None
        return Source.from_element(self.type, element)

    @property
    def location(self) -> str:
        """The local path or the image name, spelled normally: ``gv0/x`` also for ``gv0/./x``."""
        return _normal(self.path or self.name)

    @property
    def leaf(self) -> str:
        """The last path component: the file name, or what stands in its place."""
        return posixpath.basename(_normal(self.path or self.name)) or self.key


def _drop(element: etree._Element, attribute: str) -> None:
    if attribute in element.attrib:
        del element.attrib[attribute]


def _normal(path: str) -> str:
    """``path`` without ``.``, doubled slashes and ``..``, purely textually (no symlink is followed)."""
    normal = posixpath.normpath(path) if path else path
    return "/" + normal.lstrip("/") if normal.startswith("//") else normal
