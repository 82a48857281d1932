"""What is concluded from an answer that cannot be read."""

from __future__ import annotations

from controller.hypervisor.errors import HypervisorError, OutcomeUnknown, Unreadable
from controller.hypervisor.texts import odd_word


def misread(error: Exception, what: str, *, changing: bool) -> HypervisorError:
    """What a call came to whose answer libvirt-python, or varve, could not read.

    ``what`` names the call. It was answered, so the connection is well; what it did is not known.
    """
    if isinstance(error, UnicodeDecodeError):
        said = (
            f"libvirt names {odd_word(error)}, which is not UTF-8: rename it, and with it whatever refers to "
            "it (for a backing file: qemu-img rebase -u, while the machine is off)"
        )
    else:
        said = (
            f"libvirt's answer is not understood ({type(error).__name__}: {error}); the controller's log has "
            "the place: please report it, with the versions of libvirt and libvirt-python"
        )
    return (OutcomeUnknown if changing else Unreadable)(f"{what}: {said}")
