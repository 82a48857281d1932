"""Who may name places: what a VolumeSnapshot says of its layer's place, held against what its namespace is
given. Pure: nothing is looked up, so a refusal tells nothing of what exists on the hypervisor."""

from __future__ import annotations

import posixpath

from controller.api import glob
from controller.api.overlay import Overlay
from controller.chain.address import CEPH_PORTS, DEFAULT_PORTS
from controller.chain.source import Source
from controller.chain.system_places import gives_device, gives_socket, system_directory


def named_place(overlay: Overlay, source: Source | None) -> str:
    """What the overlay names, for people; ``source`` is its ``source`` as libvirt names it."""
    if source is not None:
        return source.uri
    return f"pool:{overlay.pool}" if overlay.pool is not None else overlay.directory or "nowhere"


def reserved(overlay: Overlay, source: Source | None) -> str | None:
    """The directory of the hypervisor's own that the overlay names, which nobody is given; None elsewhere.
    A device below ``/dev`` and a socket are no places in a directory."""
    if source is not None:
        return system_directory(source.path) if source.type == "file" else None
    return None if overlay.directory is None else system_directory(overlay.directory)


def is_given(overlay: Overlay, source: Source | None, patterns: tuple[str, ...]) -> bool:
    """Say whether ``patterns`` give the place that ``overlay`` names; no patterns give none.

    Of an image on several servers each must be given on its own: a list of servers that fits as a whole may
    begin with one that is given and go on with others.
    """
    if reserved(overlay, source) is not None:
        return False
    if source is not None:
        fitting = _fitting(source, patterns)
        return all(any(glob.matches_any(fitting, text) for text in one) for one in _spellings(source))
    if overlay.pool is not None:
        return glob.matches_any(patterns, f"pool:{overlay.pool}")
    if overlay.directory is None:
        return True  # it names none
    directory = Source.file(overlay.directory).uri
    return any(glob.matches_any(patterns, text) for text in (directory, posixpath.join(directory, "")))


def _fitting(source: Source, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the patterns that can give such a place: a device, and a socket of the system, only by one
    that was written for such."""
    if source.type == "block":
        return tuple(one for one in patterns if gives_device(one))
    if any(system_directory(host.socket) for host in source.hosts if host.socket):
        return tuple(one for one in patterns if gives_socket(one))
    return patterns


def _spellings(source: Source) -> list[set[str]]:
    """For each server, the URIs that people write: a port that is the protocol's own may be left out."""
    found = []
    for host in source.hosts:
        uri = Source.network(source.protocol, source.name, [host]).uri
        texts = {uri}
        own = CEPH_PORTS if source.protocol == "rbd" else (DEFAULT_PORTS.get(source.protocol, ""),)
        if host.transport == "tcp" and (host.port in own or not host.port):
            texts |= {uri.replace(f":{port}/", "/", 1) for port in own if port}
        found.append(texts)
    return found or [{source.uri}]
