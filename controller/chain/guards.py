"""Guards: small functions that each know one reason not to do something.

A guard returns None when it has nothing against it, else a :class:`Blocked` that says what is in the way and
what to do about it. Whether that may pass by itself is the reason's property, not the caller's guess.
"""

from __future__ import annotations

from shlex import quote

from controller.chain.blocked import Blocked, Why
from controller.chain.desired import Policy
from controller.chain.disk import Disk
from controller.chain.gate import Gate
from controller.chain.journal import Operation
from controller.chain.observation import DiskFacts, JobKind, Observation, RunState
from controller.chain.outcome import Outcome
from controller.chain.same_location import difference
from controller.chain.source import Source


def ownership_guard(observation: Observation) -> Blocked | None:
    """Is the record readable, ours, and as we left it?"""
    if observation.journal_problem:
        return Blocked(Why.JOURNAL_UNREADABLE, observation.journal_problem)
    if observation.journal_untrusted:
        return Blocked(Why.JOURNAL_UNTRUSTED, observation.journal_untrusted)
    if not observation.foreign_owner:
        return None
    return Blocked(
        Why.FOREIGN_OWNER,
        f"domain {observation.name} is in the care of another cluster; if that is gone for good, let an "
        f"administrator list it in the Hypervisor's spec.takeOverFrom",
        detail=f"its identity is {observation.foreign_owner}",
    )


def domain_guard(observation: Observation) -> Blocked | None:
    """May anything be done to the disks of this domain now?"""
    name = observation.name
    if observation.state is RunState.SHUTOFF:
        return Blocked(
            Why.WAITING_FOR_DOMAIN,
            f"domain {name} is shut off; start it (virsh start {quote(name)}) and the work goes on (this "
            f"version does nothing on machines that are shut off, whatever the class's offline says)",
        )
    if not observation.active:
        return Blocked(
            Why.WAITING_FOR_DOMAIN,
            f"domain {name} is neither running nor paused; the work goes on when it is",
        )
    if observation.domain_job:
        return Blocked(
            Why.MIGRATING,
            f"libvirt runs a {observation.domain_job} job on domain {name}; the work goes on after it",
        )
    return None


def io_error_guard(observation: Observation) -> Blocked | None:
    """A merge adds load and may need space where the guest just ran out of it."""
    if not observation.paused_by_io_error:
        return None
    name = observation.name
    return Blocked(
        Why.DOMAIN_PAUSED,
        f"domain {name} is paused by an I/O error (virsh domblkerror {quote(name)}); mend its storage and "
        f"resume it",
    )


def pull_guard(observation: Observation, target: str, gate: Gate) -> Blocked | None:
    """While a disk is pulled its machine is left alone, unless its QEMU is known to be safe: 7.2 can crash
    when its block nodes are asked about or changed just as a pull ends (measured; ADR 6)."""
    if gate.may_watch_pulls(observation.machine):
        return None
    pulled = sorted(
        facts.target
        for facts in observation.disks.values()
        if facts.target != target and facts.job is not None and facts.job.kind is JobKind.PULL
    )
    if not pulled:
        return None
    return Blocked(
        Why.QUEUED,
        f"disk {pulled[0]} of {observation.name} is being pulled; its other disks wait for that",
    )


def disk_guard(disk: Disk) -> Blocked | None:
    """Can this disk have points at all?"""
    faults = [
        (not disk.layers, "it has no medium or no source"),
        (disk.device != "disk", f"it is a {disk.device}, not a disk"),
        (disk.readonly, "it is read-only"),
        (disk.shareable, "it is shareable: other machines may write to it at the same time"),
        (disk.transient, "it is transient: its content is thrown away when the machine stops"),
    ]
    found = [text for fault, text in faults if fault]
    if disk.layers and not found:
        found = _source_faults(disk.layers[0].source)
    if not found:
        return None
    return Blocked(
        Why.DISK_UNSUPPORTED, f"disk {disk.target} cannot be snapshotted: {found[0]}; name another disk"
    )


