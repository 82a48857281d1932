"""Where the bytes of one layer live: a libvirt ``<source>`` element and its identity.

The element is kept verbatim (minus libvirt's ``index``), so that whatever libvirt wrote there, hosts,
transport, TLS, a reference to a secret, goes back unchanged into every XML that varve builds from it.

Three names are made of it (ADR 8 says why they differ):

* :attr:`Source.key`, the identity: protocol, all hosts and the whole name in their normal spelling, never a
  piece of a path, and nothing of how the image is reached (credentials, TLS, initiator, timeouts). Chains and
  the journal go by it, so two images never have one key.
* :attr:`Source.footprint`, for guards: one image never has two, whatever hosts it is reached by.
* :attr:`Source.uri`, for people.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from lxml import etree

from controller.chain import source_parts, source_uri
from controller.chain.address import DEFAULT_PORTS, Host

__all__ = ["DEFAULT_PORTS", "Host", "Source"]

_PATH_ATTRIBUTE = {"file": "file", "block": "dev", "dir": "dir"}
_SAFE = "/:.,=+-_"
_PARSER = etree.XMLParser(
    resolve_entities=False, no_network=True, remove_blank_text=True, remove_comments=True, remove_pis=True
)


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
        """Keep a copy of ``element`` (a ``<source>``) without libvirt's per-process ``index``, which a
        ``<dataStore>`` inside has as well."""
        copy = etree.fromstring(etree.tostring(element, with_tail=False), _PARSER)
        for one in copy.iter("source"):
            _drop(one, "index")
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

    @property
    def home(self) -> str:
        """Where the image lies, for people and to compare: its URI without the last name."""
        return self.uri.rpartition("/")[0]

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

    @property
    def snapshot(self) -> str:
        """The snapshot of an RBD image that is read instead of the image, otherwise the empty string."""
        found = self._element.find("snapshot")
        return "" if found is None else found.get("name", "")

    @cached_property
    def data_file(self) -> Source | None:
        """The image that holds the data of this one (``<dataStore>``, a qcow2 with an external data file)."""
        store = self._element.find("dataStore")
        found = None if store is None else store.find("source")
        if store is None or found is None:
            return None
        return Source.from_element(store.get("type", "file"), found)

    @cached_property
    def footprints(self) -> frozenset[str]:
        """The footprint of the image and that of its data file, which is written to with it."""
        data = self.data_file
        return frozenset({self.footprint}) if data is None else frozenset({self.footprint, data.footprint})

    @property
    def claimed_as(self) -> tuple[str, ...]:
        """Names by which somebody else may have a claim to the image: its own, and those of the directories
        that a local one lies in, because a machine may have one of them as a file system."""
        return (self.key, *sorted(self.footprints), *_directories(self.path))

    @property
    def not_understood(self) -> tuple[str, ...]:
        """Attributes and children that this version does not know (:mod:`controller.chain.source_parts`)."""
        return source_parts.not_understood(self._element)

    @cached_property
    def key(self) -> str:
        """The identity of the image: equal keys mean the same bytes.

        Names are normalised textually: a running machine's gluster layer reads ``gv0/./base.raw`` after a
        restart (measured, libvirt 9.0). Host order does not matter, an absent port is the default port.
        """
        return self._slice + self._whole_key

    @property
    def _whole_key(self) -> str:
        if self.path:
            return f"{self.type}:{_normal(self.path)}"
        if self.type == "network":
            hosts = ",".join(sorted({host.identity(self.protocol) for host in self.hosts}))
            config = self._element.find("config")
            if not hosts and config is not None:  # then the file says which cluster it is
                hosts = quote(config.get("file", ""), safe="")
            suffix = f"?{quote(self.query, safe=_SAFE + '&')}" if self.query else ""
            return f"{self.protocol}://{hosts}/{self._image}{suffix}"
        return self._local_key

    @property
    def _local_key(self) -> str:
        """What is neither a path nor on the network."""
        if self.type == "volume":
            return source_uri.write_volume(self._element.get("pool", ""), self._element.get("volume", ""))
        return f"{self.type}:{self.xml}"

    @property
    def is_part(self) -> bool:
        """True when the image is a part of a container (``<slices>``)."""
        return bool(self._slice)

    @property
    def query(self) -> str:
        """The query of an image on HTTP, otherwise the empty string."""
        return self._element.get("query", "")

    @property
    def _slice(self) -> str:
        """The part of the container that the image is (``<slices>``): another part is another image."""
        found = self._element.find("slices/slice[@type='storage']")
        return "" if found is None else f"slice:{found.get('offset', '')}+{found.get('size', '')}:"

    @property
    def _image(self) -> str:
        """Name and snapshot of a network image as they are in its identity."""
        name = quote(self._normal_name, safe=_SAFE)
        return f"{name}@{quote(self.snapshot, safe='')}" if self.snapshot else name

    @property
    def _normal_name(self) -> str:
        """One spelling of the name of a network image."""
        if self.protocol == "gluster":
            return self.location
        if self.protocol == "iscsi":
            # The names of targets do not know case (RFC 3722), and libvirt adds the LUN 0 (measured).
            target, _, lun = self.name.partition("/")
            return f"{target.lower()}/{lun or '0'}"
        return source_uri.image_name(self.protocol, self.name)

    @cached_property
    def footprint(self) -> str:
        """For guards: equal whenever two sources may share bytes, however they are spelled (ADR 8).

        A local path is the same place as a file and as a block device, and so are all parts of one container.
        On the network the servers do not count: a cluster is named by any of its hosts, a target by any of
        its portals, a server by any of its names and addresses. NBD alone is told apart by port or socket,
        because the names of its exports are often empty and mostly alike.
        """
        if self.path:
            return path_footprint(self.path)
        if self.type != "network":
            return self._local_key
        ports = ""
        if self.protocol == "nbd":
            ports = ",".join(sorted({h.identity("nbd").rpartition(":")[2] for h in self.hosts})) + "/"
        return f"{self.protocol}:{ports}{self._image}"

    @cached_property
    def uri(self) -> str:
        """The image for people and for patterns: the path of a local image, otherwise a URI without secrets.

        Normalised like the identity, so that ``/images//golden/x`` does not slip past a pattern. A part of a
        container is called as the container, so that it does not either.
        """
        if self.path:
            return _normal(self.path)
        if self.type == "network":
            parts = source_uri.Parts(self.protocol, self._normal_name, self.hosts, self.snapshot)
            return source_uri.write(parts)
        if self.type == "volume":
            return self._local_key
        # What libvirt may invent: nothing is known of it, so nothing of it is shown.
        return f"{self.type}:{hashlib.sha256(self.xml.encode()).hexdigest()[:12]}"

    @classmethod
    def from_uri(cls, text: str) -> Source:
        """The image that a person names as :attr:`uri` does. A local path is taken for a file; compare
        :attr:`footprint` with that of a block device. Raises :class:`source_uri.NotAnImage`."""
        try:
            return cls._from_uri(text)
        except source_uri.NotAnImage:
            raise
        except ValueError as error:  # lxml's, for a character that no XML can hold
            raise source_uri.NotAnImage("an image's name has no control characters") from error

    @classmethod
    def _from_uri(cls, text: str) -> Source:
        if text.startswith("/"):
            return cls.file(text)
        if text.startswith("volume:"):
            pool, volume = source_uri.read_volume(text)
            return cls.from_element("volume", etree.Element("source", pool=pool, volume=volume))
        parts = source_uri.read(text)
        source = cls.network(parts.protocol, parts.name, parts.hosts)
        if not parts.snapshot:
            return source
        element = source.element()
        etree.SubElement(element, "snapshot", name=parts.snapshot)
        return cls.from_element("network", element)

    def is_called(self, text: str) -> bool:
        """True when ``text``, which a person wrote, names this image, in whatever spelling."""
        try:
            return text == self.uri or Source.from_uri(text).uri == self.uri
        except source_uri.NotAnImage:
            return False

    @property
    def is_empty(self) -> bool:
        """True for a ``<source>`` that names nothing (an empty CD-ROM drive)."""
        return self.type in _PATH_ATTRIBUTE and not self.path

    def beside(self, leaf: str) -> Source | None:
        """The image called ``leaf`` in the same directory, volume or pool on the same server.

        What the server asks for (hosts, transport, TLS, auth reference) is copied, and nothing that is about
        this one image (:mod:`controller.chain.source_parts`). None when there is no such place: an NBD
        export, a LUN or a block device has no directory to put a neighbour in.
        """
        if "/" in leaf or leaf in {"", ".", ".."}:
            raise ValueError(f"an image name must be one path component, got {leaf!r}")
        element = self.element()
        source_parts.take_over(element)
        if self.type == "file":
            element.set("file", posixpath.join(posixpath.dirname(_normal(self.path)), leaf))
        elif self.protocol in {"gluster", "rbd"} and "/" in self.name:
            name = self.location if self.protocol == "gluster" else self.name
            element.set("name", posixpath.join(posixpath.dirname(name), leaf))
        else:
            return None
        return Source.from_element(self.type, element)

    @property
    def location(self) -> str:
        """The local path or the image name, spelled normally: ``gv0/x`` also for ``gv0/./x``."""
        if self.protocol != "gluster":
            return _normal(self.path or self.name)
        # In a volume, .. does not lead out of it.
        volume, _, path = self.name.lstrip("/").partition("/")
        return volume + _normal(f"/{path}") if path else volume

    @property
    def leaf(self) -> str:
        """The last path component: the file name, or what stands in its place."""
        name = self._element.get("volume", "") if self.type == "volume" else self.path or self.name
        return posixpath.basename(_normal(name)) or self.uri


def path_footprint(path: str) -> str:
    """The footprint of whatever lies at a local path."""
    return f"file:{_normal(path)}"


def _drop(element: etree._Element, attribute: str) -> None:
    if attribute in element.attrib:
        del element.attrib[attribute]


def _directories(path: str) -> Iterator[str]:
    """The keys of the directories above a path, the root left out."""
    parent = posixpath.dirname(_normal(path)) if path.startswith("/") else "/"
    while parent != "/":
        yield f"dir:{parent}"
        parent = posixpath.dirname(parent)


def _normal(path: str) -> str:
    """``path`` without ``.``, doubled slashes and ``..``, purely textually (no symlink is followed)."""
    normal = posixpath.normpath(path) if path else path
    return "/" + normal.lstrip("/") if normal.startswith("//") else normal
