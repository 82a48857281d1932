"""Looking into an image that was made beforehand, from where it will be used.

A file is read through libvirt's storage API: libvirtd may read what a confined QEMU may not yet. So is a
block device that an administrator's pool has: none is made for it, because what it lists are device nodes.
An image on the network, and any other device, is opened, for reading only, by the machine's own QEMU over its
monitor: it speaks every protocol, and holds the credentials of the disk. That marks the domain as tainted
(``custom-monitor``), no more.

Every function blocks and runs on a thread of the connection.
"""

from __future__ import annotations

import json
import posixpath
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import libvirt
import libvirt_qemu

from controller.chain import qcow2
from controller.chain.prepared import Examined
from controller.chain.source import Source
from controller.hypervisor import reading, storage
from controller.hypervisor.errors import NotExaminable, NotRemovable
from controller.hypervisor.needs import no_service
from controller.hypervisor.places import Directory
from controller.hypervisor.qemu_node import protocol_node

T = TypeVar("T")

_OURS = "varve-examined"
"""Names of QEMU nodes and jobs begin so."""
_PAUSE = 0.01
_MOST_SECONDS = 20.0
"""For QEMU's walk over the tables of an image."""


def examine(connection: libvirt.virConnect, uuid: str, source: Source, way_in: int | None) -> Examined:
    """Look into ``source`` for the domain. Raises NotExaminable, or Busy while a disk of it is pulled."""
    place = directory_of(source)
    if place is not None:
        return through_storage(connection, place, source)
    if source.type == "block" and (volume := _as_pooled(connection, source)) is not None:
        return _judged(connection, volume, qcow2.examine)
    domain = connection.lookupByUUIDString(uuid)
    reading.refuse_beside_a_pull(domain)
    try:
        return through_qemu(domain, source, way_in)
    except NotExaminable as error:
        if source.type != "block":
            raise
        raise NotExaminable(
            f"{error.message} (QEMU may not see devices that its machine does not have; libvirt reads one in "
            f"an active storage pool, such as one of its volume group: virsh pool-define-as)"
        ) from error


def directory_of(source: Source) -> Directory | None:
    """Where a file of the hypervisor lies; None for a device and for an image on the network."""
    if source.type != "file" or not source.path:
        return None
    return Directory(posixpath.dirname(posixpath.normpath(source.path)))


def _as_pooled(connection: libvirt.virConnect, source: Source) -> libvirt.virStorageVol | None:
    """The device as a storage pool of an administrator has it (of its volume group, say); None if none
    does."""
    try:
        return storage.as_known(connection, source)
    except libvirt.libvirtError as error:
        message = error.get_error_message() or str(error)
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT or no_service(message):
            return None  # a daemon without storage has no pools
        raise


def through_storage(connection: libvirt.virConnect, place: Directory, source: Source) -> Examined:
    """Examine a file of the hypervisor. Raises NotExaminable."""
    try:
        return _in_directory(connection, place, source)
    except NotRemovable as error:  # which is how a place is called that libvirt cannot list
        raise NotExaminable(f"{place.key} cannot be read: {error.message}") from error


def device(connection: libvirt.virConnect, source: Source) -> qcow2.Inside | None:
    """What a qcow2 image on a block device of the hypervisor takes of it; None for one that no pool has.
    Nobody may be writing to it. Raises NotExaminable."""
    volume = _as_pooled(connection, source)
    return None if volume is None else _judged(connection, volume, partial(qcow2.inside, measuring=True))


def _in_directory(connection: libvirt.virConnect, place: Directory, source: Source) -> Examined:
    with storage.opened(connection, place) as pool:
        try:
            volume = pool.storageVolLookupByName(source.leaf)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
                raise NotExaminable(f"there is no {source.uri} on the hypervisor") from error
            raise
        return _judged(connection, volume, qcow2.examine)


def _judged(
    connection: libvirt.virConnect,
    volume: libvirt.virStorageVol,
    judge: Callable[[Callable[[int, int], bytes]], T],
) -> T:
    def read(offset: int, length: int) -> bytes:
        return _download(connection, volume, offset, length)

    try:
        return judge(read)
    except qcow2.NotQcow2 as error:
        raise NotExaminable(str(error)) from error


def _download(
    connection: libvirt.virConnect, volume: libvirt.virStorageVol, offset: int, length: int
) -> bytes:
    if length == 0:
        return b""
    stream = connection.newStream(0)
    volume.download(stream, offset, length, 0)
    pieces = bytearray()
    try:
        while piece := stream.recv(1 << 18):
            pieces += piece
        stream.finish()
    except libvirt.libvirtError:
        stream.abort()
        raise
    return bytes(pieces)