def definition_guard(observation: Observation, facts: DiskFacts) -> Blocked | None:
    """Will libvirt write the new layer into the stored definition as well?

    It does so only where that names the active image in the same words (``virStorageSourceIsSameLocation``).
    Elsewhere the next start would use another image than the one that the guest wrote to.
    """
    live, stored = facts.live, facts.inactive
    if live is None or stored is None or not live.layers or not stored.layers:
        return None
    if not (found := difference(live.layers[0].source, stored.layers[0].source)):
        return None
    name, target = quote(observation.name), facts.target
    xpath = quote(f"//disk[target/@dev='{target}']")
    return Blocked(
        Why.DEFINITION_DIFFERS,
        f"the stored definition of disk {target} is not what the machine runs on: {found}. A point that is "
        f"taken now would be missing at the next start. To store what runs: virsh dumpxml {name} "
        f"--xpath {xpath} > {target}.xml && virsh update-device {name} {target}.xml --config. To run what is "
        f"stored: shut the machine down and start it",
    )


def _source_faults(source: Source) -> list[str]:
    """What is against a layer above this image."""
    served = {"vhostuser", "vhostvdpa"}
    parts = ", ".join(source.not_understood)
    faults = [
        (
            source.element().find("encryption") is not None,
            "its image is encrypted, and what the guest writes would go unencrypted to the new layer",
        ),
        (source.type in served, f"it is served by another process ({source.type}), where QEMU has no layers"),
        (source.type == "dir", "it is a directory, not an image"),
        (bool(parts), f"this version of varve does not know {parts} of its source ({source.uri})"),
    ]
    return [text for fault, text in faults if fault]


def foreign_job_guard(facts: DiskFacts) -> Blocked | None:
    """Call only when the journal has no operation on this disk: any job is then somebody else's."""
    live = facts.live
    kind = (
        live.mirror.job
        if live is not None and live.mirror is not None
        else facts.job.kind.value
        if facts.job is not None
        else ""
    )
    if not kind:
        return None
    return Blocked(
        Why.FOREIGN_BLOCK_JOB,
        f"a {kind} job that varve did not start runs on disk {facts.target}; it is left alone, and the work "
        f"goes on when it has ended (virsh blockjob shows it)",
    )


def size_unknown(source: Source) -> Blocked:
    """QEMU told no size of an image that must be known before something is written to it."""
    return Blocked(
        Why.SIZE_UNKNOWN,
        f"libvirt does not tell how large {source.uri} is, and nothing is done before it does (virsh "
        f"domblkinfo and virsh domstats --block --backing show what it tells); it is asked again",
    )


def room_guard(observation: Observation, overlay: Source, policy: Policy) -> Blocked | None:
    """Does enough remain free where a new layer goes, as far as that is known?"""
    free = observation.free.get(overlay.home)
    if free is None or free >= policy.min_free:
        return None
    return Blocked(
        Why.INSUFFICIENT_SPACE,
        f"{overlay.home} has {free} bytes free, and the class keeps {policy.min_free} (minFreeBytes): the "
        f"guest could soon write nothing more to a layer there; delete points, or make room",
    )


def dwindling_guard(observation: Observation, kept: Source, policy: Policy) -> Blocked | None:
    """Does enough remain free while a merge writes to ``kept``?"""
    free = observation.free.get(kept.home)
    if free is None or free >= policy.min_free:
        return None
    return Blocked(
        Why.INSUFFICIENT_SPACE,
        f"the merge into {kept.uri} was ended, because {kept.home} has only {free} bytes free and the class "
        f"keeps {policy.min_free} (minFreeBytes); the chain is as before: make room there",
    )


def lent_guard(observation: Observation, overlay: Source) -> Blocked | None:
    """May the overlay that was made beforehand be used (and be written over)? Only if nothing names it.

    Call with ``claims`` read. An image that has two names (a link, another name of the same server) cannot be
    told from two images.
    """
    claims = observation.claims or {}
    user = next((claims[name] for name in overlay.claimed_as if name in claims), None)
    if user is not None:
        return Blocked(Why.OVERLAY_UNUSABLE, in_use(overlay), detail=f"{user} names it")
    if observation.unasked:
        return Blocked(
            Why.HYPERVISOR_UNREACHABLE,
            f"whether {overlay.uri} is used elsewhere cannot be told while another hypervisor does not "
            f"answer: the point waits for it",
            detail=f"Hypervisor {', '.join(observation.unasked)}",
        )
    return unread(observation, overlay)


def unasked(observation: Observation, source: Source) -> Blocked | None:
    """What is against changing or removing an image on the network while somebody may be reading it."""
    if not observation.unasked:
        return None
    names = ", ".join(observation.unasked)
    return Blocked(
        Why.HYPERVISOR_UNREACHABLE,
        f"whether a machine of another hypervisor reads {source.uri} cannot be told while that does not "
        f"answer: this waits for it",
        detail=f"Hypervisor {names} (if it is gone for good, delete its Hypervisor object)",
    )


