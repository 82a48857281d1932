"""External snapshots: the ``<domainsnapshot>`` document as libvirt reads it, and what it then does."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lxml import etree

from controller.chain.source import Source
from controller.hypervisor.errors import (
    AlreadyExists,
    HypervisorError,
    NotFound,
    OperationFailed,
    OutOfStep,
    Unsupported,
)
from controller.hypervisor.simulated.blockjobs import require_no_job
from controller.hypervisor.simulated.image import Image, ImageMissing, Storage
from controller.hypervisor.simulated.location import same
from controller.hypervisor.simulated.machine import DiskDefinition, Link, LiveDisk, Machine, Node, Process

MAX_LAYERS = 200
"""libvirt's limit (measured)."""
_IN_PLACE = {"nbd", "iscsi"}
"""Targets that exist before the snapshot and are formatted in place, whatever they held (measured)."""
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True)


@dataclass(frozen=True)
class Overlay:
    """One new active layer that a request asks for."""

    target: str
    source: Source
    format: str


def parse(xml: str, disks: Iterable[DiskDefinition]) -> tuple[Overlay, ...]:
    """The overlays that libvirt would make for this document.

    A disk that is not listed is snapshotted as well, to a file named by libvirt (measured): list every
    other disk with ``snapshot='no'``. Raises OperationFailed for a document that libvirt refuses, NotFound
    for a disk that the domain does not have, Unsupported for a format that cannot be an overlay.
    """
    try:
        root = etree.fromstring(xml.encode(), _PARSER)
    except etree.XMLSyntaxError as error:
        raise OperationFailed(f"(domain_snapshot): {error}", code=35) from error
    if root.tag != "domainsnapshot":
        raise OperationFailed(
            f"XML error: expecting root element of 'domainsnapshot', not '{root.tag}'", code=27
        )
    name = root.findtext("name") or "1"
    known = {disk.target: disk for disk in disks}
    listed: dict[str, Overlay | None] = {}
    for element in root.iterfind("disks/disk"):
        target = _target(element.get("name", ""), known)
        if target in listed:
            raise Unsupported(f"unsupported configuration: disk '{target}' specified twice", code=67)
        listed[target] = _listed(element, known[target], name)
    for target, disk in known.items():
        if target not in listed and not disk.readonly and disk.chain:
            listed[target] = Overlay(target, _automatic(disk, name), "qcow2")
    overlays = tuple(listed[t] for t in known if t in listed)
    chosen = tuple(overlay for overlay in overlays if overlay is not None)
    if not chosen:
        raise Unsupported("unsupported configuration: nothing selected for snapshot", code=67)
    return chosen


def _target(name: str, known: dict[str, DiskDefinition]) -> str:
    """A ``<disk name>`` may be the target device or the path of the active layer."""
    if name in known:
        return name
    for target, disk in known.items():
        if name and disk.chain and disk.chain[0].source.path == name:
            return target
    raise NotFound(f"unsupported configuration: no disk named '{name}'", code=67)


def _listed(element: etree._Element, disk: DiskDefinition, name: str) -> Overlay | None:
    mode = element.get("snapshot", "external")
    if mode == "no":
        return None
    if mode != "external":
        raise Unsupported(
            "unsupported configuration: active qemu domains require external disk snapshots; disk "
            f"{disk.target} requested {mode}",
            code=67,
        )
    driver = element.find("driver")
    overlay_format = "qcow2" if driver is None else driver.get("type", "qcow2")
    if overlay_format not in {"qcow2", "qed"}:
        raise Unsupported(
            f"unsupported configuration: external snapshot format for disk {disk.target} is unsupported: "
            f"{overlay_format}",
            code=67,
        )
    kind = element.get("type", "file")
    source = element.find("source")
    if source is None:
        return Overlay(disk.target, _automatic(disk, name), overlay_format)
    if kind == "network" and not source.get("protocol"):
        raise OperationFailed("XML error: Missing required attribute 'protocol' in element 'source'", code=27)
    return Overlay(disk.target, Source.from_element(kind, source), overlay_format)


def _automatic(disk: DiskDefinition, name: str) -> Source:
    """``a.qcow2`` becomes ``a.NAME``, as libvirt names what it was not told."""
    path = disk.chain[0].source.path if disk.chain else ""
    if not path:
        raise Unsupported(
            f"unsupported configuration: source for disk '{disk.target}' is not a regular file; refusing to "
            "generate external snapshot name",
            code=67,
        )
    return Source.file(f"{posixpath.splitext(path)[0]}.{name}")


def take(machine: Machine, storage: Storage, xml: str, *, reuse: bool) -> None:
    """virDomainSnapshotCreateXML, disk-only and atomic: all disks or none.

    Raises what :func:`parse` raises, Busy for a disk with a job, AlreadyExists, Unsupported for a chain that
    is too deep or a disk that cannot have a snapshot, and what the storage answers.
    """
    if machine.process is None:
        _take_inactive(machine, storage, parse(xml, (machine.definition or {}).values()), reuse=reuse)
        return
    process = machine.process
    definitions = [disk.as_defined() for disk in process.disks.values()]
    overlays = parse(xml, definitions)
    for overlay in overlays:
        _check_live(process.disks[overlay.target])
        _check_target(overlay, storage, reuse=reuse)
    nodes = _make(process, storage, overlays, reuse=reuse)
    for overlay in overlays:
        disk = process.disks[overlay.target]
        disk.flush()
        _record(machine, disk.listed[0].source, overlay)
        listed = disk.listed
        disk.nodes.insert(0, nodes[overlay.target])
        disk.list_anew((nodes[overlay.target], *listed))


