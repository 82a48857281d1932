"""Images through libvirt's storage API: who refers to one, and removing one.

libvirt deletes only volumes of a pool. For a file, an active pool on its directory is used when there is one
(libvirt refuses a second pool for the same place); otherwise a transient pool is made for the purpose and
destroyed at once. Making one reads the header of every image in the directory: 6 ms for 200 (measured).
Destroying a directory pool deletes nothing.

Every function blocks and runs on a thread of the connection.
"""

from __future__ import annotations

import contextlib
import posixpath
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import libvirt
from lxml import etree

from controller.chain.source import Host, Source
from controller.hypervisor.driver import Pool, Removal
from controller.hypervisor.errors import Busy, NotRemovable, Unsupported

OURS = "varve-transient-"
"""Names of the pools that varve makes begin so."""

_DIRECTORY_POOLS = {"dir", "fs", "netfs"}
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)


@dataclass(frozen=True)
class Directory:
    """A place that libvirt can list: a local directory, or a directory of a gluster volume."""

    path: str
    """Local directory, or the directory inside the volume, which begins with a slash."""
    volume: str = ""
    hosts: tuple[Host, ...] = ()

    @property
    def key(self) -> str:
        """Names the place, for locks and messages."""
        if not self.volume:
            return f"directory {self.path}"
        return f"directory {self.path} of gluster volume {self.volume} on {self.hosts[0].address('gluster')}"

    def name_of(self, leaf: str) -> str:
        """The file ``leaf`` of this place as a ``<source>`` names it."""
        return self.volume + posixpath.join(self.path, leaf)

    def pool_xml(self, name: str) -> str:
        """The definition of a pool on this place."""
        pool = etree.Element("pool", type="gluster" if self.volume else "dir")
        etree.SubElement(pool, "name").text = name
        if self.volume:
            source = etree.SubElement(pool, "source")
            host = self.hosts[0]
            etree.SubElement(
                source, "host", {"name": host.name, **({"port": host.port} if host.port else {})}
            )
            etree.SubElement(source, "dir", path=self.path)
            etree.SubElement(source, "name").text = self.volume
        else:
            etree.SubElement(etree.SubElement(pool, "target"), "path").text = self.path
        return etree.tostring(pool, encoding="unicode")


def directory_of(source: Source) -> Directory | None:
    """Where ``source`` lies, or None when libvirt cannot list such a place."""
    if source.type == "file" and source.path.startswith("/"):
        return Directory(posixpath.dirname(posixpath.normpath(source.path)))
    if source.protocol == "gluster" and "/" in source.name and source.hosts:
        if source.hosts[0].transport != "tcp":
            return None  # libvirt's gluster pools have no other transport
        volume, _, path = posixpath.normpath(source.name.lstrip("/")).partition("/")
        return Directory("/" + posixpath.dirname(path), volume, source.hosts)
    return None


def removable_from(source: Source) -> Directory:
    """Like :func:`directory_of`. Raises NotRemovable with what to do instead."""
    place = directory_of(source)
    if place is not None:
        return place
    if source.protocol in {"nbd", "iscsi"} or source.type == "block":
        raise NotRemovable(f"{source.uri} was provisioned beforehand: it is released, never deleted")
    raise NotRemovable(
        f"{source.uri} cannot be removed through libvirt by this version: remove it by hand when nothing "
        "uses it any more"
    )


def remove(connection: libvirt.virConnect, place: Directory, source: Source) -> Removal:
    """Delete exactly the file ``source`` of ``place``. ABSENT only when the place was listed without it."""
    with _pool(connection, place) as pool:
        try:
            volume = pool.storageVolLookupByName(source.leaf)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
                return Removal.ABSENT
            raise
        kind = volume.info()[0]
        if kind not in {libvirt.VIR_STORAGE_VOL_FILE, libvirt.VIR_STORAGE_VOL_NETWORK}:
            raise NotRemovable(f"{source.uri} is not an image file but a directory or device")
        if not place.volume and posixpath.normpath(volume.path()) != posixpath.normpath(source.path):
            raise NotRemovable(f"libvirt's volume {volume.path()} is not the image {source.uri}")
        volume.delete(0)
        return Removal.REMOVED


def backings(connection: libvirt.virConnect, place: Directory) -> dict[str, str]:
    """By image in ``place``: the backing image that its header names; empty when it cannot be listed.

    Each image is named as a ``<source>`` names it: by path, or ``volume/path`` on gluster.
    """
    found = {}
    try:
        with _pool(connection, place) as pool:
            for volume in pool.listAllVolumes(0):
                root = etree.fromstring(volume.XMLDesc(0).encode(), _PARSER)
                backing = root.findtext("backingStore/path")
                if backing:
                    found[place.name_of(volume.name())] = backing
    except NotRemovable:
        return {}
    return found