def unread(observation: Observation, source: Source) -> Blocked | None:
    """What is against changing or removing an image while a machine does not tell what it uses."""
    if not observation.unread:
        return None
    names = ", ".join(observation.unread)
    return Blocked(
        Why.USERS_UNKNOWN,
        f"whether another machine uses {source.uri} cannot be told, because libvirt does not read its "
        f"definition out while it hangs or migrates: this waits for it; let an administrator look",
        detail=f"machine {names} (virsh domcontrol {quote(names)} says what it is at)",
    )


def in_use(overlay: Source) -> str:
    """What to say of an overlay that somebody names."""
    return (
        f"spec.overlay.source {overlay.uri} is not written over, because it is in use; name another place "
        f"(if what is used is another image of its name, write this one's so that they can be told apart)"
    )


def overlay_required(chain: Disk) -> Blocked:
    """A disk with no place beside its image, and no other place named."""
    source = chain.layers[0].source
    kind = source.protocol or source.type
    return Blocked(
        Why.OVERLAY_REQUIRED,
        f"disk {chain.target} is on {kind} ({source.uri}), which has no place beside it for a layer: "
        f"make a new VolumeSnapshot with spec.overlay.directory, spec.overlay.pool or spec.overlay.source, "
        f"or set overlay in the class",
    )


def unflushed(operation: Operation, target: str) -> Blocked:
    """A pull that completed, and a QEMU that went away before varve made it flush (measured: data lost)."""
    lower = ", ".join(layer.source.uri for layer in operation.merged)
    return Blocked(
        Why.CHAIN_DIVERGED,
        f"a pull on disk {target} ended and the machine stopped before its data was flushed; the lower "
        f"images ({lower}) are kept: docs/operations.md, section Unflushed pull, says how to go on",
    )


def out_of_step(name: str, target: str, top: str) -> Blocked:
    """libvirt does not show what QEMU does (measured, libvirt 9.0: libvirtd was killed inside a snapshot
    call)."""
    what = (
        f"the guest writes to {top}, and libvirt does not know"
        if top
        else "QEMU has fewer layers than it shows"
    )
    return Blocked(
        Why.OUT_OF_STEP,
        f"libvirt lost track of disk {target} when libvirtd ended in the middle of a call: {what}. Nothing "
        f"is lost, and nothing more is done to this disk until {name} is shut down and started once "
        f"(virsh shutdown {quote(name)}; then virsh start {quote(name)}). Do not migrate or save it before",
    )


def lost_track(operation: Operation, name: str, target: str) -> Blocked:
    """A machine that libvirt may have lost (measured, libvirt 9.0: its status file cannot be read any
    more)."""
    kept, merged = operation.kept.source.uri, operation.merged[0].source.uri
    return Blocked(
        Why.OUT_OF_STEP,
        f"libvirtd ended while disk {target} was switched to {kept}, and says now that {name} is shut off. "
        f"Its QEMU may still run: do not start it before you have looked on the hypervisor (pgrep -f "
        f"{quote(f'guest={name},')}). docs/operations.md, section A machine that libvirt lost, says how to "
        f"go on. Nothing is removed; {kept} and {merged} are both kept",
    )


def unsettled(found: Outcome, operation: Operation, name: str, target: str) -> Blocked:
    """An operation whose outcome is neither done nor undone."""
    kind, kept = operation.kind.value, operation.kept.source.uri
    if found is Outcome.LOST_TRACK:
        return lost_track(operation, name, target)
    if found is Outcome.OUT_OF_STEP:
        return out_of_step(name, target, kept)
    if found is Outcome.HALF:
        return Blocked(
            Why.CHAIN_DIVERGED,
            f"the running machine and its persistent definition disagree about disk {target} after a {kind}: "
            f"the definition is being mended (docs/operations.md, section Definitions that disagree)",
        )
    if found is Outcome.UNKNOWN:
        return Blocked(
            Why.CHAIN_UNKNOWN,
            f"libvirt does not show the chain of disk {target} far enough down to tell how a {kind} ended: "
            f"write all layers into the definition (docs/operations.md, section Layers out of sight)",
        )
    return Blocked(
        Why.CHAIN_DIVERGED,
        f"the chain of disk {target} was changed by somebody else while a {kind} (kept image: {kept}) was "
        f"under way; nothing more is done to this disk until the chain fits the record again: put back what "
        f"was changed; docs/operations.md, section A deletion does not end, has the last way out",
    )
