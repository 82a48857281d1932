"""A hypervisor in memory: libvirtd, QEMU and disks as measured, for fast, exhaustive and large tests.

``SimulatedHost().connect`` is a :data:`~controller.hypervisor.driver.Connector`. The conformance suite runs
the same scenarios against this package and against real libvirt; a difference is a fault of this package.
"""

from controller.hypervisor.simulated.driver import SimulatedDriver
from controller.hypervisor.simulated.faults import Call, Faults, Killed, Moment, Side
from controller.hypervisor.simulated.host import SimulatedHost
from controller.hypervisor.simulated.image import (
    CLUSTER_BYTES,
    ODD_NAME,
    Content,
    Image,
    ImageMissing,
    Storage,
)
from controller.hypervisor.simulated.machine import DiskDefinition, Link, Machine

__all__ = [
    "CLUSTER_BYTES",
    "ODD_NAME",
    "Call",
    "Content",
    "DiskDefinition",
    "Faults",
    "Image",
    "ImageMissing",
    "Killed",
    "Link",
    "Machine",
    "Moment",
    "Side",
    "SimulatedDriver",
    "SimulatedHost",
    "Storage",
]
