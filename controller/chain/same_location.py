"""Whether libvirt takes two sources for one location: word by word, not by what they mean.

``virStorageSourceIsSameLocation`` (libvirt 9.0) decides by it whether a change of the running chain is
written into the stored definition as well. It compares the type, the path or name, the snapshot, and the
hosts one by one, in their order.
"""

from __future__ import annotations

from controller.chain.source import DEFAULT_PORTS, Host, Source


def difference(running: Source, stored: Source) -> str:
    """What differs, for people; empty when libvirt takes them for one location."""
    if running.type != stored.type:
        return (
            f"it runs on {running.uri} (type {running.type}), and {stored.uri} (type {stored.type}) is stored"
        )
    if running.type == "volume" and running.uri != stored.uri:
        return f"it runs on {running.uri}, and {stored.uri} is stored"
    if (running.protocol, running.path or running.name) != (stored.protocol, stored.path or stored.name):
        return f"it runs on {_words(running)}, and {_words(stored)} is stored"
    if running.snapshot != stored.snapshot:
        return f"it runs on {running.uri}, and {stored.uri} is stored"
    ours = [_host(host, running.protocol) for host in running.hosts]
    theirs = [_host(host, stored.protocol) for host in stored.hosts]
    if ours != theirs:
        return f"it runs on hosts {_list(running)}, and hosts {_list(stored)} are stored, in this order"
    return ""


def _words(source: Source) -> str:
    """As it is written: normalised, two spellings of one path would look alike."""
    return source.path or f"{source.protocol} {source.name}"


def _host(host: Host, protocol: str) -> tuple[str, str, str, str]:
    port = host.port or (DEFAULT_PORTS.get(protocol, "") if host.transport == "tcp" else "")
    return host.transport, host.name, port, host.socket


def _list(source: Source) -> str:
    return ", ".join(host.address(source.protocol) for host in source.hosts) or "none"
