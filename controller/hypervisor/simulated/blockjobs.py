"""libvirt's side of block jobs: what it checks before it starts one, and what it records when one ends."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from controller.hypervisor.errors import (
    Busy,
    CannotKeepRelative,
    NotFound,
    NotReady,
    OperationFailed,
    OutOfStep,
)
from controller.hypervisor.simulated.image import Storage
from controller.hypervisor.simulated.job import ActiveCommit, Commit, Copy, Job, Pull
from controller.hypervisor.simulated.location import same
from controller.hypervisor.simulated.machine import DiskDefinition, Link, LiveDisk, Machine, Node

_REFUSED = "internal error: unable to execute QEMU command 'block-commit': "
_INDEXED = re.compile(r"(?P<target>[^\[\]]+)\[(?P<index>\d+)\]")


def start_commit(
    machine: Machine,
    storage: Storage,
    target: str,
    *,
    base: str,
    top: str | None,
    relative: bool,
    bandwidth: int,
) -> Job:
    """virDomainBlockCommit. Raises NotFound for a layer that is not in the chain or not below ``top``, Busy
    for a second job, CannotKeepRelative, OperationFailed when QEMU refuses."""
    if machine.process is None:
        raise NotFound(f"could not find {base} in chain for '{target}'", code=8)  # looked up first (measured)
    disk = idle(machine, target)
    upper = 0 if top is None else _position(disk, top)
    lower = _position(disk, base)
    listed = disk.listed
    if lower <= upper:
        raise NotFound(_absent(disk, base), code=8)
    if top is not None and upper == 0:
        raise OperationFailed(
            f"invalid argument: commit of '{target}' active layer requires active flag", code=8
        )
    if relative and upper > 0:
        _require_relative(storage, disk, upper - 1, lower)
    _require_in_qemu(disk, listed[upper], listed[lower])
    if listed[lower].source.protocol in {"http", "https"}:
        raise OperationFailed(
            "unable to execute QEMU command 'block-commit': Block node is read-only", code=1
        )
    if upper == 0:
        disk.flush()
        disk.job = ActiveCommit(disk, disk.nodes.index(listed[lower]), bandwidth=bandwidth)
    else:
        top_node, base_node = disk.nodes.index(listed[upper]), disk.nodes.index(listed[lower])
        disk.job = Commit(disk, top_node, base_node, relative=relative, bandwidth=bandwidth)
    disk.job.leaving = listed[upper:lower]
    return disk.job


def start_pull(
    machine: Machine, storage: Storage, target: str, *, base: str | None, relative: bool, bandwidth: int
) -> Job:
    """virDomainBlockRebase. Raises as :func:`start_commit`."""
    disk = idle(machine, target)
    if base is None and relative:
        raise OperationFailed(
            "flag VIR_DOMAIN_BLOCK_REBASE_RELATIVE is valid only with non-null base", code=8
        )
    lower = None if base is None else _position(disk, base)
    if lower == 0:
        raise NotFound(_absent(disk, str(base)), code=8)
    if relative and lower is not None:
        _require_relative(storage, disk, 0, lower)
    listed = disk.listed
    base_node = None if lower is None else listed[lower]
    _require_nodes(disk, () if base_node is None else (base_node,))
    position = None if base_node is None else disk.nodes.index(base_node)
    disk.job = Pull(disk, disk.nodes.index(listed[0]), position, relative=relative, bandwidth=bandwidth)
    disk.job.leaving = listed[1:lower]
    return disk.job


def _require_in_qemu(disk: LiveDisk, *named: Node) -> None:
    """QEMU refuses a commit by a graph that it does not have: libvirt had missed what it did (measured). A
    pull below a top that libvirt does not know of works."""
    if disk.listed[0] is not disk.nodes[0]:
        raise OutOfStep(f"{_REFUSED}Need a root block node", code=1)
    _require_nodes(disk, named)


def _require_nodes(disk: LiveDisk, named: Iterable[Node]) -> None:
    for node in named:
        if node in disk.nodes:
            continue
        name = f"libvirt-{node.index}-format"
        if node in disk.loose:
            raise OutOfStep(f"{_REFUSED}'{name}' is not in this backing file chain", code=1)
        raise OutOfStep(f"{_REFUSED}Cannot find device='' nor node-name='{name}'", code=1)


def require_mirror_ready(disk: LiveDisk) -> Job:
    """The job to pivot. Raises NotFound without a job, NotReady for one that is not at that point."""
    job = require_job(disk)
    if not isinstance(job, ActiveCommit | Copy) or not job.ready:
        raise NotReady(f"block job on disk '{disk.target}' not ready for pivot yet", code=83)
    return job


def require_job(disk: LiveDisk) -> Job:
    """The running job. Raises NotFound when there is none."""
    if disk.job is None:
        raise NotFound(f"disk {disk.target} does not have an active block job", code=8)
    return disk.job


def record(machine: Machine, before: DiskDefinition, disk: LiveDisk, job: Job) -> None:
    """What libvirt writes to the persistent definition after ``job`` changed the chain from ``before``.

    The persistent chain follows where it lists the same layers as the live one did, down to the job's
    lowest; otherwise libvirt forgets what it listed below the active layer, and headers decide again. A pull
    of everything from an end that libvirt did not know writes the end down (measured).
    """
    definition = machine.definition
    if definition is None or disk.target not in definition:
        return
    defined = definition[disk.target]
    if not _same(before, defined, 1):
        return  # another disk under this target from the next start on, as far as libvirt knows
    kept = {node.source.key for node in disk.listed}
    bottom = _bottom(job)
    depth = len(before.keys) if bottom is None else before.keys.index(bottom) + 1
    terminated = defined.terminated
    if _same(before, defined, depth):
        chain = tuple(link for link in defined.chain if link.source.key in kept)
        terminated = terminated or (disk.terminated and not before.terminated)
    else:
        chain = (Link(disk.listed[0].source, disk.listed[0].format),)
    definition[disk.target] = replace(defined, chain=chain, terminated=terminated)


def _same(running: DiskDefinition, stored: DiskDefinition, depth: int) -> bool:
    """Whether libvirt takes the first so many layers for the same."""
    pairs = zip(running.chain[:depth], stored.chain[:depth], strict=False)
    long_enough = len(stored.chain) >= min(depth, len(running.chain))
    return long_enough and all(same(one.source, other.source) for one, other in pairs)


def _bottom(job: Job) -> str | None:
    if isinstance(job, Commit):
        return job.base.source.key
    if isinstance(job, Pull) and job.base is not None:
        return job.base.source.key
    return None


def idle(machine: Machine, target: str) -> LiveDisk:
    """The disk, if a job may start on it. Raises Busy otherwise."""
    disk = machine.live_disk(target)
    require_no_job(disk)
    if not disk.nodes:
        raise NotFound(f"disk '{target}' has no source file to be committed", code=8)
    return disk


def require_no_job(disk: LiveDisk) -> None:
    """Raises Busy: code 83 beside a job with a mirror, 84 beside any other (measured)."""
    if disk.job is not None or disk.left_mirror is not None:
        mirrored = disk.job is None or (disk.job.mirrored is not None and disk.job.noted)
        message = f"disk '{disk.target}' already in active block job"
        raise Busy(
            f"block copy still active: {message}" if mirrored else message, code=83 if mirrored else 84
        )


def _absent(disk: LiveDisk, name: str) -> str:
    indexed = _INDEXED.fullmatch(name)
    if indexed is None:
        return f"invalid argument: could not find image '{name}' in chain for '{disk.target}'"
    return (
        f"invalid argument: could not find backing store index '{indexed['index']}' in chain for "
        f"'{disk.target}'"
    )


def _position(disk: LiveDisk, name: str) -> int:
    """Resolve ``vda[3]``. Only the index form works on every kind of disk (measured)."""
    indexed = _INDEXED.fullmatch(name)
    if indexed is not None and indexed["target"] == disk.target:
        for position, node in enumerate(disk.listed):
            if node.index == int(indexed["index"]):
                return position
    raise NotFound(_absent(disk, name), code=8)


def _require_relative(storage: Storage, disk: LiveDisk, upper: int, lower: int) -> None:
    """Every header from ``upper`` down to the one that names ``lower`` must be relative and readable."""
    for node in disk.listed[upper:lower]:
        backing = node.image.backing
        if backing is None or not backing.relative or not storage.accessible(node.source):
            raise CannotKeepRelative(
                "Requested operation is not valid: can't keep relative backing relationship", code=55
            )
