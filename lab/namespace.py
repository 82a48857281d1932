"""Run a program in its own mount (and UTS) namespace with private directories over system ones.

Standard library only and run as a script (`python -I namespace.py …`), because it becomes the program by
exec. libvirt and gluster have their directories compiled in; a bind mount in a private namespace gives every
lab its own without touching the system's.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import socket
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, flags: int) -> None:
    code = _libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None)
    _check(code, f"mount {source} on {target}")


def enter(binds: list[tuple[str, str]], hostname: str | None) -> None:
    """Leave the caller's namespaces and put each source directory over its target. Raises OSError."""
    flags = CLONE_NEWNS | (CLONE_NEWUTS if hostname else 0)
    _check(_libc.unshare(flags), "unshare")
    _mount("none", "/", MS_REC | MS_PRIVATE)  # or the mounts below would show up outside
    for source, target in binds:
        Path(target).mkdir(parents=True, exist_ok=True)
        _mount(source, target, MS_BIND)
    if hostname:
        socket.sethostname(hostname)


def command(argv: list[str], *, binds: list[tuple[Path, str]], hostname: str | None = None) -> list[str]:
    """The argument list that runs `argv` in namespaces of its own."""
    own = [sys.executable, "-I", str(Path(__file__).resolve())]
    for source, target in binds:
        own += ["--bind", str(source), target]
    if hostname:
        own += ["--hostname", hostname]
    return [*own, "--", *argv]


def main() -> None:
    """Parse the command line, enter the namespaces, become the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bind", nargs=2, action="append", default=[], metavar=("SOURCE", "TARGET"))
    parser.add_argument("--hostname")
    parser.add_argument("argv", nargs="+")
    arguments = parser.parse_args()
    enter([(source, target) for source, target in arguments.bind], arguments.hostname)
    os.execvp(arguments.argv[0], arguments.argv)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
