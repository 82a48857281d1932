"""Whether somebody listens at a local daemon's socket: asked while there is no connection, each second or so.

A connection costs libvirt a client, ten calls and, where the daemon only starts, seconds; this costs one
``connect`` that is closed at once.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

_SYSTEM = ("/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock")
"""Where libvirt's client looks by itself, first for the modular daemon."""


def sockets_of(uri: str) -> tuple[str, ...]:
    """The sockets that a libvirt URI leads to on this machine; none for a remote one, or a user's own."""
    parts = urlsplit(uri)
    if parts.scheme not in {"qemu", "qemu+unix"} or parts.netloc:
        return ()
    named = parse_qs(parts.query).get("socket")
    if named:
        return (named[0],)
    return _SYSTEM if parts.path == "/system" else ()


def doorbell(uri: str, *, hangs: Callable[[], bool]) -> Callable[[], Awaitable[bool]] | None:
    """A question whether a connection to ``uri`` would be accepted now; None when that cannot be asked so.

    ``hangs``: whether an attempt to connect has no answer yet. Then nothing is asked: each question would
    wait in the queue of a daemon that takes none of them, until nobody else gets in.
    """
    paths = sockets_of(uri)
    if not paths:
        return None

    async def ring() -> bool:
        return not hangs() and any(_accepts(path) for path in paths)

    return ring


def _accepts(path: str) -> bool:
    """Never waits: the kernel accepts for a daemon, or refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(path)
        except (OSError, ValueError):  # the second: a path that cannot be one
            return False
        return True
