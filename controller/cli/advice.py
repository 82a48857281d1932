"""What to do about each reason: one table, so that no reason is without an answer (held by a test).

The condition's message says what is the matter with this one object; here is what helps in general.
``{…}`` are filled in by :mod:`controller.cli.explanation`; none of them is ever run.
"""

from __future__ import annotations

from controller.api.reasons import Reason

_WAIT = "Nothing: varve is at work. `varve watch` shows how far it is."
_NOTHING = "Nothing."
_TELL = "The message quotes libvirt. Mend what it names; varve tries again by itself."

ADVICE: dict[Reason, tuple[str, ...]] = {
    Reason.IN_SYNC: (_NOTHING,),
    Reason.CONNECTED: (_NOTHING,),
    Reason.RESOLVED: (_NOTHING,),
    Reason.PENDING: (
        "Wait some seconds. If it stays, see whether a controller runs and whether it handles this "
        "hypervisor (--hypervisor-selector).",
    ),
    Reason.CONNECTING: ("Wait some seconds. If it stays: kubectl describe hypervisors",),
    Reason.TAKING: (_WAIT,),
    Reason.SETTLING: ("Nothing: the merge begins by itself after the class's merge.settleSeconds.",),
    Reason.COMMITTING: (_WAIT,),
    Reason.PIVOTING: (_WAIT,),
    Reason.PULLING: (_WAIT,),
    Reason.FLUSHING: (_WAIT,),
    Reason.REMOVING: (_WAIT,),
    Reason.DELETING: (_WAIT,),
    Reason.PROGRESSING_WITH_RETRY: ("Look at the reason of the condition Ready.",),
    Reason.QUEUED: (
        "Nothing: it begins when another job ends. The class's merge.maxConcurrentPerHypervisor allows more.",
    ),
    Reason.SUSPENDED: ("Set spec.suspend to false when varve shall go on.",),
    Reason.DOMAIN_NOT_FOUND: (
        "Define the domain ({domain}), or correct spec.source in a new object: it is immutable.",
        "Look at the other hypervisors: kubectl get hypervisors",
    ),
    Reason.WAITING_FOR_DOMAIN: ("Start it: virsh start {domain}. QEMU does the work, so it must run.",),
    Reason.DOMAIN_PAUSED: (
        "Find the fault: virsh domblkerror {domain}",
        "Mend the storage, then: virsh resume {domain}",
    ),
    Reason.MIGRATING: ("Wait for the migration, or end it: virsh domjobabort {domain}",),
    Reason.DISK_NOT_FOUND: (
        "See which disks it has: virsh domblklist {domain}",
        "Attach it, or correct spec.source in a new object: it is immutable.",
    ),
    Reason.HYPERVISOR_NOT_FOUND: (
        "Make the Hypervisor, or leave out spec.source.hypervisor in a new object: kubectl get hypervisors",
    ),
    Reason.HYPERVISOR_UNREACHABLE: (
        "Mend the connection to libvirtd; nothing is concluded from its silence.",
        "See since when and why: kubectl describe hypervisors",
    ),
    Reason.CLASS_NOT_FOUND: (
        "Make the VolumeSnapshotClass again (it may hold protections), or name another one.",
    ),
    Reason.ACCESS_DENIED: (
        "Ask the administrator for a rule in spec.access of the Hypervisor: namespace {namespace}, domain "
        "{domain}; where spec.overlay names a place, its overlays must give it.",
    ),
    Reason.FOREIGN_BLOCK_JOB: (
        "Wait for the job (virsh blockjob {domain} {disk}), or end it if it is yours: "
        "virsh blockjob {domain} {disk} --abort",
    ),
    Reason.CHAIN_UNKNOWN: (
        "Write all layers into the machine's definition and start it once: docs/operations.md, "
        "Layers out of sight.",
    ),
    Reason.JOURNAL_UNREADABLE: (
        "Look at the record: virsh metadata {domain} https://varve.dev/ns/chain/1",
        "If a newer varve wrote it, run that version. Never delete it: it says whose layers these are.",
    ),
    Reason.JOURNAL_UNTRUSTED: (
        "Look at the record, and find out who changed it: "
        "virsh metadata {domain} https://varve.dev/ns/chain/1",
        "The message says how to go on without it: docs/operations.md, A record that is not believed.",
    ),
    Reason.USERS_UNKNOWN: (
        "Mend the machine or the place that the events of the Hypervisor name; until libvirt can read it, "
        "nothing is written to an image that somebody may be reading.",
    ),
    Reason.INSUFFICIENT_SPACE: ("Make room on the storage, or lower minFreeBytes of the class.",),
    Reason.STORAGE_UNREACHABLE: ("Mend the storage that the message names; it is asked again.",),
    Reason.SIZE_UNKNOWN: (
        "Wait some seconds. If it stays: virsh domblkinfo {domain} {disk}, and look at its storage.",
    ),
    Reason.CHAIN_TOO_LONG: (
        "Delete points that nobody needs (varve tree), or raise maxLayers of the class.",
        "Where the message names libvirt, maxLayers does not help: docs/operations.md, A chain that does not "
        "start again.",
    ),
    Reason.QUOTA_EXCEEDED: (
        "Delete objects of the disk that nobody needs (varve tree); this one goes on by itself then.",
    ),
    Reason.FAILED: (_TELL,),
    Reason.INVALID_SPEC: ("Write what the message says, in a new object where the field is immutable.",),
    Reason.NOT_UNDERSTOOD: (
        "Upgrade the controller: it is older than the CRD. Or take away the field that the message names.",
    ),
    Reason.INVALID_URI: ("Correct spec.uri of the Hypervisor as the message says.",),
    Reason.DOMAIN_AMBIGUOUS: (
        "Make a new object with spec.source.hypervisor or spec.source.domainUUID, and delete this one.",
    ),
    Reason.DOMAIN_REPLACED: (
        "The point was of a machine that is gone. Delete this object; make a new one for the new machine.",
    ),
    Reason.DISK_UNSUPPORTED: ("Delete this object: such a disk can have no points. The message says why.",),
    Reason.UNSUPPORTED_TOPOLOGY: (
        "Take away what the message names, such as a snapshot or checkpoint: virsh snapshot-list {domain}",
    ),
    Reason.CAPABILITY_MISSING: ("Install the package that the message names on the hypervisor.",),
    Reason.OVERLAY_REQUIRED: (
        "Make a new object with spec.overlay (directory, pool or source), or set overlay in the class.",
    ),
    Reason.OVERLAY_NOT_AS_VERIFIED: (
        "Find out who else writes to the place that spec.overlay.source names, or who serves it; then name "
        "another one.",
        "What was found is in the controller's log.",
    ),
    Reason.OVERLAY_UNUSABLE: (
        "Mend the place that spec.overlay.source names, or make a new object with another one.",
    ),
    Reason.IMAGE_PROTECTED: (
        "The message names the image, and the events of the Hypervisor who else uses it. Let that go first, "
        "or keep the layer: set deletionPolicy: Retain.",
    ),
    Reason.IMAGE_NOT_REMOVABLE: ("The data is safe. Remove the image that the message names by hand.",),
    Reason.FOREIGN_OWNER: (
        "Leave it to the other cluster. If that is gone for good, list its identity in spec.takeOverFrom of "
        "the Hypervisor.",
    ),
    Reason.AWAITING_APPROVAL: (
        "Look at the plan: varve plan {chain} -n {namespace}",
        "Agree to it: varve approve {chain} -n {namespace}, or commit its hash as spec.approvedPlan.",
    ),
    Reason.NOT_CONVERGING: (
        "The guest writes faster than the copy goes. Let it write less, or raise the class's "
        "merge.bandwidthBytesPerSecond or merge.convergence.",
    ),
    Reason.LAYER_NOT_FOUND: (
        "See which layers there are (varve tree), and make a new object: spec.adopt is immutable. "
        "varve adopt {chain} writes it for you.",
    ),
    Reason.LAYER_AMBIGUOUS: ("Name it in full, as varve tree prints it, in a new object.",),
    Reason.LAYER_ACTIVE: (
        "Only a frozen layer is a point. Leave out spec.adopt in a new object to take a new point.",
    ),
    Reason.DRIFTED: (
        "See what changed: varve tree. Nothing is lost by it; what is new is kept.",
        "If it shall be so: kubectl patch vvc/{chain} -n {namespace} --type merge "
        '-p \'{{"spec":{{"onDrift":"Adopt"}}}}\'',
    ),
    Reason.SUPERSEDED: ("Delete one of the two VolumeChains; the message names the other.",),
    Reason.LIBVIRT_OUT_OF_STEP: (
        "Shut the machine down and start it once: virsh shutdown {domain}; then virsh start {domain}",
        "Do not migrate, save or kill it before. Nothing is lost; the message names the image in use.",
        "If libvirt says that it is off: docs/operations.md, section A machine that libvirt lost.",
    ),
    Reason.DEFINITION_DIFFERS: (
        "The message gives the command that stores what runs.",
        "If the stored definition is what you want: virsh shutdown {domain}; then virsh start {domain}",
    ),
    Reason.CHAIN_DIVERGED: (
        "Somebody else changed the chain, and varve keeps all images: docs/operations.md, Unflushed pull and "
        "Definitions that disagree.",
    ),
    Reason.LOST: (
        "The point is gone and cannot come back. Delete this object; take a new point if you want one.",
    ),
}

DELETION = (
    "To let the object go and keep the layer in the chain: kubectl patch {resource}/{name} -n {namespace} "
    '--type merge -p \'{{"spec":{{"deletionPolicy":"Retain"}}}}\'',
)
"""For every VolumeSnapshot whose deletion waits."""

NO_CONTROLLER = (
    "No controller has looked at it. See whether one runs (kubectl get pods -n varve-system) and whether its "
    "--hypervisor-selector matches a Hypervisor: kubectl get hypervisors",
)


def advice(reason: str) -> tuple[str, ...]:
    """What to do; for a reason of a version that is newer than this program, where to look."""
    try:
        return ADVICE[Reason(reason)]
    except (KeyError, ValueError):
        return ("This program is older than the controller and does not know the reason: docs/api.md",)


def meaning(reason: str) -> str:
    """The sentence that documents the reason; empty for one of a newer version."""
    try:
        return Reason(reason).sentence
    except ValueError:
        return ""
