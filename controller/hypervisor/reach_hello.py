"""What a storage server says first, or answers to a harmless question. Pure bytes, no I/O.

A connection that the kernel accepts proves nothing: it also accepts for a process that is stopped. Only bytes
that the server itself sent do. The questions change nothing on the server, log nobody in and need no secret.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

_NBD_OPTIONS = b"IHAVEOPT"
_NBD_ABORT = 2
_NBD_FIXED_NEWSTYLE_NO_ZEROES = 3

_RPC_XID = 0x76617276
_RPC_CALL, _RPC_REPLY, _RPC_VERSION = 0, 1, 2
_GLUSTER_DUMP_PROGRAM, _GLUSTER_DUMP_VERSION = 123451501, 1

_ISCSI_LOGIN, _ISCSI_IMMEDIATE = 0x03, 0x40
_ISCSI_LOGIN_RESPONSE, _ISCSI_REJECT = 0x23, 0x3F
_ISCSI_RANDOM_ISID = b"\x80\x76\x61\x72\x00\x00"


@dataclass(frozen=True)
class Hello:
    """One protocol. ``say`` is sent first, then ``size`` bytes are awaited, which the protocol's server sends
    at least; ``fits`` tells whether they are of it, and ``bye`` ends the talk in good manners.

    ``may_close``: a server that ends the connection instead of answering is alive as well.
    """

    size: int
    fits: Callable[[bytes], bool]
    say: bytes = b""
    bye: Callable[[bytes], bytes] = lambda _: b""
    may_close: bool = False


def _nbd_bye(greeting: bytes) -> bytes:
    """Newstyle: say that nothing is wanted (NBD protocol, NBD_OPT_ABORT), or qemu-nbd prints an error. It is
    allowed before STARTTLS. A qemu-nbd without ``--persistent`` counts only clients that chose an export."""
    if greeting[8:16] != _NBD_OPTIONS:
        return b""
    return struct.pack(">I8sII", _NBD_FIXED_NEWSTYLE_NO_ZEROES, _NBD_OPTIONS, _NBD_ABORT, 0)


def _gluster_question() -> bytes:
    """ONC RPC (RFC 5531) procedure 0, which does nothing, of the program that every gluster daemon has."""
    call = struct.pack(
        ">10I",
        _RPC_XID,
        _RPC_CALL,
        _RPC_VERSION,
        _GLUSTER_DUMP_PROGRAM,
        _GLUSTER_DUMP_VERSION,
        0,
        *(0, 0),  # no credentials
        *(0, 0),  # no verifier
    )
    return struct.pack(">I", 0x80000000 | len(call)) + call


def _gluster_fits(answer: bytes) -> bool:
    """Accepted or not: a reply to our call comes from a daemon that lives."""
    return answer[4:12] == struct.pack(">II", _RPC_XID, _RPC_REPLY)


def _iscsi_question() -> bytes:
    """A login request (RFC 7143, 11.12) for a discovery session, without the bit that would end the first
    stage: the target answers, whatever it thinks of us, and no session comes to be."""
    text = b"InitiatorName=iqn.2026-11.dev.varve:reach\0SessionType=Discovery\0AuthMethod=None\0"
    header = bytes([_ISCSI_LOGIN | _ISCSI_IMMEDIATE, 0, 0, 0]) + struct.pack(">I", len(text))
    header += _ISCSI_RANDOM_ISID + bytes(2) + struct.pack(">I", _RPC_XID)
    return header.ljust(48, b"\0") + text + bytes(-len(text) % 4)


def _iscsi_fits(answer: bytes) -> bool:
    return answer[0] in {_ISCSI_LOGIN_RESPONSE, _ISCSI_REJECT}


HELLOS = {
    # https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md: the server speaks first, also when
    # it will ask for TLS.
    "nbd": Hello(16, lambda answer: answer.startswith(b"NBDMAGIC"), bye=_nbd_bye),
    # Ceph, src/include/msgr.h and src/msg/async/ProtocolV2.cc: "ceph v027" or "ceph v2\n", sent at once.
    "rbd": Hello(8, lambda answer: answer.startswith(b"ceph v")),
    "gluster": Hello(12, _gluster_fits, say=_gluster_question()),
    "iscsi": Hello(48, _iscsi_fits, say=_iscsi_question()),
    "http": Hello(5, lambda answer: answer == b"HTTP/", say=b"HEAD / HTTP/1.0\r\n\r\n"),
    # Not TLS on purpose: it is answered by an alert, an error page or the end, and each proves life.
    "https": Hello(1, lambda _: True, say=b"HEAD / HTTP/1.0\r\n\r\n", may_close=True),
}
"""By libvirt's name of the protocol. One that is not here is not asked."""
