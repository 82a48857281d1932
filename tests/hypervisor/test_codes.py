"""libvirt's errors as varve sorts them: each row was observed on libvirt 9.0.0 with QEMU 7.2.22."""

from __future__ import annotations

import re

import libvirt
import pytest

from controller.hypervisor import errors
from controller.hypervisor.codes import translate
from controller.hypervisor.misread import misread

QEMU, DOMAIN, STORAGE, RPC, UTIL = (
    libvirt.VIR_FROM_QEMU,
    libvirt.VIR_FROM_DOMAIN,
    libvirt.VIR_FROM_STORAGE,
    libvirt.VIR_FROM_RPC,
    libvirt.VIR_FROM_NONE,
)

ANSWERED = [
    (42, QEMU, "Domain not found: no domain with matching uuid '9b4d'", errors.DomainGone),
    (68, QEMU, "Timed out during operation: cannot acquire state change lock (held by x)", errors.Busy),
    (84, QEMU, "Operation not supported: disk 'vda' already in active block job", errors.Busy),
    (83, QEMU, "block copy still active: disk 'vda' already in active block job", errors.Busy),
    (83, QEMU, "block copy still active: block job 'commit-vda' not ready for pivot yet", errors.NotReady),
    (84, QEMU, "backing chains more than 200 layers deep are not supported", errors.Unsupported),
    (55, DOMAIN, "Requested operation is not valid: domain is not running", errors.NotRunning),
    (55, QEMU, "… can't keep relative backing relationship", errors.CannotKeepRelative),
    (55, QEMU, "Requested operation is not valid: domain has active block job", errors.Busy),
    (55, QEMU, "Requested operation is not valid: something new", errors.OperationFailed),
    (8, QEMU, "invalid argument: disk 'vdq' not found in domain", errors.NotFound),
    (8, STORAGE, "could not find backing store index '4' in chain for 'vda'", errors.NotFound),
    (8, STORAGE, "could not find image 'gv0/s5.qcow2' in chain for 'vda'", errors.NotFound),
    (8, QEMU, "invalid path vda[1] not assigned to domain", errors.NotFound),
    (8, QEMU, "disk vda does not have an active block job", errors.NotFound),
    (8, QEMU, "unsupported flags (0x20) in function qemuDomainBlockCommit", errors.FlagUnknown),
    (8, QEMU, "commit of 'vda' active layer requires active flag", errors.OperationFailed),
    (67, QEMU, "external snapshot file for disk vda already exists and is not …", errors.AlreadyExists),
    (67, QEMU, "unsupported configuration: no disk named 'vdq'", errors.NotFound),
    (67, QEMU, "format for disk vda is unsupported: raw", errors.Unsupported),
    (9, QEMU, "failed to format image: 'error rbd create: File exists'", errors.AlreadyExists),
    (9, QEMU, "failed to format image: 'error connecting: Operation not supported'", errors.OperationFailed),
    (74, QEMU, "argument unsupported: QEMU guest agent is not configured", errors.Unsupported),
    (86, QEMU, "Guest agent is not responding: not connected", errors.OperationFailed),
    (1, QEMU, "'block-commit': Could not write: No space left on device", errors.NoSpace),
    (38, UTIL, "cannot write: No space left on device", errors.NoSpace),
    (
        1,
        QEMU,
        "unable to execute QEMU command 'block-commit': Block node is read-only",
        errors.OperationFailed,
    ),
    (1, QEMU, "Device '(null)' is in use", errors.Busy),
    (38, UTIL, "failed to initialize gluster connection", errors.OperationFailed),
    (49, STORAGE, "Storage pool not found", errors.NotFound),
    (50, STORAGE, "Storage volume not found", errors.NotFound),
    (80, DOMAIN, "metadata not found", errors.NotFound),
    (3, UTIL, "this function is not supported by the connection driver", errors.Unsupported),
    (39, RPC, "Unable to encode message payload", errors.OperationFailed),
    (999, QEMU, "a number of the future", errors.OperationFailed),
]