def referrers(found: Mapping[str, str], place: Directory, source: Source) -> tuple[str, ...]:
    """Those of the images that :func:`backings` found whose backing image is ``source``."""
    return tuple(image for image, backing in found.items() if _names(backing, place, source))


def look_up(connection: libvirt.virConnect, name: str) -> Pool:
    """A pool by name, with where overlays go. Raises Unsupported for one that cannot hold them."""
    pool = connection.storagePoolLookupByName(name)
    if not pool.isActive():
        raise Unsupported(f"storage pool {name} is not active: start it")
    root = etree.fromstring(pool.XMLDesc(0).encode(), _PARSER)
    kind = root.get("type", "")
    if kind in _DIRECTORY_POOLS:
        return Pool(name=name, type=kind, path=root.findtext("target/path") or "")
    if kind in {"gluster", "rbd"}:
        return Pool(name=name, type=kind, template=_template(kind, root))
    raise Unsupported(f"storage pool {name} is of type {kind}, which cannot hold overlays")


def _template(kind: str, root: etree._Element) -> Source:
    """A source in the pool; its last component is a placeholder for :meth:`Source.beside`."""
    hosts = [
        Host(name=host.get("name", ""), port=host.get("port", "")) for host in root.iterfind("source/host")
    ]
    directory = root.find("source/dir")
    path = "" if directory is None else directory.get("path", "")
    name = posixpath.join(root.findtext("source/name") or "", path.strip("/"), "image")
    element = Source.network(kind, name, hosts).element()
    # How to log in to a pool is the same as how to log in to its images, less the username's place.
    auth = root.find("source/auth")
    if auth is not None:
        element.append(auth)
    return Source.from_element("network", element)


def _names(backing: str, place: Directory, source: Source) -> bool:
    """Whether libvirt's ``backingStore/path`` of a volume in ``place`` means ``source``."""
    if not place.volume:
        return posixpath.normpath(posixpath.join(place.path, backing)) == posixpath.normpath(source.path)
    wanted = posixpath.normpath(source.name.lstrip("/"))
    plain = backing.split("://", 1)[-1].split("?", 1)[0]
    return (
        posixpath.normpath(plain).endswith("/" + wanted) or posixpath.basename(plain) == plain == source.leaf
    )


@contextlib.contextmanager
def _pool(connection: libvirt.virConnect, place: Directory) -> Iterator[libvirt.virStoragePool]:
    """An active, freshly listed pool on ``place``. Raises NotRemovable when libvirt cannot make one."""
    pool = _existing(connection, place)
    if pool is not None:
        ours = pool.name().startswith(OURS) and not pool.isPersistent()
        pool.refresh(0)
    else:
        pool, ours = _make(connection, place), True
    try:
        yield pool
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_POOL:
            raise Busy(f"the storage pool on {place.key} was taken away while it was used") from error
        raise
    finally:
        if ours:
            # Gone already when another controller met it as a leftover.
            with contextlib.suppress(libvirt.libvirtError):
                pool.destroy()


def _existing(connection: libvirt.virConnect, place: Directory) -> libvirt.virStoragePool | None:
    """The active pool on a local directory: an administrator's, or ours that a crash left behind."""
    if place.volume:
        return None
    try:
        return connection.storagePoolLookupByTargetPath(place.path)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_POOL:
            return None
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            raise _no_driver(place) from error
        raise


def _make(connection: libvirt.virConnect, place: Directory) -> libvirt.virStoragePool:
    try:
        return connection.storagePoolCreateXML(place.pool_xml(OURS + uuid.uuid4().hex), 0)
    except libvirt.libvirtError as error:
        if not connection.isAlive():
            raise
        message = error.get_error_message() or str(error)
        if "missing backend for pool type" in message or error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            raise _no_driver(place) from error
        if "Storage source conflict" in message:
            raise Busy(
                f"another storage pool holds {place.key} ({message}): start it if it is not active"
            ) from error
        raise NotRemovable(f"{place.key} cannot be listed: {message}", code=error.get_error_code()) from error


def _no_driver(place: Directory) -> NotRemovable:
    package = "libvirt-daemon-driver-storage-gluster" if place.volume else "libvirt-daemon-driver-storage"
    return NotRemovable(
        f"images in {place.key} cannot be removed: the hypervisor has no storage driver for it "
        f"(package {package})"
    )
