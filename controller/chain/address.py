"""The servers of network images: ``<host>`` elements, and what is the same address in another spelling."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import quote

DEFAULT_PORTS = {
    "gluster": "24007",
    "nbd": "10809",
    "iscsi": "3260",
    "http": "80",
    "https": "443",
    "ftp": "21",
    "ftps": "990",
    "tftp": "69",
    "ssh": "22",
    "sheepdog": "7000",
    "vxhs": "9999",
}
"""Ports that libvirt assumes when ``<host>`` has none (measured for each: it writes them into what it gives
back). It has none for rbd and nfs."""

CEPH_PORTS = ("3300", "6789")
"""What librados tries when no port is given: both are ports of one monitor (messenger 2 and 1)."""


@dataclass(frozen=True, slots=True)
class Host:
    """One ``<host>`` of a network source, as it is written."""

    name: str = ""
    port: str = ""
    transport: str = "tcp"
    socket: str = ""

    def address(self, protocol: str) -> str:
        """For people: ``name:port`` or ``unix:socket``, spelled normally, a default port made explicit."""
        return f"unix:{self.socket}" if self.transport == "unix" else self.in_uri(protocol)

    def in_uri(self, protocol: str) -> str:
        """The address with percent-encoding where a character would end it."""
        return self._spelled(self.port.lstrip("0") or DEFAULT_PORTS.get(protocol, ""))

    def identity(self, protocol: str) -> str:
        """Equal for two spellings of one server. ``mon``, ``mon:3300`` and ``mon:6789`` are one Ceph monitor:
        its two protocols have a port each, and two clusters cannot share one of them."""
        port = self.port.lstrip("0") or DEFAULT_PORTS.get(protocol, "")
        return self._spelled("" if protocol == "rbd" and port in CEPH_PORTS else port)

    def _spelled(self, port: str) -> str:
        if self.transport == "unix":
            return f"unix+{quote(self.socket, safe='')}"  # no name of a host has a plus in it
        prefix = "" if self.transport == "tcp" else f"{quote(self.transport, safe='')}+"
        return f"{prefix}{_name(self.name)}" + (f":{quote(port, safe='')}" if port else "")


def _name(name: str) -> str:
    """A host name or address: lower case, without the dot that ends a name, IPv6 in brackets and short."""
    plain = name.strip("[]") if name.startswith("[") else name
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        shorter = plain[:-1] if len(plain) > 1 and plain.endswith(".") else plain
        return quote(shorter.lower(), safe="")
    return f"[{quote(str(address), safe=':%')}]" if address.version == 6 else str(address)
