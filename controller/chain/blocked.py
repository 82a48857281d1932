"""Why something does not happen now: a reason with words for people, and what ends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Why(StrEnum):
    """Why something does not happen now. The values are reasons of the API (held by a test)."""

    WAITING_FOR_DOMAIN = "WaitingForDomain"
    DOMAIN_PAUSED = "DomainPaused"
    MIGRATING = "Migrating"
    DISK_NOT_FOUND = "DiskNotFound"
    DISK_UNSUPPORTED = "DiskUnsupported"
    OVERLAY_REQUIRED = "OverlayRequired"
    OVERLAY_UNUSABLE = "OverlayUnusable"
    OVERLAY_NOT_AS_VERIFIED = "OverlayNotAsVerified"
    HYPERVISOR_UNREACHABLE = "HypervisorUnreachable"
    CHAIN_TOO_LONG = "ChainTooLong"
    CHAIN_UNKNOWN = "ChainUnknown"
    CHAIN_DIVERGED = "ChainDiverged"
    OUT_OF_STEP = "LibvirtOutOfStep"
    DEFINITION_DIFFERS = "DefinitionDiffers"
    FOREIGN_BLOCK_JOB = "ForeignBlockJob"
    FOREIGN_OWNER = "ForeignOwner"
    JOURNAL_UNREADABLE = "JournalUnreadable"
    JOURNAL_UNTRUSTED = "JournalUntrusted"
    IMAGE_PROTECTED = "ImageProtected"
    USERS_UNKNOWN = "UsersUnknown"
    UNSUPPORTED_TOPOLOGY = "UnsupportedTopology"
    STORAGE_UNREACHABLE = "StorageUnreachable"
    CAPABILITY_MISSING = "CapabilityMissing"
    QUEUED = "Queued"
    NOT_CONVERGING = "NotConverging"
    INSUFFICIENT_SPACE = "InsufficientSpace"
    SETTLING = "Settling"
    AWAITING_APPROVAL = "AwaitingApproval"
    NOT_UNDERSTOOD = "NotUnderstood"
    ACCESS_DENIED = "AccessDenied"
    LAYER_NOT_FOUND = "LayerNotFound"
    LAYER_AMBIGUOUS = "LayerAmbiguous"
    LAYER_ACTIVE = "LayerActive"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    LOST = "Lost"
    SIZE_UNKNOWN = "SizeUnknown"


class Ends(StrEnum):
    """What ends a reason to wait."""

    ITSELF = "itself"
    """It passes: time, another job, a machine or a server that comes back. What is agreed to does not depend
    on it."""
    CHANGE = "change"
    """Something else is declared or becomes known; that may be on its way, so nobody is called."""
    PERSON = "person"
    """It stays until a person does what the message says: Stalled."""


ENDS: Mapping[Why, Ends] = {
    Why.WAITING_FOR_DOMAIN: Ends.ITSELF,
    Why.DOMAIN_PAUSED: Ends.ITSELF,
    Why.MIGRATING: Ends.ITSELF,
    Why.DISK_NOT_FOUND: Ends.CHANGE,
    Why.DISK_UNSUPPORTED: Ends.PERSON,
    Why.OVERLAY_REQUIRED: Ends.PERSON,
    Why.OVERLAY_UNUSABLE: Ends.PERSON,
    Why.OVERLAY_NOT_AS_VERIFIED: Ends.PERSON,
    Why.HYPERVISOR_UNREACHABLE: Ends.ITSELF,
    Why.USERS_UNKNOWN: Ends.ITSELF,
    Why.CHAIN_TOO_LONG: Ends.PERSON,
    Why.CHAIN_UNKNOWN: Ends.CHANGE,
    Why.CHAIN_DIVERGED: Ends.PERSON,
    Why.OUT_OF_STEP: Ends.PERSON,
    Why.DEFINITION_DIFFERS: Ends.PERSON,
    Why.NOT_UNDERSTOOD: Ends.PERSON,
    Why.FOREIGN_BLOCK_JOB: Ends.ITSELF,
    Why.FOREIGN_OWNER: Ends.PERSON,
    Why.JOURNAL_UNREADABLE: Ends.PERSON,
    Why.JOURNAL_UNTRUSTED: Ends.PERSON,
    Why.IMAGE_PROTECTED: Ends.PERSON,
    Why.UNSUPPORTED_TOPOLOGY: Ends.PERSON,
    Why.STORAGE_UNREACHABLE: Ends.ITSELF,
    Why.CAPABILITY_MISSING: Ends.PERSON,
    Why.QUEUED: Ends.ITSELF,
    Why.NOT_CONVERGING: Ends.ITSELF,
    Why.INSUFFICIENT_SPACE: Ends.ITSELF,
    Why.SETTLING: Ends.ITSELF,
    Why.AWAITING_APPROVAL: Ends.PERSON,
    Why.ACCESS_DENIED: Ends.PERSON,
    Why.LAYER_NOT_FOUND: Ends.PERSON,
    Why.LAYER_AMBIGUOUS: Ends.PERSON,
    Why.LAYER_ACTIVE: Ends.PERSON,
    Why.FAILED: Ends.ITSELF,
    Why.SUSPENDED: Ends.CHANGE,
    Why.LOST: Ends.PERSON,
    Why.SIZE_UNKNOWN: Ends.ITSELF,
}
"""One row for each reason (held by a test)."""


@dataclass(frozen=True)
class Blocked:
    """A verdict: ``why`` is for machines, ``message`` says to a person what is in the way and what to do."""

    why: Why
    message: str
    ends: bool = False
    """What ends it is under way: no person is needed, whatever ``why`` says."""
    detail: str = ""
    """What ``message`` leaves out because it tells of others; for the log and the Hypervisor's events."""
    own: tuple[tuple[str, str], ...] = ()
    """By namespace: what is said there instead of ``message``, because it is theirs."""

    def to(self, namespace: str) -> Blocked:
        """As it is told in one namespace."""
        if not self.own:
            return self
        return replace(self, message=dict(self.own).get(namespace, self.message), own=())

    @property
    def whole(self) -> str:
        """All of it, for those who look after the hypervisors."""
        texts = (self.message, *dict(self.own).values(), self.detail)
        return ": ".join(dict.fromkeys(text for text in texts if text))

    @property
    def lasting(self) -> bool:
        """False when it ends by itself."""
        return ENDS[self.why] is not Ends.ITSELF

    @property
    def passing(self) -> bool:
        """True when it ends by itself and soon, so that nothing worse is done meanwhile."""
        return self.why in (
            Why.QUEUED,
            Why.NOT_CONVERGING,
            Why.HYPERVISOR_UNREACHABLE,
            Why.USERS_UNKNOWN,
        )
