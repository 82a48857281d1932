"""Starting QEMU: which layers a process opens, what libvirt knows of them, and their indexes."""

from __future__ import annotations

from collections.abc import Mapping

from controller.hypervisor.errors import OperationFailed
from controller.hypervisor.simulated.image import ImageMissing, Storage, probed
from controller.hypervisor.simulated.machine import DiskDefinition, LiveDisk, Node, Process


def boot(definition: Mapping[str, DiskDefinition], storage: Storage, number: int) -> Process:
    """Open every disk of the definition. Raises OperationFailed (code 38) when an image is missing.

    Indexes run through the whole domain, top-down within a disk, over the disks from the last to the first.
    """
    process = Process(number, {}, 0)
    opened = {d.target: plug(d, storage, process) for d in reversed(tuple(definition.values()))}
    process.disks = {target: opened[target] for target in definition}
    return process


def plug(definition: DiskDefinition, storage: Storage, process: Process) -> LiveDisk:
    """Open one disk for ``process``. Raises as :func:`boot`."""
    try:
        return _open(definition, storage, process)
    except ImageMissing as missing:
        raise OperationFailed(
            f"Cannot access storage file '{missing.key}': No such file or directory", code=38
        ) from missing


def _open(definition: DiskDefinition, storage: Storage, process: Process) -> LiveDisk:
    """The chain of one disk: what the definition lists, then what libvirt reads from headers, then what only
    QEMU finds. Raises ImageMissing.

    An explicit chain wins over headers. Headers are read where libvirt has a driver for it; elsewhere (NBD,
    iSCSI …) the end stays unknown to libvirt and QEMU follows the header by itself (measured).
    """
    disk = LiveDisk(definition, [], terminated=definition.terminated)
    if not definition.chain:
        process.number()  # an empty drive uses one up (measured)
    for link in definition.chain:
        image = storage.open(link.source.key)
        disk.nodes.append(Node(image, link.source, link.format, process.number()))
    if definition.terminated or not disk.nodes:
        return disk
    last = disk.nodes[-1]
    while storage.accessible(last.source):
        backing = last.image.backing
        if last.format == "raw" or backing is None:
            disk.terminated = True
            return disk
        image = storage.open(backing.source.key)
        last = Node(image, probed(last.image), backing.format, process.number())
        disk.nodes.append(last)
    if last.format != "raw":
        disk.hidden = storage.below(last.image)
    return disk
