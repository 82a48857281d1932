"""libvirt's errors, sorted into the classes of :mod:`controller.hypervisor.errors`.

libvirt's number decides where it is unambiguous. Where one number means several things (8, 9, 38, 55, 67, 84
above all) its words decide, and words that are not known fall to the class that claims least. The words were
observed on libvirt 9.0.0 with QEMU 7.2.22; the tests pin each one to the real daemon or to that observation.
libvirt translates its messages, daemon side included: a daemon with a foreign locale yields
:class:`OperationFailed` where words matter, which is safe and tells less.
"""

from __future__ import annotations

from dataclasses import dataclass

import libvirt

from controller.hypervisor import needs
from controller.hypervisor.errors import (
    AlreadyExists,
    Busy,
    CannotKeepRelative,
    DomainGone,
    DriverMissing,
    FlagUnknown,
    HypervisorError,
    NoSpace,
    NotFound,
    NotReady,
    NotRunning,
    OperationFailed,
    OutcomeUnknown,
    OutOfStep,
    ServiceMissing,
    Unreachable,
    Unsupported,
)

FROM_RPC = libvirt.VIR_FROM_RPC
FROM_REMOTE = libvirt.VIR_FROM_REMOTE
_ANY = ""


@dataclass(frozen=True)
class _Rule:
    """``code`` and a piece of the message (empty: whatever it says) mean ``error``. First match wins."""

    code: int
    words: str
    error: type[HypervisorError]


_RULES = (
    _Rule(libvirt.VIR_ERR_NO_DOMAIN, _ANY, DomainGone),
    _Rule(libvirt.VIR_ERR_NO_STORAGE_POOL, _ANY, NotFound),
    _Rule(libvirt.VIR_ERR_NO_STORAGE_VOL, _ANY, NotFound),
    _Rule(libvirt.VIR_ERR_NO_DOMAIN_METADATA, _ANY, NotFound),
    _Rule(libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT, _ANY, NotFound),
    _Rule(libvirt.VIR_ERR_NO_SUPPORT, _ANY, Unsupported),
    _Rule(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, _ANY, Unsupported),
    _Rule(libvirt.VIR_ERR_RESOURCE_BUSY, _ANY, Busy),
    _Rule(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, "not ready for pivot", NotReady),
    _Rule(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, "active block job", Busy),
    _Rule(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, _ANY, NotReady),
    _Rule(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, "active block job", Busy),
    _Rule(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, "backup", Busy),
    _Rule(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, _ANY, Unsupported),
    _Rule(libvirt.VIR_ERR_OPERATION_TIMEOUT, "state change lock", Busy),
    _Rule(libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running", NotRunning),
    _Rule(libvirt.VIR_ERR_OPERATION_INVALID, "keep relative backing", CannotKeepRelative),
    _Rule(libvirt.VIR_ERR_OPERATION_INVALID, "active block job", Busy),
    _Rule(libvirt.VIR_ERR_INVALID_ARG, "unsupported flags", FlagUnknown),
    _Rule(libvirt.VIR_ERR_INVALID_ARG, "could not find backing store index", NotFound),
    _Rule(libvirt.VIR_ERR_INVALID_ARG, "could not find image", NotFound),
    _Rule(libvirt.VIR_ERR_INVALID_ARG, "not found in domain", NotFound),
    _Rule(libvirt.VIR_ERR_INVALID_ARG, "not assigned to domain", NotFound),
    _Rule(libvirt.VIR_ERR_INVALID_ARG, "does not have an active block job", NotFound),
    _Rule(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "already exists", AlreadyExists),
    _Rule(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "no disk named", NotFound),
    _Rule(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, _ANY, Unsupported),
    _Rule(libvirt.VIR_ERR_OPERATION_FAILED, "File exists", AlreadyExists),
    # After libvirtd died in the middle of a call (measured, libvirt 9.0 and QEMU 7.2).
    _Rule(libvirt.VIR_ERR_INTERNAL_ERROR, "node is used as backing hd of", OutOfStep),
    _Rule(libvirt.VIR_ERR_INTERNAL_ERROR, "Need a root block node", OutOfStep),
    _Rule(libvirt.VIR_ERR_INTERNAL_ERROR, "Cannot find device='' nor node-name=", OutOfStep),
    _Rule(libvirt.VIR_ERR_INTERNAL_ERROR, "is not in this backing file chain", OutOfStep),
    _Rule(libvirt.VIR_ERR_INTERNAL_ERROR, "is in use", Busy),
    *(
        _Rule(code, "No space left on device", NoSpace)
        for code in (
            libvirt.VIR_ERR_INTERNAL_ERROR,
            libvirt.VIR_ERR_OPERATION_FAILED,
            libvirt.VIR_ERR_SYSTEM_ERROR,
        )
    ),
)

_NOTHING_SENT = ("client socket is closed", "Unable to encode message")
"""Errors of the RPC layer that come before the first byte leaves."""

_MACHINE_DIED = ("domain is no longer running", "unexpectedly quit", "from monitor", "from qemu monitor")
"""QEMU ended while it was asked: what it did of a changing call before that is not known."""


def translate(error: libvirt.libvirtError, *, changing: bool) -> HypervisorError:
    """The error class that says what the caller may conclude. ``changing``: the call could have an effect."""
    code = error.get_error_code() or 0
    message = error.get_error_message() or str(error)
    if needs.no_service(message):
        # Of the daemon, although it looks like an error of the line: one of our own would not have got here.
        return ServiceMissing(needs.service_advice(message), code=code)
    driver = needs.block_driver_of(message) if code == libvirt.VIR_ERR_INTERNAL_ERROR else None
    if driver is not None:
        return DriverMissing(f"{message}: {needs.advice(driver)}", code=code)
    kind = _classify(code, error.get_error_domain() or 0, message, changing=changing)
    return kind(message, code=code)


def _classify(code: int, domain: int, message: str, *, changing: bool) -> type[HypervisorError]:
    if domain == FROM_RPC or (domain == FROM_REMOTE and code == libvirt.VIR_ERR_SYSTEM_ERROR):
        return _of_the_line(code, message, changing=changing)
    if changing and any(words in message for words in _MACHINE_DIED):
        return OutcomeUnknown
    for rule in _RULES:
        if rule.code == code and rule.words in message:
            return rule.error
    if changing and code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
        return OutcomeUnknown
    return OperationFailed


def _of_the_line(code: int, message: str, *, changing: bool) -> type[HypervisorError]:
    """An error between here and the daemon, not of the daemon."""
    if "encode message" in message or "encode payload" in message:
        return OperationFailed
    if code == libvirt.VIR_ERR_INVALID_CONN or any(words in message for words in _NOTHING_SENT):
        return Unreachable
    return OutcomeUnknown if changing else Unreachable
