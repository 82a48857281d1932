"""Every reason a condition may carry. They are part of the API: scripts and alerts match on them.

Each member is its name, followed by the sentence that ``docs/api.md`` prints for it.
"""

from enum import StrEnum


class Reason(StrEnum):
    """A condition's ``reason``: CamelCase, stable, with one sentence of explanation in :attr:`sentence`."""

    sentence: str

    def __new__(cls, value: str, sentence: str = "") -> "Reason":
        """Make a member that is the string ``value`` and remembers its ``sentence``."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member

    # The good ends.
    IN_SYNC = "InSync", "The live chain is as declared: the point exists and can be read back."
    CONNECTED = "Connected", "The hypervisor answers and sends its events."
    RESOLVED = "Resolved", "The source names exactly one disk of one domain that the namespace may use."

    # Working on it.
    PENDING = "Pending", "Seen, and not looked at on the hypervisor yet."
    CONNECTING = "Connecting", "A connection to the hypervisor is being made."
    TAKING = "Taking", "A new overlay is being put on top of the disk, which freezes the layer below."
    SETTLING = (
        "Settling",
        "The merge waits the class's settleSeconds, so that deletions close together cost one job.",
    )
    COMMITTING = "Committing", "Upper layers are being copied down into the lowest layer of the range."
    PIVOTING = "Pivoting", "The copy is complete and QEMU is switching the disk to the lower layer."
    PULLING = "Pulling", "Lower layers are being copied up into the active layer."
    FLUSHING = (
        "Flushing",
        "The pull is complete and QEMU is being made to write its metadata to stable storage.",
    )
    REMOVING = "Removing", "The merge is durable and the image that is no longer needed is being removed."
    DELETING = "Deleting", "The object is being deleted and its layer is being merged away or released."
    PROGRESSING_WITH_RETRY = (
        "ProgressingWithRetry",
        "Something is in the way that may pass; Ready says what, and the next try is planned.",
    )
    QUEUED = (
        "Queued",
        "Another job must end first: as many run as the class allows, or another disk is pulled.",
    )
    SUSPENDED = "Suspended", "spec.suspend is true: the object and its layer are left alone."

    # Waiting for something outside that may come by itself.
    DOMAIN_NOT_FOUND = (
        "DomainNotFound",
        "No connected hypervisor that the namespace may use has such a domain.",
    )
    WAITING_FOR_DOMAIN = "WaitingForDomain", "The domain is not running; the work goes on when it is started."
    DOMAIN_PAUSED = (
        "DomainPaused",
        "The domain is paused by an I/O error; the work goes on when it runs again.",
    )
    MIGRATING = "Migrating", "The domain is being migrated; the work goes on when it has arrived."
    DISK_NOT_FOUND = "DiskNotFound", "The domain has no disk with this target device."
    HYPERVISOR_NOT_FOUND = (
        "HypervisorNotFound",
        "No Hypervisor object has the name that spec.source.hypervisor gives.",
    )
    HYPERVISOR_UNREACHABLE = (
        "HypervisorUnreachable",
        "The hypervisor does not answer; nothing is concluded from that, and connecting is tried again.",
    )
    CLASS_NOT_FOUND = "ClassNotFound", "The VolumeSnapshotClass that is named does not exist."
    ACCESS_DENIED = (
        "AccessDenied",
        "The namespace may not use this domain, this place for a layer, or the layer that spec.adopt names.",
    )
    FOREIGN_BLOCK_JOB = (
        "ForeignBlockJob",
        "A block job that varve did not start runs on the disk; it is left alone.",
    )
    CHAIN_UNKNOWN = "ChainUnknown", "The backing chain cannot be read to its end, so nothing is changed."
    JOURNAL_UNREADABLE = (
        "JournalUnreadable",
        "The record in the domain's metadata cannot be read, so nobody's layer is touched.",
    )
    JOURNAL_UNTRUSTED = (
        "JournalUntrusted",
        "The record in the domain's metadata is not as varve left it, so nothing is done by it.",
    )
    USERS_UNKNOWN = (
        "UsersUnknown",
        "Who else uses an image cannot be told: the Hypervisor's events name what cannot be read.",
    )
    INSUFFICIENT_SPACE = "InsufficientSpace", "The storage has less free space than minFreeBytes asks for."
    STORAGE_UNREACHABLE = (
        "StorageUnreachable",
        "The storage that a step needs does not answer; the message names the server, which is asked again.",
    )
    NOT_CONVERGING = (
        "NotConverging",
        "The guest writes faster than its layer is committed: that was given up, and is tried again later.",
    )
    SIZE_UNKNOWN = (
        "SizeUnknown",
        "libvirt does not tell how large an image is; what depends on that waits, and it is asked again.",
    )
    CHAIN_TOO_LONG = (
        "ChainTooLong",
        "The chain has as many layers as maxLayers or this libvirt allows, or too many for its machine to "
        "start again.",
    )
    QUOTA_EXCEEDED = (
        "QuotaExceeded",
        "The namespace has as many objects of this disk or machine as are acted on at a time; this one waits "
        "for its turn.",
    )
    FAILED = "Failed", "A call to the hypervisor failed; the message quotes it, and it is tried again."

    # A person is needed.
    INVALID_SPEC = (
        "InvalidSpec",
        "The spec says something that this version cannot do; the message says what to write.",
    )
    NOT_UNDERSTOOD = (
        "NotUnderstood",
        "The object, or one that it needs, has something that this version does not know: upgrade it.",
    )
    INVALID_URI = "InvalidURI", "The Hypervisor's URI is refused; the message says what to write instead."
    DOMAIN_AMBIGUOUS = (
        "DomainAmbiguous",
        "More than one domain has this name; name the hypervisor or the UUID.",
    )
    DOMAIN_REPLACED = (
        "DomainReplaced",
        "The domain of this name has another UUID than the one the point was taken of.",
    )
    DISK_UNSUPPORTED = (
        "DiskUnsupported",
        "The disk cannot have points: it is empty, read-only, shareable, transient or of an unknown type.",
    )
    UNSUPPORTED_TOPOLOGY = (
        "UnsupportedTopology",
        "The chain has something that cannot be merged safely, such as a snapshot that crosses the range.",
    )
    CAPABILITY_MISSING = (
        "CapabilityMissing",
        "The hypervisor lacks a driver that the disk needs; the message says which package brings it.",
    )
    OVERLAY_REQUIRED = (
        "OverlayRequired",
        "The disk has no place beside its image for a new layer; spec.overlay or the class must name one.",
    )
    OVERLAY_UNUSABLE = (
        "OverlayUnusable",
        "What spec.overlay.source names is used by somebody, or does not hold what content: Prepared says.",
    )
    OVERLAY_NOT_AS_VERIFIED = (
        "OverlayNotAsVerified",
        "QEMU opened something else at spec.overlay.source than was verified there; it is undone and not "
        "used again.",
    )
    IMAGE_PROTECTED = (
        "ImageProtected",
        "The merge would write to an image that is shared, protected or read-only.",
    )
    IMAGE_NOT_REMOVABLE = (
        "ImageNotRemovable",
        "The merge is done and the image it left over cannot be removed; it is named in the message.",
    )
    FOREIGN_OWNER = (
        "ForeignOwner",
        "The disk is in the care of another cluster, whose identity the Hypervisor's events give.",
    )
    AWAITING_APPROVAL = (
        "AwaitingApproval",
        "The VolumeChain says approval: Manual, and the plan in its status is not approved.",
    )
    LAYER_NOT_FOUND = "LayerNotFound", "The layer that spec.adopt names is not a frozen layer of the disk."
    LAYER_AMBIGUOUS = "LayerAmbiguous", "The layer that spec.adopt names is more than one layer of the disk."
    LAYER_ACTIVE = "LayerActive", "The layer that spec.adopt names is the one that the guest writes to."
    DRIFTED = (
        "Drifted",
        "Somebody else changed the chain; status.drift says what, and onDrift: Adopt takes it as it is.",
    )
    SUPERSEDED = "Superseded", "Another VolumeChain of the same disk counts; the message names it."
    CHAIN_DIVERGED = (
        "ChainDiverged",
        "The live chain was changed by someone else and no longer fits the record.",
    )
    LIBVIRT_OUT_OF_STEP = (
        "LibvirtOutOfStep",
        "libvirtd ended in the middle of a call and shows another chain than QEMU has; a restart mends it.",
    )
    DEFINITION_DIFFERS = (
        "DefinitionDiffers",
        "The stored definition is not what the machine runs on, so a new point would be missing later.",
    )
    LOST = (
        "Lost",
        "The layer was taken away by hand; the point is not taken again, because it would be another moment.",
    )
