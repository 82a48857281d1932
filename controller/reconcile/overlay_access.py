"""Who may name places: what a VolumeSnapshot says of its layer's place, held against what its namespace is
given. Pure: nothing is looked up, so a refusal tells nothing of what exists on the hypervisor."""

from __future__ import annotations

import posixpath

from controller.api import glob
from controller.api.overlay import Overlay
from controller.chain.address import CEPH_PORTS, DEFAULT_PORTS
from controller.chain.source import Source


def named_place(overlay: Overlay, source: Source | None) -> str:
    """What the overlay names, for people; ``source`` is its ``source`` as libvirt names it."""
    if source is not None:
        return source.uri
    return f"pool:{overlay.pool}" if overlay.pool is not None else overlay.directory or "nowhere"


def is_given(overlay: Overlay, source: Source | None, patterns: tuple[str, ...] | None) -> bool:
    """Say whether ``patterns`` (None: anything) give the place that ``overlay`` names.

    Of an image on several servers each must be given on its own: a list of servers that fits as a whole may
    begin with one that is given and go on with others.
    """
    if patterns is None:
        return True
    if source is not None:
        return all(any(glob.matches_any(patterns, text) for text in one) for one in _spellings(source))
    if overlay.pool is not None:
        return glob.matches_any(patterns, f"pool:{overlay.pool}")
    if overlay.directory is None:
        return True  # it names none
    directory = Source.file(overlay.directory).uri
    return any(glob.matches_any(patterns, text) for text in (directory, posixpath.join(directory, "")))


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
