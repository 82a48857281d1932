"""Places that libvirt's storage API can list: where images lie, as the definition of a transient pool."""

from __future__ import annotations

import posixpath
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from lxml import etree

from controller.chain.source import Host, Source
from controller.chain.system_places import holds_devices
from controller.hypervisor.errors import NotListable, NotRemovable

_ELSEWHERE = re.compile(r"[a-z+]+://")
"""A URI, which is of an image on the network; that of a file begins with ``file:`` and is a path to QEMU."""
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)


class Place(ABC):
    """Somewhere that images lie beside each other."""

    package: str
    """The Debian package of libvirt's driver for such places."""
    local = False
    """A directory of the hypervisor: images have paths, and libvirt has one pool for it at most."""
    shows_headers = True
    """Whether libvirt reads the headers of the images there and says what they name."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Names the place, for locks and messages."""

    @abstractmethod
    def name_of(self, leaf: str) -> str:
        """The image ``leaf`` of this place as a ``<source>`` names it."""

    @abstractmethod
    def pool_xml(self, name: str, *, respelled: bool = False) -> str:
        """The definition of a pool on this place; ``respelled`` in words that libvirt, which compares words,
        takes for another place (measured: directories on 9.0 and 11.3, gluster on 9.0), so that it can be
        beside somebody else's pool. Ceph's pools may be any number."""

    def is_called(self, backing: str, source: Source) -> bool:
        """Whether libvirt's ``backingStore/path`` of an image here means ``source``."""
        wanted = posixpath.normpath(source.name.lstrip("/"))
        plain = backing.split("://", 1)[-1].split("?", 1)[0]
        return (
            posixpath.normpath(plain).endswith("/" + wanted)
            or posixpath.basename(plain) == plain == source.leaf
        )


@dataclass(frozen=True)
class Directory(Place):
    """A directory of the hypervisor."""

    path: str
    package = "libvirt-daemon-driver-storage"
    local = True

    @property
    def key(self) -> str:
        return f"directory {self.path}"

    def name_of(self, leaf: str) -> str:
        return posixpath.join(self.path, leaf)

    def pool_xml(self, name: str, *, respelled: bool = False) -> str:
        pool = _pool("dir", name)
        path = posixpath.join(self.path, ".") if respelled else self.path
        etree.SubElement(etree.SubElement(pool, "target"), "path").text = path
        return etree.tostring(pool, encoding="unicode")

    def is_called(self, backing: str, source: Source) -> bool:
        wanted, plain = posixpath.normpath(source.path), backing.removeprefix("file:")
        if posixpath.normpath(posixpath.join(self.path, plain)) == wanted:
            return True
        if ":" not in plain.partition("/")[0] or _ELSEWHERE.match(plain):
            return False
        # In other words of QEMU (json:, or of a driver): it may be, if they have the name.
        return re.search(rf'(?<![^/"]){re.escape(source.leaf)}(?![^"?,&])', plain) is not None


@dataclass(frozen=True)
class GlusterDirectory(Place):
    """A directory of a gluster volume; ``path`` begins with a slash."""

    path: str
    volume: str
    hosts: tuple[Host, ...]
    package = "libvirt-daemon-driver-storage-gluster"

    @property
    def key(self) -> str:
        return f"directory {self.path} of gluster volume {self.volume} on {self.hosts[0].address('gluster')}"

    def name_of(self, leaf: str) -> str:
        return self.volume + posixpath.join(self.path, leaf)

    def pool_xml(self, name: str, *, respelled: bool = False) -> str:
        pool = _pool("gluster", name)
        source = etree.SubElement(pool, "source")
        _add_hosts(source, self.hosts[:1])
        etree.SubElement(source, "dir", path=posixpath.join(self.path, ".") if respelled else self.path)
        etree.SubElement(source, "name").text = self.volume
        return etree.tostring(pool, encoding="unicode")


@dataclass(frozen=True)
class CephPool(Place):
    """A pool of a Ceph cluster. libvirt lists its images and does not look into them: each is raw to it."""

    name: str
    hosts: tuple[Host, ...]
    auth: str = ""
    """The disk's ``<auth>``: a user and a reference to a secret."""
    package = "libvirt-daemon-driver-storage-rbd"
    shows_headers = False

    @property
    def key(self) -> str:
        return f"Ceph pool {self.name} on {','.join(host.address('rbd') for host in self.hosts)}"

    def name_of(self, leaf: str) -> str:
        return f"{self.name}/{leaf}"

    def pool_xml(self, name: str, *, respelled: bool = False) -> str:
        pool = _pool("rbd", name)
        source = etree.SubElement(pool, "source")
        etree.SubElement(source, "name").text = self.name
        _add_hosts(source, self.hosts)
        if self.auth:
            source.append(pool_auth(etree.fromstring(self.auth, _PARSER)))
        # Or libvirt adds up what each image of the pool holds, object by object; nobody here asks for that.
        etree.SubElement(etree.SubElement(pool, "refresh"), "volume", allocation="capacity")
        return etree.tostring(pool, encoding="unicode")