def libvirt_error(code: int, domain: int, message: str) -> libvirt.libvirtError:
    error = libvirt.libvirtError(message)
    error.err = (code, domain, message, 2, None, None, None, -1, -1)
    return error


@pytest.mark.parametrize("changing", [False, True], ids=["reading", "changing"])
@pytest.mark.parametrize(("code", "domain", "message", "kind"), ANSWERED)
def test_an_answer_means_the_same_for_every_call(
    code: int, domain: int, message: str, kind: type[errors.HypervisorError], changing: bool
) -> None:
    translated = translate(libvirt_error(code, domain, message), changing=changing)
    assert type(translated) is kind
    assert (translated.code, translated.message) == (code, message)


@pytest.mark.parametrize(
    ("code", "domain", "message"),
    [
        (38, RPC, "Cannot recv data: Connection reset by peer"),
        (38, RPC, "End of file while reading data: Input/output error"),
        (1, RPC, "internal error: connection closed due to keepalive timeout"),
        (1, RPC, "internal error: received hangup event on socket"),
    ],
)
def test_a_broken_line_leaves_a_change_unknown(code: int, domain: int, message: str) -> None:
    error = libvirt_error(code, domain, message)
    assert type(translate(error, changing=True)) is errors.OutcomeUnknown
    assert type(translate(error, changing=False)) is errors.Unreachable


def test_a_closed_socket_sends_nothing() -> None:
    error = libvirt_error(1, RPC, "internal error: client socket is closed")
    assert type(translate(error, changing=True)) is errors.Unreachable


@pytest.mark.parametrize(
    "message",
    [
        "internal error: End of file from qemu monitor",
        "Unable to read from monitor: Connection reset by peer",
        "operation failed: domain is no longer running",
    ],
)
def test_a_machine_that_died_in_a_change_leaves_it_unknown(message: str) -> None:
    error = libvirt_error(9, QEMU, message)
    assert type(translate(error, changing=True)) is errors.OutcomeUnknown
    assert type(translate(error, changing=False)) is errors.OperationFailed


def test_an_unknown_timeout_of_a_change_leaves_it_unknown() -> None:
    error = libvirt_error(68, QEMU, "Timed out during operation: waiting for something else")
    assert type(translate(error, changing=True)) is errors.OutcomeUnknown


@pytest.mark.parametrize("changing", [False, True], ids=["reading", "changing"])
def test_b8_a_daemon_beside_that_does_not_run_is_no_broken_line(changing: bool) -> None:
    """B8: what virtqemud 11.3.0 answers to each call about storage (and secrets) without virtstoraged."""
    words = "Failed to connect socket to '/var/run/libvirt/virtstoraged-sock': No such file or directory"
    found = translate(libvirt_error(38, RPC, words), changing=changing)
    assert type(found) is errors.ServiceMissing
    assert words in found.message
    assert "systemctl enable --now virtstoraged.socket" in found.message


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            UnicodeDecodeError("utf-8", b"<path>/i/caf\xe9.iso</path>", 12, 13, "bad"),
            r"/i/caf\\xe9\.iso, .* rename",
        ),
        (KeyError("block.0.name"), "KeyError: 'block.0.name'.*report"),
        (TypeError("'NoneType' object is not subscriptable"), "TypeError: 'NoneType'"),
        (OverflowError("too large"), "OverflowError: too large"),
    ],
    ids=["bytes", "missing", "none", "large"],
)
def test_b6_whatever_else_the_binding_raises_says_what_may_be_concluded(raised: Exception, said: str) -> None:
    """B6: libvirt-python raises more than its own error."""
    read, changed = misread(raised, "reading x", changing=False), misread(raised, "the x", changing=True)
    assert type(read) is errors.Unreadable
    assert type(changed) is errors.OutcomeUnknown
    for found in (read, changed):
        assert re.search(said, found.message)
    assert read.message.startswith("reading x: ")
