"""What a test of the whole stack works with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.controller import Controller
from lab.hosts.host import Host
from lab.lab import Lab
from lab.machines.disk import Disk
from lab.machines.machine import Machine
from lab.machines.writer import WriterOptions
from lab.pytest_plugin import MachineFactory
from tests.e2e.points import Points
from tests.e2e.shop import Shop

AT_ONCE = {"settleSeconds": 0}
"""How the tests merge unless they say otherwise: nothing waits for company."""

SMALL = WriterOptions(window_sectors=1024)
"""A small window: the guest goes round while a test runs, so points overlap, and a machine that is started
again finds where it was in no time."""
QUICK = WriterOptions(window_sectors=2048, burst=32)
"""Writes some 600 sectors per second, for layers that take a while to merge at the rate of `gentle`."""


@dataclass(frozen=True)
class Stage:
    """A lab with a control plane, a controller, and the namespace shop."""

    lab: Lab
    controller: Controller
    shop: Shop
    machines: MachineFactory
    scratch: Path
    """A directory of the test's own."""
    log_from: int
    """How long the controller's log was when the test began (bytes)."""

    @property
    def host(self) -> Host:
        """Host a, which Hypervisor host-a means."""
        return self.lab.host("a")

    def machine(self, *disks: Disk | str, **options: Any) -> Machine:
        """A machine; its writer is SMALL unless the options say otherwise. Arguments as of MachineFactory."""
        return self.machines(*disks, **{"writer": SMALL, **options})

    def points(self, machine: Machine, disk: str = "vda") -> Points:
        """The points of a machine's disk."""
        return Points(self.shop, self.lab.reader, machine, disk)

    def overlays(self, machine: Machine) -> set[str]:
        """Names of the overlays of vda on any storage that a test uses, in a chain or not."""
        places = (*machine.host.images.iterdir(), *self.scratch.iterdir())
        names = {path.name for path in places}
        if self.lab.session.state().notes.get("gluster"):
            names |= set(self.lab.gluster.volume().images())
        return {name for name in names if name.startswith(f"{machine.name}.vda.varve-")}


def overlays_in_chain(machine: Machine) -> set[str]:
    """Names of the overlays that the controller made, of those in the chain of vda."""
    leaves = (layer.source.name.rsplit("/", 1)[-1] for layer in machine.chain())
    return {leaf for leaf in leaves if ".varve-" in leaf}


def gentle(*, direction: str = "Cheapest", limit: int = 65536) -> str:
    """The class `gentle`, whose merges take some seconds, so that something can happen meanwhile. An active
    commit ends only when the limit (bytes per second; 0: none) is lifted: the guest writes faster."""
    merge = {**AT_ONCE, "direction": direction, "bandwidthBytesPerSecond": limit}
    return other_class("gentle", merge=merge)


def other_class(name: str, **spec: Any) -> str:
    """A VolumeSnapshotClass that is not the default, as JSON for `kubectl apply -f -`."""
    return json.dumps(
        {
            "apiVersion": "varve.dev/v1alpha1",
            "kind": "VolumeSnapshotClass",
            "metadata": {"name": name},
            "spec": spec,
        }
    )
