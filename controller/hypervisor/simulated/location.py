"""Whether libvirt takes two sources for one place: by their words (``virStorageSourceIsSameLocation``).

The stored definition of a disk follows a change of the running one only where it does. So another spelling of
the path, another order or address of hosts, or ``type='volume'`` is enough for it to stay behind (measured).
"""

from __future__ import annotations

from controller.chain.address import DEFAULT_PORTS, Host
from controller.chain.source import Source


def same(running: Source, stored: Source) -> bool:
    """Compare as libvirt does. A volume of a pool is the same as that volume, and never as its path."""
    return _words(running) == _words(stored)


def _words(source: Source) -> tuple[object, ...]:
    if source.type == "volume":
        return source.type, source.key
    hosts = tuple(_host(host, source.protocol) for host in source.hosts)
    return source.type, source.protocol, source.path or source.name, source.snapshot, hosts


def _host(host: Host, protocol: str) -> Host:
    """With the port that libvirt fills in when it reads a definition."""
    port = host.port or (DEFAULT_PORTS.get(protocol, "") if host.transport == "tcp" else "")
    return Host(host.name, port, host.transport, host.socket)
