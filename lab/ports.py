"""Free TCP ports on loopback addresses."""

from __future__ import annotations

import secrets
import socket

from lab.errors import LabError

# Below the kernel's default range for outgoing connections (32768-60999), so that no client takes the port
# between the moment it is chosen here and the moment the server binds it.
_LOWEST, _HIGHEST = 12000, 32000
_TRIES = 200


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `address`:`port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def free_port(address: str = "127.0.0.1") -> int:
    """A port on `address` that nobody listens on. Random, so that two labs started at once rarely meet."""
    for _ in range(_TRIES):
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if is_free(port, address):
            return port
    raise LabError(f"no free TCP port found on {address} between {_LOWEST} and {_HIGHEST}")
