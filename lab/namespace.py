"""Run a program in its own mount (and UTS) namespace with private directories over system ones.

Standard library only and run as a script (`python -I namespace.py …`), because it becomes the program by
exec. libvirt and gluster have their directories compiled in; a bind mount in a private namespace gives every
lab its own without touching the system's. With `--root` the program is that of another system in a folder.
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

_KERNEL = ("/dev", "/proc", "/sys")
"""What another system needs of the kernel."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, flags: int) -> None:
    code = _libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None)
    _check(code, f"mount {source} on {target}")


def _share(root: str, directory: str) -> None:
    """Show a directory of this system at the same path below `root`, with what is beside it. The folder
    itself is left as it is, but for an empty directory of one name where it has none."""
    above = Path(directory)
    while not Path(f"{root}{above}").is_dir():
        above = above.parent
    if above == Path("/"):
        above = Path("/", Path(directory).parts[1])
        Path(f"{root}{above}").mkdir(exist_ok=True)
    _mount(str(above), f"{root}{above}", MS_BIND | MS_REC)


def enter(
    binds: list[tuple[str, str]], hostname: str | None, root: str | None = None, shared: str | None = None
) -> None:
    """Leave the caller's namespaces and put each source directory over its target. Raises OSError.

    `root`: the targets are below this folder, which becomes the root directory, with the directory `shared`
    at the path that it has outside.
    """
    flags = CLONE_NEWNS | (CLONE_NEWUTS if hostname else 0)
    _check(_libc.unshare(flags), "unshare")
    _mount("none", "/", MS_REC | MS_PRIVATE)  # or the mounts below would show up outside
    for directory in _KERNEL if root else ():
        _mount(directory, f"{root}{directory}", MS_BIND | MS_REC)
    if root and shared:
        _share(root, shared)
    for source, target in binds:
        inside = f"{root or ''}{target}"
        Path(inside).mkdir(parents=True, exist_ok=True)
        _mount(source, inside, MS_BIND)
    if root:
        os.chroot(root)
        os.chdir("/")
    if hostname:
        socket.sethostname(hostname)


def command(
    argv: list[str],
    *,
    binds: list[tuple[Path, str]],
    hostname: str | None = None,
    root: Path | None = None,
    shared: Path | None = None,
) -> list[str]:
    """The argument list that runs `argv` in namespaces of its own; see `enter`."""
    own = [sys.executable, "-I", str(Path(__file__).resolve())]
    for source, target in binds:
        own += ["--bind", str(source), target]
    for option, value in (("--hostname", hostname), ("--root", root), ("--shared", shared)):
        if value:
            own += [option, str(value)]
    return [*own, "--", *argv]


def main() -> None:
    """Parse the command line, enter the namespaces, become the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bind", nargs=2, action="append", default=[], metavar=("SOURCE", "TARGET"))
    parser.add_argument("--hostname")
    parser.add_argument("--root")
    parser.add_argument("--shared")
    parser.add_argument("argv", nargs="+")
    arguments = parser.parse_args()
    binds = [(source, target) for source, target in arguments.bind]
    enter(binds, arguments.hostname, arguments.root, arguments.shared)
    os.execvp(arguments.argv[0], arguments.argv)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
