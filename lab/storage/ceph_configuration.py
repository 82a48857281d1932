"""The files that a small Ceph is made of before it runs: configuration, keys, and who may do what."""

from __future__ import annotations

import base64
import secrets
import struct
import time
from pathlib import Path

from lab.storage.access import write_secret

# What differs from Ceph's defaults: one copy of everything; short waits where the defaults gather the changes
# of a big cluster; a killed client forgotten soon (its images cannot be removed before); a device that is a
# small sparse file. And a read lease that lasts: an OSD that was paused until its lease ran out (8 to 16 s)
# goes on where others acknowledge the next one; alone (measured, 16.2) it can leave a read "waiting for
# readable" for ever.
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = [v2:{address}:{v2},v1:{address}:{v1}]
public_addr = {address}
cluster_addr = {address}
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {keyring}
[mon]
admin_socket = {directory}/run/$name.asok
log_file = {directory}/$name.log
crash_dir = {directory}/run
mon_data = {directory}/mon
mon_allow_pool_size_one = true
mon_data_avail_warn = 1
mon_data_avail_crit = 1
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
[osd]
admin_socket = {directory}/run/$name.asok
log_file = {directory}/$name.log
crash_dir = {directory}/run
osd_data = {directory}/osd
osd_objectstore = bluestore
osd_fast_shutdown = false
bluestore_block_size = {size}
osd_client_watch_timeout = 5
osd_pool_default_read_lease_ratio = 1000
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
ms_bind_port_min = {osd_port}
ms_bind_port_max = {osd_last_port}
"""
_CAPABILITIES = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
}
_OSD_PORTS = 500  # it takes some, each the next free one


def new_key() -> str:
    """A cephx key in base64: type 1 (AES), when it was made (s, ns), length and 16 random bytes."""
    random = secrets.token_bytes(16)
    return base64.b64encode(struct.pack("<HIIH", 1, int(time.time()), 0, len(random)) + random).decode()


def write_configuration(
    path: Path,
    *,
    directory: Path,
    keyring: Path,
    fsid: str,
    address: str,
    ports: tuple[int, int, int],
    size: int,
) -> None:
    """`path`: the file made. `ports`: of the monitor for the protocols v2 and v1, and the first of the OSD.

    `size`: of the OSD's device, bytes.
    """
    text = _CONFIGURATION.format(
        fsid=fsid,
        directory=directory,
        keyring=keyring,
        address=address,
        v2=ports[0],
        v1=ports[1],
        osd_port=ports[2],
        osd_last_port=ports[2] + _OSD_PORTS,
        size=size,
    )
    path.write_text(text, encoding="utf-8")


def write_keyrings(server: Path, client: Path, *, user: str, key: str) -> None:
    """The keyring of the daemons, who know of the client too, and that of the client alone."""
    capabilities = {**_CAPABILITIES, f"client.{user}": {"mon": "profile rbd", "osd": "profile rbd"}}
    sections = [
        _section(name, key if name == f"client.{user}" else new_key(), granted)
        for name, granted in capabilities.items()
    ]
    write_secret(server, "".join(sections))
    write_secret(client, _section(f"client.{user}", key, {}))


def _section(name: str, key: str, granted: dict[str, str]) -> str:
    lines = [f"[{name}]", f"key = {key}", *(f'caps {part} = "{text}"' for part, text in granted.items())]
    return "\n".join(lines) + "\n"
