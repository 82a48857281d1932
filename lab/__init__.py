"""Everything real on one machine: a Kubernetes API, libvirt hosts, storage servers, machines that write all
the time.

    with Lab() as lab:
        plane = lab.control_plane()
        machine = lab.host("a").machine("web-1", [Disk.file()])
        machine.wait_writing()

Nothing here knows of the controller, and nothing in the controller knows of this. `lab/README.md` says more.
"""

from lab.control.plane import ControlPlane
from lab.errors import LabError
from lab.hosts.host import Host
from lab.lab import Lab
from lab.machines.chain import Layer
from lab.machines.disk import Disk
from lab.machines.machine import Machine
from lab.machines.writer import WriterCheck, WriterOptions
from lab.storage.image import ImageSource

__all__ = [
    "ControlPlane",
    "Disk",
    "Host",
    "ImageSource",
    "Lab",
    "LabError",
    "Layer",
    "Machine",
    "WriterCheck",
    "WriterOptions",
]
