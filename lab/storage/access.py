"""What a client needs to be let in by a storage server, and who was given it.

A secret itself is in a file below the lab's directory and in the secret stores of the libvirt hosts: not in
the lab's state, not on command lines.
"""

from __future__ import annotations

import base64
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libvirt
from lxml import etree

from lab.session import Session

if TYPE_CHECKING:
    from lab.hosts.host import Host

NOTE = "access/"
# What libvirt calls the secret of a protocol, and its number for looking one up by usage.
SECRET_TYPES = {"rbd": "ceph", "iscsi": "iscsi"}
_USAGE_NUMBERS = {"ceph": libvirt.VIR_SECRET_USAGE_TYPE_CEPH, "iscsi": libvirt.VIR_SECRET_USAGE_TYPE_ISCSI}
_USAGE_ELEMENTS = {"ceph": "name", "iscsi": "target"}  # https://libvirt.org/formatsecret.html
_CLIENT_FILES = ("ca-cert.pem", "client-cert.pem", "client-key.pem")  # names that QEMU fixes


@dataclass(frozen=True, slots=True)
class Access:
    """All of it paths and names.

    `user`: who the client says it is; `usage`: how libvirt's secret is called on every host; `secret_file`:
    the same secret for qemu-img (iSCSI: the password; RBD: the key in base64, as Ceph writes it).
    `tls`: the server speaks TLS; `tls_directory`: certificates of a client, named as QEMU wants them;
    `verify`: whether the client can check the server's certificate.
    `configuration`: RBD's ceph.conf, for tools that are told no more.
    """

    user: str = ""
    usage: str = ""
    secret_file: str = ""
    tls: bool = False
    tls_directory: str = ""
    verify: bool = True
    configuration: str = ""


class AccessBook:
    """The accesses that servers of a lab gave, by address; brings each to every libvirt host."""

    def __init__(self, session: Session, hosts: Callable[[], list[Host]]) -> None:
        self._session = session
        self._hosts = hosts

    def grant(self, protocol: str, host: str, port: int, access: Access) -> None:
        """Write it down and bring it to the hosts there are; later ones get it when they are made."""
        self._session.note(f"{NOTE}{protocol}/{host}:{port}", asdict(access))
        for hypervisor in self._hosts():
            _bring(hypervisor, protocol, access)

    def find(self, protocol: str, host: str, port: int) -> Access | None:
        """What the server at this address asks for, None if it lets everybody in."""
        note = self._session.state().notes.get(f"{NOTE}{protocol}/{host}:{port}")
        return Access(**note) if note else None

    def equip(self, host: Host) -> None:
        """Bring everything that was granted so far to a new host."""
        for key, note in self._session.state().notes.items():
            if key.startswith(NOTE):
                _bring(host, key.split("/")[1], Access(**note))


def write_secret(path: Path, text: str) -> None:
    """Make a file that only its owner can read, from the first moment on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _bring(host: Host, protocol: str, access: Access) -> None:
    """Files go to the host's private /etc/libvirt, secrets into its libvirtd."""
    if access.tls_directory:
        for name in _CLIENT_FILES:
            shutil.copy(Path(access.tls_directory) / name, host.layout.nbd_certificates / name)
    if access.usage:
        content = Path(access.secret_file).read_bytes()
        kind = SECRET_TYPES[protocol]
        _define_secret(
            host.connection(), kind, access.usage, base64.b64decode(content) if kind == "ceph" else content
        )


def _define_secret(connection: Any, kind: str, usage: str, value: bytes) -> None:
    """Kept by libvirtd over restarts, and never shown by it. Fine if it is there."""
    try:
        connection.secretLookupByUsage(_USAGE_NUMBERS[kind], usage)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise
    else:
        return
    secret = etree.Element("secret", ephemeral="no", private="yes")
    etree.SubElement(secret, "uuid").text = str(uuid.uuid4())
    etree.SubElement(etree.SubElement(secret, "usage", type=kind), _USAGE_ELEMENTS[kind]).text = usage
    connection.secretDefineXML(etree.tostring(secret, encoding="unicode")).setValue(value, 0)
