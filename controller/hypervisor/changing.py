"""The calls that change a domain, one libvirt call each. They block, on a thread of the connection."""

from __future__ import annotations

import libvirt

from controller.hypervisor import reading
from controller.hypervisor.errors import OperationFailed


def take(domain: libvirt.virDomain, xml: str, *, reuse: bool) -> None:
    """Put overlays on top, of all disks that the document asks for or of none."""
    flags = (
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        | (libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT if reuse else 0)
    )
    reading.refuse_beside_a_pull(domain)
    domain.snapshotCreateXML(xml, flags)


def commit(
    domain: libvirt.virDomain, target: str, *, base: str, top: str | None, relative: bool, bandwidth: int
) -> None:
    """Start a commit; of the active layer without ``top``."""
    flags = (
        libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
        | (libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE if top is None else 0)
        | (libvirt.VIR_DOMAIN_BLOCK_COMMIT_RELATIVE if relative else 0)
    )
    reading.refuse_beside_a_pull(domain)
    domain.blockCommit(target, base, top, bandwidth, flags)


def pull(domain: libvirt.virDomain, target: str, *, base: str | None, relative: bool, bandwidth: int) -> None:
    """Start a pull into the active layer."""
    flags = libvirt.VIR_DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES | (
        libvirt.VIR_DOMAIN_BLOCK_REBASE_RELATIVE if relative else 0
    )
    reading.refuse_beside_a_pull(domain, pulling=True)
    domain.blockRebase(target, base, bandwidth, flags)


def pivot(domain: libvirt.virDomain, target: str) -> None:
    """Finish an active commit."""
    reading.refuse_beside_a_pull(domain)
    domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def flush(domain: libvirt.virDomain, target: str, capacity: int) -> None:
    """Resize to the size that it has. Somebody may have grown the disk since it was read: the old size would
    cut the new end off."""
    reading.refuse_beside_a_pull(domain)
    if not reading.may_be_measured(domain.connect(), domain.XMLDesc(0)):
        raise OperationFailed(f"the pull of {target} cannot be flushed: {reading.NOT_MEASURED}")
    now = domain.blockInfo(target)[0]
    if now != capacity:
        raise OperationFailed(f"disk {target} has {now} bytes now, not {capacity}: read it again")
    domain.blockResize(target, capacity, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
