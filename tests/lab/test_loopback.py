"""Nothing of a lab can be reached from another machine."""

import ipaddress
import struct
from pathlib import Path

import pytest

from lab import process
from lab.control.plane import ControlPlane
from lab.lab import Lab
from lab.pytest_plugin import MachineFactory

pytestmark = [pytest.mark.real, pytest.mark.cluster]

_LISTEN = "0A"


def listening(path: str) -> dict[str, str]:
    """Address of every listening TCP socket by its inode (proc(5): address in host byte order words)."""
    found = {}
    for line in Path(path).read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTEN:
            words = fields[1].split(":")[0]
            raw = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
            found[fields[9]] = str(ipaddress.ip_address(raw))
    return found


def sockets_of(pid: int) -> set[str]:
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(fd.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    return inodes


def test_every_tcp_socket_of_the_lab_listens_on_loopback(
    lab: Lab, control_plane: ControlPlane, machines: MachineFactory
) -> None:
    machines("file", "gluster", "nbd").wait_writing()
    servers = [lab.http, lab.https, lab.iscsi, lab.iscsi_chap, lab.rbd.monitor]
    for kind in ("nbd-tls", "nbd-unix"):
        lab.place(kind, f"listening-{kind}", room=1 << 20)
    keeper = lab.session.state().keeper
    assert keeper is not None
    open_sockets = listening("/proc/net/tcp") | listening("/proc/net/tcp6")
    ours = {
        open_sockets[inode]
        for pid in process.descendants(keeper.pid)
        for inode in sockets_of(pid)
        if inode in open_sockets
    }
    assert control_plane.server.startswith("https://127.0.0.1:")
    assert all(server.ready() for server in servers)
    assert len(ours) >= 2  # 127.0.0.1 and gluster's own
    assert all(ipaddress.ip_address(address).is_loopback for address in ours), ours
