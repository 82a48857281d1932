"""A machine with three points on a golden image, on real parts, and what the command line says of it.

The guest stands still and its disk is written through QEMU's monitor, so that a layer has the same number
of bytes in each run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu

from controller.cli.page import Bar, Page, Section
from lab.controller import Controller, hypervisor, policy, snapshot
from lab.deadline import wait_until
from lab.errors import LabError
from lab.lab import Lab
from lab.machines.disk import Disk
from lab.machines.machine import Machine
from lab.pictures.camera import Camera
from lab.pictures.fixed import FixedWords
from lab.storage.image import ImageSource

NAMESPACE = "shop"
CHAIN = "db-1-vda"
POINTS = (("monday", 64), ("tuesday", 32), ("wednesday", 48))
"""Names, and MiB that are written after each."""

_MIB = 1 << 20
_BACKEND = "/machine/peripheral/virtio-disk0/virtio-backend"
_IMAGES = "/var/lib/libvirt/images"
_HASH = "3f9ac0d1e2b34a5c"
_SECONDS = 60.0


@dataclass
class Story:
    """What was made so far."""

    lab: Lab
    words: FixedWords
    _at: int = field(default=0)

    def set_up(self, controller: Controller) -> None:
        """A machine on a golden image, the controller, and a policy that asks before each merge."""
        host = self.lab.host()
        self.words.add(str(host.images), _IMAGES)
        golden = ImageSource.file(host.images / "golden.qcow2")
        golden.create("qcow2", 512 * _MIB)
        disk = Disk(ImageSource.file(host.images / "db-1.qcow2"), size=512 * _MIB, backing=(golden, "qcow2"))
        machine = host.machine("db-1", [disk], start=False)
        machine.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        self._write(machine, 96)
        controller.install()
        controller.start()
        self.apply(hypervisor("host-a", host.uri))
        self.apply(policy(merge={"settleSeconds": 0, "bandwidthBytesPerSecond": 16 * _MIB}))
        self.kubectl("create", "namespace", NAMESPACE)
        self.apply(_chain())
        self.machine = machine

    def take(self) -> None:
        """Three points."""
        for point, written in POINTS:
            name = f"db-1-{point}"
            self.apply(snapshot(name, "db-1", namespace=NAMESPACE))
            self.kubectl("wait", "--for=condition=Ready", f"vvs/{name}", "-n", NAMESPACE, "--timeout=60s")
            self._write(self.machine, written)
            found = json.loads(self.kubectl("get", f"vvs/{name}", "-n", NAMESPACE, "-o", "json"))
            self.words.add(found["metadata"]["uid"], _uid(point))
        for layer in self._status(lambda status: len(status.get("layers", ())) == len(POINTS) + 2)["layers"]:
            leaf = Path(layer["source"]).name
            for point, _ in POINTS:
                self._name_fragment(leaf, point)

    def _name_fragment(self, leaf: str, point: str) -> None:
        """An overlay's name carries the first digits of the UID of its VolumeSnapshot."""
        found = json.loads(self.kubectl("get", f"vvs/db-1-{point}", "-n", NAMESPACE, "-o", "json"))
        uid = found["metadata"]["uid"]
        for length in range(len(uid), 7, -1):
            for spelled in (uid[:length], uid.replace("-", "")[:length]):
                if spelled in leaf:
                    fixed = _uid(point) if "-" in spelled else _uid(point).replace("-", "")
                    self.words.add(spelled, fixed[:length])
                    return

    async def show(self, camera: Camera) -> None:
        """Every command."""
        names = [f"db-1-{point}" for point, _ in POINTS[:2]]
        await camera.take("tree", "tree", "-n", NAMESPACE)
        await camera.take("plan-delete", "plan", "-n", NAMESPACE, "--delete", *names)
        await camera.take("adopt", "adopt", CHAIN, "-n", NAMESPACE)
        for name in names:
            self.kubectl("delete", f"vvs/{name}", "-n", NAMESPACE, "--wait=false")
        leaving = len(names)
        plan = self._status(lambda status: _waits(status, leaving))["plan"]["hash"]
        self.words.add(plan, _HASH)
        await camera.take("plan", "plan", CHAIN, "-n", NAMESPACE)
        await camera.take("explain", "explain", names[0], "-n", NAMESPACE)
        await camera.take("approve", "approve", CHAIN, _HASH, "-n", NAMESPACE)
        await camera.take("watch", "watch", CHAIN, "-n", NAMESPACE, "--until-idle", frame=_has_bar)

    # Small answers -------------------------------------------------------------------------------------

    def _status(self, ready: Any) -> Any:
        """The status of the chain as soon as it is as wanted."""

        def look() -> Any:
            found = json.loads(self.kubectl("get", f"vvc/{CHAIN}", "-n", NAMESPACE, "-o", "json"))
            status = found.get("status", {})
            return status if ready(status) else None

        return wait_until(look, timeout=_SECONDS, what="the VolumeChain is as expected", interval=0.2)

    def _write(self, machine: Machine, mib: int) -> None:
        """Write so many MiB to the disk, each time elsewhere."""
        command = f'qemu-io -d {_BACKEND} "write -P {1 + self._at % 200} {self._at}M {mib}M"'
        said = libvirt_qemu.qemuMonitorCommand(
            machine.domain, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        )
        if said.strip():  # what qemu-io says goes to QEMU's own output; here come only errors
            raise LabError(f"{command}: {said.strip()}")
        self._at += mib

    def apply(self, document: str) -> None:
        """kubectl apply."""
        self.lab.control_plane().kubectl("apply", "--server-side", "-f", "-", stdin=document)

    def kubectl(self, *arguments: str) -> str:
        """What kubectl prints."""
        return self.lab.control_plane().kubectl(*arguments, timeout=90).stdout


def _waits(status: Any, leaving: int) -> bool:
    """The controller has seen all deletions, and waits for approval."""
    states = [layer.get("boundary", {}).get("state") for layer in status.get("layers", ())]
    reasons = [each["reason"] for each in status.get("conditions", ()) if each["type"] == "Ready"]
    return states.count("Leaving") == leaving and reasons == ["AwaitingApproval"]


def _has_bar(page: Page) -> bool:
    blocks = (block for section in page if isinstance(section, Section) for block in section.blocks)
    return any(isinstance(block, Bar) for block in blocks)


def _uid(point: str) -> str:
    """A UID that stands for that of the point's VolumeSnapshot."""
    number = [point for point, _ in POINTS].index(point) + 1
    return f"{number}a7c90e2-5b1d-4c3e-8f60-2d9e4b7a1c5{number}"


def _chain() -> str:
    return json.dumps(
        {
            "apiVersion": "varve.dev/v1alpha1",
            "kind": "VolumeChain",
            "metadata": {"name": CHAIN, "namespace": NAMESPACE},
            "spec": {"source": {"domain": "db-1", "disk": "vda"}, "approval": "Manual"},
        }
    )