def pool_auth(auth: etree._Element) -> etree._Element:
    """A disk's ``<auth>`` as a pool has it: the secret's type moves up (measured: refused otherwise)."""
    secret = auth.find("secret")
    found = etree.Element("auth", type="ceph", username=auth.get("username", ""))
    if secret is not None:
        kept = {name: secret.get(name, "") for name in ("uuid", "usage") if secret.get(name)}
        etree.SubElement(found, "secret", kept)
    return found


def disk_auth(auth: etree._Element, secret_type: str) -> etree._Element:
    """A pool's ``<auth>`` as a disk has it."""
    found = etree.Element("auth", username=auth.get("username", ""))
    for secret in auth.findall("secret")[:1]:
        kept = {name: secret.get(name, "") for name in ("uuid", "usage") if secret.get(name)}
        etree.SubElement(found, "secret", {"type": secret_type, **kept})
    return found


def place_of(source: Source) -> Place | None:
    """Where ``source`` lies, or None when libvirt cannot list such a place, or must not."""
    if source.type == "file" and source.path.startswith("/"):
        if holds_devices(source.path):
            return None
        return Directory(posixpath.dirname(posixpath.normpath(source.path)))
    if source.protocol == "gluster" and "/" in source.name and source.hosts:
        if source.hosts[0].transport != "tcp":
            return None  # libvirt's gluster pools have no other transport
        volume, _, path = posixpath.normpath(source.name.lstrip("/")).partition("/")
        return GlusterDirectory("/" + posixpath.dirname(path), volume, source.hosts)
    if source.protocol == "rbd" and source.name.count("/") == 1 and source.hosts:
        auth = source.element().find("auth")
        text = "" if auth is None else etree.tostring(auth, encoding="unicode", with_tail=False)
        return CephPool(source.name.partition("/")[0], source.hosts, text)
    return None


def never_listed(path: str) -> str:
    """Why no pool is made where ``path`` lies, for people."""
    return (
        f"{holds_devices(path)} may hold device nodes, and libvirtd would open each of them to list what is "
        f"there (which is enough to arm a watchdog), so it is never listed"
    )


def removable_from(source: Source) -> Place:
    """Like :func:`place_of`. Raises NotRemovable with what to do instead."""
    place = place_of(source)
    if place is not None:
        return place
    if source.type == "file" and holds_devices(source.path):
        raise NotRemovable(
            f"{never_listed(source.path)}: when nothing uses {source.uri} any more, remove it by hand"
        )
    if source.protocol in {"nbd", "iscsi"} or source.type == "block":
        raise NotRemovable(f"{source.uri} was provisioned beforehand: it is released, never deleted")
    if source.protocol == "rbd" and source.hosts:
        raise NotRemovable(
            f"{source.uri} is in a namespace of its Ceph pool, and libvirt's storage pools have none: when "
            f"nothing uses it any more, remove it by hand: {_rbd_rm(source)}"
        )
    raise NotRemovable(
        f"{source.uri} cannot be removed through libvirt's storage pools: remove it by hand when nothing "
        f"uses it any more"
    )


def _rbd_rm(source: Source) -> str:
    """The command that removes an image of Ceph."""
    pool, _, rest = source.name.partition("/")
    namespace, _, image = rest.rpartition("/")
    auth = source.element().find("auth")
    words = [
        "rbd",
        "rm",
        "--pool",
        pool,
        *(["--namespace", namespace] if namespace else []),
        "--image",
        image,
    ]
    words += ["-m", ",".join(host.address("rbd") for host in source.hosts)]
    words += ["--id", auth.get("username", "")] if auth is not None else []
    return shlex.join(words)


def neighbourhood_of(source: Source) -> Place | None:
    """The place whose images may stand on ``source``; None where images do not lie beside each other (an
    export, a LUN, a device) or tell nothing of each other (Ceph). Raises NotListable."""
    place = place_of(source)
    if place is not None:
        return place if place.shows_headers else None
    if source.type == "file" and holds_devices(source.path):
        raise NotListable(f"{never_listed(source.path)}: move {source.uri} to a directory for images")
    if source.protocol == "gluster":
        raise NotListable(
            f"libvirt lists directories of gluster over tcp only: name the server of {source.uri} so in the "
            f"domain"
        )
    return None


def _pool(kind: str, name: str) -> etree._Element:
    pool = etree.Element("pool", type=kind)
    etree.SubElement(pool, "name").text = name
    return pool


def _add_hosts(source: etree._Element, hosts: Iterable[Host]) -> None:
    for host in hosts:
        etree.SubElement(source, "host", {"name": host.name, **({"port": host.port} if host.port else {})})