def through_qemu(domain: libvirt.virDomain, source: Source, way_in: int | None) -> Examined:
    """Examine an image on the network, or a device. ``way_in``: index of the layer of this machine whose
    credentials are used. Raises NotExaminable."""
    objects = {entry["name"] for entry in _ask(domain, "qom-list", path="/objects")}
    node = protocol_node(source, way_in, objects)
    with _opened(domain, node) as opened:
        # Given a data file, QEMU opens none that the header names, and refuses an image that has none.
        asked = {**opened, "node-name": f"{_OURS}-data", "data-file": opened["file"]}
        try:
            _ask(domain, "blockdev-add", **asked)
        except NotExaminable as error:
            if "data-file" not in error.message:
                raise
        else:
            return Examined(0, "", "", empty=True, flaws=("its data is in another file",))
        name = f"{_OURS}-format"
        _ask(domain, "blockdev-add", **opened, **{"node-name": name})
        nodes = _ask(domain, "query-named-block-nodes", flat=True)
        image = next(one["image"] for one in nodes if one["node-name"] == name)
        return Examined(
            capacity=image["virtual-size"],
            backing=image.get("backing-filename", ""),
            backing_format=image.get("backing-filename-format", ""),
            empty=_is_empty(domain, name, image["virtual-size"]),
            flaws=tuple(_flaws(image)),
        )


def _flaws(image: dict[str, Any]) -> Iterator[str]:
    details = image.get("format-specific", {}).get("data", {})
    if image.get("encrypted") or details.get("encrypt"):
        yield "it is encrypted"
    if image.get("dirty-flag") or details.get("corrupt"):
        yield qcow2.DAMAGED
    if image.get("snapshots"):
        yield "it holds internal snapshots"
    if details.get("bitmaps"):
        yield "it holds bitmaps"


def _is_empty(domain: libvirt.virDomain, name: str, capacity: int) -> bool:
    """A backup of the top image alone, to nowhere: it copies what is allocated, so the first byte tells."""
    nowhere, job = f"{_OURS}-nowhere", f"{_OURS}-job"
    _ask(domain, "blockdev-add", driver="null-co", size=capacity, **{"node-name": nowhere})
    request = {"job-id": job, "device": name, "target": nowhere, "sync": "top", "auto-dismiss": False}
    _ask(domain, "blockdev-backup", **request)
    deadline, cancelled = time.monotonic() + _MOST_SECONDS, False
    while True:
        found = next(one for one in _ask(domain, "query-jobs") if one["id"] == job)
        if found["status"] == "concluded":
            break
        late = time.monotonic() > deadline
        if (found["current-progress"] or late) and not cancelled:
            _ask(domain, "job-cancel", id=job)
            cancelled = True
        if late and cancelled and time.monotonic() > deadline + _MOST_SECONDS:
            raise NotExaminable("QEMU does not come to the end of its tables")
        threading.Event().wait(_PAUSE)  # a job's events do not reach other clients of libvirt
    _ask(domain, "job-dismiss", id=job)
    if found.get("error") and not found["current-progress"]:
        raise NotExaminable(f"its tables cannot be read: {found['error']}")
    if cancelled and not found["current-progress"]:
        raise NotExaminable("QEMU does not come to the end of its tables")
    return not found["current-progress"]


@contextmanager
def _opened(domain: libvirt.virDomain, node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The image's bytes as a node; gives the arguments of a qcow2 node on it."""
    _clean(domain)  # of what a controller left that was killed here
    try:
        file = f"{_OURS}-file"
        _ask(domain, "blockdev-add", **node, **{"node-name": file, "read-only": True})
        yield {"driver": "qcow2", "file": file, "backing": None, "read-only": True}
    finally:
        _clean(domain)


def _clean(domain: libvirt.virDomain) -> None:
    """Take away all nodes of ours, the upper ones first."""
    jobs = [one for one in _ask(domain, "query-jobs") if one["id"].startswith(_OURS)]
    for job in jobs:
        if job["status"] == "concluded":
            _ask(domain, "job-dismiss", id=job["id"])
        else:
            _ask(domain, "job-cancel", id=job["id"])
    there = {one["node-name"] for one in _ask(domain, "query-named-block-nodes", flat=True)}
    for part in ("data", "format", "nowhere", "file"):
        if f"{_OURS}-{part}" in there:
            _ask(domain, "blockdev-del", **{"node-name": f"{_OURS}-{part}"})


def _ask(domain: libvirt.virDomain, execute: str, **arguments: object) -> Any:
    """One QMP command. Raises NotExaminable with QEMU's words."""
    request = json.dumps({"execute": execute, "arguments": arguments})
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, request, 0))
    if "error" in answer:
        raise NotExaminable(answer["error"]["desc"])
    return answer["return"]
