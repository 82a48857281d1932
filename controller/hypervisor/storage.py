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
from dataclasses import dataclass, field

import libvirt
from lxml import etree

from controller.chain.source import Host, Source
from controller.hypervisor.driver import Pool, Removal
from controller.hypervisor.errors import Busy, NotRemovable, StillOpen, Unsupported
from controller.hypervisor.places import CephPool, Directory, Place, disk_auth, place_of

OURS = "varve-transient-"
"""Names of the pools that varve makes begin so."""

_DIRECTORY_POOLS = {"dir", "fs", "netfs"}
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)


def remove(connection: libvirt.virConnect, place: Place, source: Source) -> Removal:
    """Delete exactly the image ``source`` of ``place``. ABSENT only when the place was listed without it."""
    with opened(connection, place) as pool:
        try:
            volume = pool.storageVolLookupByName(source.leaf)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
                return Removal.ABSENT
            raise
        kind = volume.info()[0]
        if kind not in {libvirt.VIR_STORAGE_VOL_FILE, libvirt.VIR_STORAGE_VOL_NETWORK}:
            raise NotRemovable(f"{source.uri} is not an image file but a directory or device")
        if place.local and posixpath.normpath(volume.path()) != posixpath.normpath(source.path):
            raise NotRemovable(f"libvirt's volume {volume.path()} is not the image {source.uri}")
        _delete(volume, place, source)
        return Removal.REMOVED


def _delete(volume: libvirt.virStorageVol, place: Place, source: Source) -> None:
    try:
        volume.delete(0)
    except libvirt.libvirtError as error:
        message = error.get_error_message() or str(error)
        if isinstance(place, CephPool) and "failed to remove volume" in message:
            # libvirt 9.0 quotes another error than Ceph's: "No such file or directory" for an image that is
            # open (measured). One that is really gone is removed without an error.
            raise StillOpen(
                "Ceph does not let it go: a client has it open (one that was killed counts for some 30 s "
                "more), or it has RBD snapshots or clones",
                code=error.get_error_code() or 0,
            ) from error
        raise


@dataclass(frozen=True)
class Listing:
    """What is in a place."""

    backings: Mapping[str, str] = field(default_factory=dict)
    """By image, the backing image that its header names. Each image is named as a ``<source>`` names it: by
    path, or ``volume/path`` on gluster."""
    free: int | None = None
    """Bytes that are free there; None when it cannot be told."""
    images: frozenset[str] | None = None
    """All images there, named in the same way; None when the place cannot be listed."""


def listing(connection: libvirt.virConnect, place: Place) -> Listing:
    """List ``place``; nothing is in it when it cannot be listed."""
    found, images = {}, set()
    try:
        with opened(connection, place) as pool:
            for volume in pool.listAllVolumes(0):
                images.add(place.name_of(volume.name()))
                root = etree.fromstring(volume.XMLDesc(0).encode(), _PARSER)
                backing = root.findtext("backingStore/path")
                if backing:
                    found[place.name_of(volume.name())] = backing
            return Listing(found, _free(*pool.info()), frozenset(images))
    except NotRemovable:
        return Listing()


def _free(_state: int, capacity: int, _allocation: int, available: int) -> int | None:
    """Of virStoragePoolGetInfo. A Ceph without a mgr answers 0 for both: it does not know (measured)."""
    return available if capacity else None


def referrers(found: Mapping[str, str], place: Place, source: Source) -> tuple[str, ...]:
    """Those of the images that :func:`listing` found whose backing image is ``source``."""
    return tuple(image for image, backing in found.items() if place.is_called(backing, source))


def look_up(connection: libvirt.virConnect, name: str) -> Pool:
    """A pool by name, with where overlays go. Raises Unsupported for one that cannot hold them."""
    pool = connection.storagePoolLookupByName(name)
    if not pool.isActive():
        raise Unsupported(f"storage pool {name} is not active: start it")
    return pool_of(name, pool.XMLDesc(0))


def pool_of(name: str, xml: str) -> Pool:
    """Where overlays go in a pool with this definition. Raises Unsupported."""
    root = etree.fromstring(xml.encode(), _PARSER)
    kind = root.get("type", "")
    if kind in _DIRECTORY_POOLS:
        return Pool(name=name, type=kind, path=root.findtext("target/path") or "")
    if kind in {"gluster", "rbd"}:
        return Pool(name=name, type=kind, template=_template(kind, root))
    raise Unsupported(
        f"storage pool {name} is of type {kind}, whose volumes have a fixed size: make a volume there and "
        f"name it with overlay.source"
    )


def _template(kind: str, root: etree._Element) -> Source:
    """A source in the pool; its last component is a placeholder for :meth:`Source.beside`."""
    hosts = [
        Host(name=host.get("name", ""), port=host.get("port", "")) for host in root.iterfind("source/host")
    ]
    directory = root.find("source/dir")
    path = "" if directory is None else directory.get("path", "")
    name = posixpath.join(root.findtext("source/name") or "", path.strip("/"), "image")
    element = Source.network(kind, name, hosts).element()
    auth = root.find("source/auth")
    if auth is not None:
        element.append(disk_auth(auth, auth.get("type", "ceph")))
    return Source.from_element("network", element)


@contextlib.contextmanager
def opened(connection: libvirt.virConnect, place: Place) -> Iterator[libvirt.virStoragePool]:
    """An active, freshly listed pool on ``place``. Raises NotRemovable when libvirt cannot make one."""
    pool = _existing(connection, place)
    if pool is not None:
        pool.refresh(0)
    else:
        pool = _make(connection, place)
    ours = pool.name().startswith(OURS) and not pool.isPersistent()
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


def _existing(connection: libvirt.virConnect, place: Place) -> libvirt.virStoragePool | None:
    """The active pool on a local directory: an administrator's, or ours that a crash left behind."""
    if not isinstance(place, Directory):
        return None
    try:
        return connection.storagePoolLookupByTargetPath(place.path)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_POOL:
            return None
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            raise _no_driver(place) from error
        raise


def _make(connection: libvirt.virConnect, place: Place) -> libvirt.virStoragePool:
    try:
        return connection.storagePoolCreateXML(place.pool_xml(OURS + uuid.uuid4().hex), 0)
    except libvirt.libvirtError as error:
        if not connection.isAlive():
            raise
        message = error.get_error_message() or str(error)
        if "missing backend for pool type" in message or error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            raise _no_driver(place) from error
        if "Storage source conflict" in message:
            pool = _holder(connection, place)
            if pool is not None:
                pool.refresh(0)
                return pool
            raise Busy(
                f"another storage pool holds {place.key} ({message}): start it if it is not active"
            ) from error
        raise NotRemovable(f"{place.key} cannot be listed: {message}", code=error.get_error_code()) from error


def _holder(connection: libvirt.virConnect, place: Place) -> libvirt.virStoragePool | None:
    """The active pool on a place of a server, which libvirt does not look up by what it is on."""
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        root = etree.fromstring(pool.XMLDesc(0).encode(), _PARSER)
        kind = root.get("type", "")
        found = place_of(_template(kind, root)) if kind in {"gluster", "rbd"} else None
        if found is not None and found.key == place.key:
            return pool
    return None


def _no_driver(place: Place) -> NotRemovable:
    return NotRemovable(
        f"images in {place.key} cannot be removed: the hypervisor has no storage driver for it "
        f"(package {place.package})"
    )