def _make(
    process: Process, storage: Storage, overlays: tuple[Overlay, ...], *, reuse: bool
) -> dict[str, Node]:
    """The new layers, by target; none is left behind when one fails. An index that was given out is burned:
    a file is made before its layer gets one, a network image after (measured)."""
    made: list[Image] = []
    nodes: dict[str, Node] = {}
    if process.number_forgotten:
        process.number_forgotten = False
        raise OperationFailed(
            "internal error: unable to execute QEMU command 'blockdev-add': Duplicate nodes with node-name="
            f"'libvirt-{process.numbered}-storage'",
            code=1,
        )
    try:
        for overlay in overlays:
            index = process.number() if overlay.source.type == "network" else 0
            image = _image(overlay, storage, process.disks[overlay.target].active, reuse=reuse)
            if not reuse:
                made.append(image)
            node = Node(image, overlay.source, overlay.format, index or process.number())
            nodes[overlay.target] = node
            _require_in_step(process.disks[overlay.target], node)
    except HypervisorError:
        for image in made:
            storage.images.pop(image.key, None)
        raise
    return nodes


def _require_in_step(disk: LiveDisk, overlay: Node) -> None:
    """QEMU refuses an overlay on a layer that already has one: libvirt had missed it (measured)."""
    top = disk.listed[0]
    if top is not disk.nodes[0]:
        above = disk.nodes[disk.nodes.index(top) - 1] if top in disk.nodes else overlay
        raise OutOfStep(
            "internal error: unable to execute QEMU command 'transaction': "
            f"Node 'libvirt-{top.index}-format' is busy: "
            f"node is used as backing hd of 'libvirt-{above.index}-format'",
            code=1,
        )


def _check_live(disk: LiveDisk) -> None:
    require_no_job(disk)
    if not disk.nodes:
        raise OperationFailed(
            "internal error: failed to update capacity data for block node '(null)'", code=1
        )
    if disk.definition.shareable:
        raise Unsupported(
            f"unsupported configuration: shared access for disk '{disk.target}' requires use of supported "
            "storage format",
            code=67,
        )
    if len(disk.listed) >= MAX_LAYERS:
        raise Unsupported(
            f"Operation not supported: backing chains more than {MAX_LAYERS} layers deep are not supported "
            f"for disk '{disk.target}'",
            code=84,
        )


def _check_target(overlay: Overlay, storage: Storage, *, reuse: bool) -> None:
    exists = overlay.source.key in storage.images
    in_place = overlay.source.protocol in _IN_PLACE or overlay.source.type == "block"
    if exists and not reuse and not in_place:
        raise AlreadyExists(
            f"unsupported configuration: external snapshot file for disk {overlay.target} already exists "
            f"and is not a block device: {overlay.source.uri}",
            code=67,
        )
    if not exists and (reuse or in_place):
        raise OperationFailed(
            f"missing existing file for disk {overlay.target}: {overlay.source.uri}: No such file",
            code=38 if overlay.source.type == "file" else 1,
        )


def _image(overlay: Overlay, storage: Storage, below: Node, *, reuse: bool) -> Image:
    """The overlay's image: found (whatever its header says, as in life) or made."""
    if reuse:
        return storage.open(overlay.source.key)
    return storage.create(
        overlay.source,
        capacity=below.image.capacity,
        format=overlay.format,
        backing=below.image,
        spelled=below.source,
    )


def _record(machine: Machine, below: Source, overlay: Overlay) -> None:
    """Put the overlay on the persistent chain, if that starts with the layer that was frozen (``below``), as
    libvirt compares them."""
    if machine.definition is None or overlay.target not in machine.definition:
        return
    defined = machine.definition[overlay.target]
    if defined.chain and same(below, defined.chain[0].source):
        chain = (Link(overlay.source, overlay.format), *defined.chain)
        machine.definition[overlay.target] = replace(defined, chain=chain)


def _take_inactive(machine: Machine, storage: Storage, overlays: tuple[Overlay, ...], *, reuse: bool) -> None:
    """With qemu-img, so only for local files (measured)."""
    definition = machine.definition
    if definition is None:
        raise ValueError("a domain is running or has a definition")
    for overlay in overlays:
        source = definition[overlay.target].chain[0].source
        for image in (source, overlay.source):
            if image.type == "network":
                raise OperationFailed(
                    "internal error: external inactive snapshots are not supported on 'network' disks using "
                    f"'{image.protocol}' protocol",
                    code=1,
                )
        _check_target(overlay, storage, reuse=reuse)
    for overlay in overlays:
        try:
            below = storage.open(definition[overlay.target].chain[0].source.key)
        except ImageMissing as missing:
            raise OperationFailed(f"qemu-img: Could not open '{missing.key}'", code=1) from missing
        if not reuse:
            storage.create(overlay.source, capacity=below.capacity, format=overlay.format, backing=below)
        defined = definition[overlay.target]
        # A chain that was listed goes on; one that was not is not begun (measured).
        listed = defined.chain if len(defined.chain) > 1 else ()
        chain = (Link(overlay.source, overlay.format), *listed)
        definition[overlay.target] = replace(
            defined, chain=chain, terminated=bool(listed) and defined.terminated
        )
