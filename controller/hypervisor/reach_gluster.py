"""The questions by which a gluster daemon tells where the bricks of a volume are. Pure bytes, no I/O.

A client of gluster asks the daemon once and then talks to the bricks: so a daemon that lives says nothing of
them. The programs and numbers are those of rpc/rpc-lib/src/protocol-common.h and of rpc/xdr/src/glusterfs3.x
and portmap.x in gluster's sources. Nothing is changed and no secret is needed; the volume's description
(GETSPEC) holds the login of its clients, of which nothing is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

MOST = 1 << 20
"""Bytes of a reply at most. A brick takes some 700 of the description."""
MOST_BRICKS = 128
"""The bricks of a volume of more are not asked."""
HEAD = 4
"""Bytes of a record's mark (RFC 5531, 11): its length and whether it is the last one of the reply."""

_XID = 0x76617273
_CALL, _REPLY, _RPC_VERSION = 0, 1, 2
_HANDSHAKE, _HANDSHAKE_VERSION, _GETSPEC = 14398633, 2, 2
_PORTMAP, _PORTMAP_VERSION, _PORT_BY_BRICK = 34123456, 1, 1
_LAST = 0x80000000
_REPLY_HEAD = struct.Struct(">6I")
_OPERATION_VERSIONS = {"min-op-version": "1", "max-op-version": "1000000"}
"""What a client says that it understands; glusterd refuses one that says nothing (measured: 10.3)."""


@dataclass(frozen=True)
class Brick:
    """One brick: the host whose glusterd knows its port, and its directory there."""

    host: str
    path: str


@dataclass(frozen=True)
class Needs:
    """So many of the parts have to answer for the volume to go on."""

    count: int
    parts: tuple[Needs | Brick, ...]

    @property
    def bricks(self) -> tuple[Brick, ...]:
        """All bricks, each once, in order."""
        found: dict[Brick, None] = {}
        for part in self.parts:
            found |= dict.fromkeys((part,) if isinstance(part, Brick) else part.bricks)
        return tuple(found)

    def met(self, answers: Callable[[Brick], bool]) -> bool:
        """Whether enough of them answer."""
        good = (answers(part) if isinstance(part, Brick) else part.met(answers) for part in self.parts)
        return sum(good) >= self.count


class NotUnderstood(Exception):
    """The reply is none, a refusal, or describes what is not known here."""


def volume_question(volume: str) -> bytes:
    """Ask for the description of a volume, as its clients do first (GETSPEC)."""
    said = struct.pack(">I", len(_OPERATION_VERSIONS))
    for key, value in _OPERATION_VERSIONS.items():  # libglusterfs/src/dict.c: both end with a zero byte
        said += struct.pack(">II", len(key), len(value) + 1) + f"{key}\0{value}\0".encode()
    body = struct.pack(">I", 0) + _opaque(volume.encode()) + _opaque(said)
    return _call(_HANDSHAKE, _HANDSHAKE_VERSION, _GETSPEC, body)


def port_question(brick: Brick) -> bytes:
    """Ask for the port of a brick (PORTBYBRICK)."""
    return _call(_PORTMAP, _PORTMAP_VERSION, _PORT_BY_BRICK, _opaque(brick.path.encode()))


def size_of(head: bytes) -> int:
    """Bytes that follow a record's mark. Raises NotUnderstood for a reply in pieces and for a huge one."""
    (mark,) = struct.unpack(">I", head)
    if not mark & _LAST or mark & ~_LAST > MOST:
        raise NotUnderstood
    return int(mark & ~_LAST)


def volume_of(reply: bytes) -> Needs:
    """Which bricks the volume needs. Raises NotUnderstood."""
    result, _, length = _numbers(_accepted(reply), 3)
    text = _accepted(reply)[12 : 12 + length]
    if result & _LAST or len(text) != length:  # negative: there is no such volume, or it is not for us
        raise NotUnderstood
    return needs_of(text.decode(errors="replace"))


def port_of(reply: bytes) -> int:
    """The port of a brick, 0 when it does not run. Raises NotUnderstood."""
    result, _, _, port = _numbers(_accepted(reply), 4)
    if port > 0xFFFF:
        raise NotUnderstood
    return 0 if result & _LAST else port


def needs_of(description: str) -> Needs:
    """Read the translators that a client would be made of. Raises NotUnderstood."""
    volumes: dict[str, Needs] = {}
    top, name, kind = "", "", ""
    options: dict[str, str] = {}
    below: list[str] = []
    for words in (line.split() for line in description.splitlines()):
        match words:
            case ["volume", name]:
                kind, options, below = "", {}, []
            case ["type", kind]:
                pass
            case ["option", key, *value]:
                options[key] = " ".join(value)
            case ["subvolumes", *below]:
                pass
            case ["end-volume"]:
                try:
                    # Each is below one other: a description cannot grow by naming the same ones again.
                    volumes[name] = _translator(kind, options, [volumes.pop(one) for one in below])
                except (KeyError, ValueError):
                    raise NotUnderstood from None
                top = name
    if not top or set(volumes) != {top}:
        raise NotUnderstood
    return volumes[top]


def _translator(kind: str, options: dict[str, str], below: list[Needs]) -> Needs:
    """What one translator needs of those below it. Raises KeyError, ValueError or NotUnderstood."""
    if sum(len(one.bricks) for one in below) > MOST_BRICKS:
        raise NotUnderstood
    match kind:
        case "protocol/client":
            if options.get("transport-type", "tcp") not in {"tcp", "socket"} or _encrypted(options):
                raise NotUnderstood  # neither RDMA nor TLS is spoken here
            return Needs(1, (Brick(options["remote-host"], options["remote-subvolume"]),))
        case _ if len(below) == 1:
            return below[0]
        case "cluster/distribute" if below:
            return Needs(len(below), tuple(below))
        case "cluster/replicate":
            arbiters = int(options.get("arbiter-count", "0")) + ("thin-arbiter" in options)
            if not 0 <= arbiters < len(below):
                raise NotUnderstood
            return Needs(1, tuple(below[: len(below) - arbiters]))  # an arbiter has no data
        case "cluster/disperse" if 0 < int(options["redundancy"]) < len(below):
            return Needs(len(below) - int(options["redundancy"]), tuple(below))
    raise NotUnderstood


def _encrypted(options: dict[str, str]) -> bool:
    return options.get("transport.socket.ssl-enabled", "off") not in {"off", "no", "false", "0", "disable"}


def _call(program: int, version: int, procedure: int, body: bytes) -> bytes:
    """A call without credentials and verifier (RFC 5531, 9)."""
    call = struct.pack(">10I", _XID, _CALL, _RPC_VERSION, program, version, procedure, 0, 0, 0, 0) + body
    return struct.pack(">I", _LAST | len(call)) + call


def _accepted(reply: bytes) -> bytes:
    """The result of a call that was accepted and carried out; the verifier is empty."""
    if len(reply) < _REPLY_HEAD.size or _REPLY_HEAD.unpack_from(reply) != (_XID, _REPLY, 0, 0, 0, 0):
        raise NotUnderstood
    return reply[_REPLY_HEAD.size :]


def _numbers(result: bytes, count: int) -> tuple[int, ...]:
    if len(result) < 4 * count:
        raise NotUnderstood
    return struct.unpack_from(f">{count}I", result)


def _opaque(data: bytes) -> bytes:
    """XDR's counted bytes (RFC 4506, 4.10)."""
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)
