"""Images through libvirt's storage API: who refers to one, and removing one.

libvirt deletes only volumes of a pool, and knows what is in one when it was started or refreshed. A transient
pool is made for the purpose and destroyed at once, also beside an administrator's pool on the same place.
Making one reads the header of every image in the directory: 6 ms for 200 (measured). Destroying a directory
pool deletes nothing.

Every function blocks and runs on a thread of the connection.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import libvirt
from lxml import etree

from controller.chain.source import Host, Source
from controller.chain.system_places import holds_devices
from controller.hypervisor.driver import Pool, Removal
from controller.hypervisor.errors import (
    Busy,
    NoStorageDriver,
    NotListable,
    NotRemovable,
    StillOpen,
    Unreadable,
    Unsupported,
)
from controller.hypervisor.needs import no_service, service_advice
from controller.hypervisor.places import CephPool, Directory, Place, disk_auth, never_listed
from controller.hypervisor.texts import told

OURS = "varve-transient-"
"""Names of the pools that varve makes begin so."""

_DIRECTORY_POOLS = {"dir", "fs", "netfs"}
_CONFLICT = re.compile(r"Storage source conflict with pool: '(?P<pool>.*)'")
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
        if place.local:
            if posixpath.normpath(volume.path()) != posixpath.normpath(source.path):
                raise NotRemovable(f"libvirt's volume {volume.path()} is not the image {source.uri}")
            volume = as_known(connection, source) or volume
        _delete(volume, place)
        return Removal.REMOVED


def as_known(connection: libvirt.virConnect, source: Source) -> libvirt.virStorageVol | None:
    """The file or device as an administrator's pool has it, if one does: then its list stays true, and
    libvirt refuses what is being copied. Nothing is opened or listed for it."""
    try:
        return connection.storageVolLookupByPath(source.path)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
            return None
        raise


def _delete(volume: libvirt.virStorageVol, place: Place) -> None:
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
    images: frozenset[str] = frozenset()
    """All images there, named in the same way."""
    versions: Mapping[str, int] = field(default_factory=dict)
    """Of the qcow2 images, by the same names: 2 (``compat=0.10``) or 3."""
    written: Mapping[str, datetime] = field(default_factory=dict)
    """When each was written to last, by the same names, where libvirt tells."""


def listing(connection: libvirt.virConnect, place: Place) -> Listing:
    """List ``place``. Raises NotListable, or Unreadable for an image whose header may name anything."""
    found, images, versions, written = {}, set[str](), {}, {}
    with opened(connection, place) as pool:
        for volume in pool.listAllVolumes(0):
            name = place.name_of(told(volume.name))
            images.add(name)
            root = _described(volume, name)
            if root is None:
                continue  # it was removed since the place was listed
            if backing := root.findtext("backingStore/path"):
                found[name] = backing
            if root.find("target/format[@type='qcow2']") is not None:
                versions[name] = 3 if root.findtext("target/compat") == "1.1" else 2
            if mtime := root.findtext("target/timestamps/mtime"):
                written[name] = datetime.fromtimestamp(float(mtime), UTC)
        return Listing(found, _free(*pool.info()), frozenset(images), versions, written)


def _described(volume: libvirt.virStorageVol, name: str) -> etree._Element | None:
    """What libvirt says of an image, its header included; None when it is gone."""
    try:
        return etree.fromstring(told(partial(volume.XMLDesc, 0)).encode(), _PARSER)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
            return None
        raise
    except etree.XMLSyntaxError as error:
        raise Unreadable(
            f"what libvirt says of {name} is no XML ({error}): move that file to another directory"
        ) from error


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
    """A freshly listed pool of our own on ``place``. Raises NotListable when libvirt cannot make one."""
    pool = _make(connection, place)
    try:
        yield pool
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_POOL:
            raise Busy(f"the storage pool on {place.key} was taken away while it was used") from error
        raise
    finally:
        # Gone already when another controller met it as a leftover.
        with contextlib.suppress(libvirt.libvirtError):
            pool.destroy()


def _make(connection: libvirt.virConnect, place: Place, *, respelled: bool = False) -> libvirt.virStoragePool:
    if isinstance(place, Directory) and holds_devices(place.path):
        raise NotListable(never_listed(place.path))
    try:
        return connection.storagePoolCreateXML(
            place.pool_xml(OURS + uuid.uuid4().hex, respelled=respelled), 0
        )
    except libvirt.libvirtError as error:
        if not connection.isAlive():
            raise
        message = error.get_error_message() or str(error)
        if "missing backend for pool type" in message or error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            raise NoStorageDriver(
                f"{place.key} cannot be listed, and images there cannot be removed: the hypervisor has no "
                f"storage driver for it (package {place.package})"
            ) from error
        if no_service(message):
            raise NoStorageDriver(f"{place.key} cannot be listed: {service_advice(message)}") from error
        conflict = _CONFLICT.search(message)
        if conflict is None:
            raise NotListable(
                f"{place.key} cannot be listed: {message}; make it readable for libvirt",
                code=error.get_error_code(),
            ) from error
    return _beside(connection, place, conflict["pool"], respelled=respelled)


def _beside(
    connection: libvirt.virConnect, place: Place, name: str, *, respelled: bool
) -> libvirt.virStoragePool:
    """A pool on a place that another pool holds.

    One that is not ours is never refreshed: where that fails, as in a directory that went away for a moment,
    libvirt stops the pool (measured).
    """
    try:
        holder = connection.storagePoolLookupByName(name)
    except libvirt.libvirtError as error:
        raise Busy(f"storage pool {name} held {place.key} and is gone: this is tried again") from error
    if holder.name().startswith(OURS) and not holder.isPersistent():
        holder.refresh(0)  # a crash left it behind
        return holder
    if respelled:
        raise NotListable(f"storage pool {name} holds {place.key}, and libvirt makes no other beside it")
    return _make(connection, place, respelled=True)
