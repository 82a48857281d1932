"""What tells this process from every other, and lets a successor on the same machine see that it is gone."""

import os
import socket
from pathlib import Path

SEPARATOR = "_"
PARTS = 5


def own_identity() -> str:
    """Host name, boot, PID namespace, PID and start time: no two processes ever have the same."""
    host = socket.gethostname()[:63].replace(SEPARATOR, "-")
    return SEPARATOR.join([host, *_here(), str(os.getpid()), _started(os.getpid()) or "0"])


def is_dead(identity: str) -> bool:
    """Whether the process of this identity is known to be gone.

    Only a process of the same boot and PID namespace can be looked for. (The number of a PID namespace is
    used again only when all its processes are gone.) Of any other, and of a foreign identity, nothing is
    known.
    """
    parts = identity.split(SEPARATOR)
    if len(parts) != PARTS or tuple(parts[1:3]) != _here() or not parts[3].isdecimal():
        return False
    return _started(int(parts[3])) != parts[4]


def _here() -> tuple[str, str]:
    """This boot of the machine, and this PID namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")[:12]
    return boot, str(Path("/proc/self/ns/pid").stat().st_ino)


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since the boot (proc(5)); None when it is gone or a zombie."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]
