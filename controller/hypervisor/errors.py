"""What can go wrong in a libvirt call, sorted by what the caller can conclude from it.

The one question that decides safety is whether the call may have happened. :class:`OutcomeUnknown` says it
may: everything is read again before anything else is done. All other errors were answered by the daemon: the
call did not take effect.
"""

from __future__ import annotations


class HypervisorError(Exception):
    """Base class. ``code`` is libvirt's error number (0 when it did not come from libvirt).

    ``public`` is what may be told to whoever has a part in the disk, where that is not all of the message.
    """

    public = ""
    """Said of all errors of a class whose messages tell of others."""

    def __init__(self, message: str, *, code: int = 0, public: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.public = public or type(self).public

    @property
    def told(self) -> str:
        """What the objects of tenants say; the whole message is for the log and the Hypervisor."""
        return self.public or self.message


class OutcomeUnknown(HypervisorError):
    """The call may or may not have taken effect: the connection broke or the deadline passed."""


class Unreachable(HypervisorError):
    """There is no connection; nothing was sent."""

    public = "the hypervisor cannot be reached"


class DomainGone(HypervisorError):
    """No domain with this UUID (code 42) on this hypervisor."""


class NotFound(HypervisorError):
    """A disk, layer, pool or other part that does not exist."""


class Busy(HypervisorError):
    """Another job or call holds the domain or the disk (codes 68 and 84). Try later; never abort it."""


class StillOpen(Busy):
    """The storage does not let an image go, most often because somebody has it open. That may pass."""

    public = "it is in use"


class NotReady(HypervisorError):
    """A pivot before the mirror was ready (code 83)."""


class NotRunning(HypervisorError):
    """The operation needs a running domain (code 55, "domain is not running")."""


class Unsupported(HypervisorError):
    """This daemon, QEMU or disk cannot do it, and will not by trying again."""


class CannotKeepRelative(Unsupported):
    """RELATIVE was asked for, but a header in the range holds an absolute name (code 55)."""


class FlagUnknown(Unsupported):
    """This daemon does not know a flag of the call, and has refused it before anything else (code 8)."""


class DriverMissing(Unsupported):
    """QEMU has no driver for the protocol of an image. The message says what brings it."""


class AlreadyExists(HypervisorError):
    """The target image of a snapshot exists already; libvirt left it alone."""


class NoSpace(HypervisorError):
    """The storage is full."""


class NotRemovable(HypervisorError):
    """The image cannot be removed through this libvirt (no storage driver, no permission, not a volume)."""

    public = "it cannot be removed through libvirt"


class NotListable(NotRemovable):
    """What lies in a place cannot be read, so who refers to an image there is not known, and nothing there
    can be removed."""

    public = "what lies where it is cannot be told"


class NoStorageDriver(NotListable):
    """This libvirt has no storage driver for the place. The message says what brings it."""


class ServiceMissing(Unsupported):
    """A daemon that libvirt's own needs does not run, as virtstoraged beside virtqemud."""


class StorageUnreachable(HypervisorError):
    """A storage server that the step needs does not answer; nothing was sent to libvirt."""


class NotExaminable(Unsupported):
    """An image that was made beforehand cannot be looked into, or is not what it was said to be."""

    public = "it is not there, cannot be looked into, or is no empty overlay of this disk"


class Unreadable(HypervisorError):
    """libvirt answered, and the answer cannot be understood: a name that is not UTF-8, a document that is not
    XML, a value that is missing. The connection is well; what it says is as good as unknown."""


class OperationFailed(HypervisorError):
    """libvirt or QEMU refused or failed the call, with its own words."""


class OutOfStep(OperationFailed):
    """QEMU refused the call because its block graph is not the one that libvirt believes in (code 1)."""
