"""Ways in which a storage server goes, and comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libvirt
import libvirt_qemu

from lab.deadline import wait_until
from lab.lab import Lab
from lab.machines.machine import Machine
from lab.storage.gluster import GlusterVolume
from lab.storage.image import ImageSource
from lab.storage.server import ServerProcess

WITHIN = 60
"""Seconds in which the work goes on after a server came back, which has no event (samples, README.md)."""


@contextmanager
def hung(server: ServerProcess) -> Iterator[None]:
    """It accepts connections and answers nobody."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def gone(server: ServerProcess) -> Iterator[None]:
    """It is killed, and started again afterwards."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def hung_brick(volume: GlusterVolume) -> Iterator[None]:
    """Its daemon answers, and it does not."""
    volume.pause_brick()
    try:
        yield
    finally:
        volume.resume_brick()


def export_of(lab: Lab, source: ImageSource | None) -> ServerProcess:
    """The server of an NBD image."""
    [export] = [one for one in lab.nbd.exports() if one.source == source]
    return export


def monitor_answers(machine: Machine) -> bool:
    """Whether QEMU's main loop is free, and the machine runs."""
    request = json.dumps({"execute": "query-status"})
    answer: dict[str, Any] = json.loads(libvirt_qemu.qemuMonitorCommand(machine.domain, request, 0))
    return bool(answer["return"]["status"] == "running")


def at_full_speed(machine: Machine) -> None:
    """Let a merge that was slowed down go as fast as it can. (An active commit at the rate of
    `gentle` never catches up with its guest.)"""

    def lifted() -> bool:
        try:
            return not machine.domain.blockJobInfo("vda") or not machine.domain.blockJobSetSpeed("vda", 0)
        except libvirt.libvirtError:  # over since, or just ending: then there is no job soon
            return False

    wait_until(lifted, timeout=WITHIN, what="the merge goes at full speed, or is over")
