"""The demo's acts. Each prints what it does, does it through kubectl, and shows the chain afterwards."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field

from lab import bare
from lab.controller import Controller, hypervisor
from lab.demo import stage
from lab.demo.tree import tree
from lab.errors import LabError
from lab.lab import Lab
from lab.machines.chain import Layer
from lab.machines.machine import Machine
from lab.reader import Capture
from lab.storage.image import ImageSource

KINDS = {"file": "web-1", "gluster": "mail-1", "nbd": "db-1"}
"""Protocol of the disk to the name of the machine."""

NAMESPACE = "shop"
POINTS = ("monday", "tuesday", "wednesday")
ORDER = (("tuesday", "the middle one"), ("wednesday", "the newest"), ("monday", "the oldest"))

_CLASS = """\
apiVersion: varve.dev/v1alpha1
kind: VolumeSnapshotClass
metadata:
  name: standard
  annotations:
    varve.dev/is-default-class: "true"
spec:
  merge:
    settleSeconds: 0
  overlay:
    directory: {directory}
"""

_SNAPSHOT = """\
apiVersion: varve.dev/v1alpha1
kind: VolumeSnapshot
metadata:
  name: {name}
  namespace: {namespace}
spec:
  source:
    domain: {domain}
    disk: vda
  volumeSnapshotClassName: {policy}
"""


@dataclass
class Play:
    """The state of the demo: machines, what was captured of each point, and how long things took."""

    lab: Lab
    machines: dict[str, Machine] = field(default_factory=dict)
    captures: dict[str, Capture] = field(default_factory=dict)
    taken: dict[str, list[float]] = field(default_factory=dict)
    merged: dict[str, list[float]] = field(default_factory=dict)
    bare_taken: dict[str, float] = field(default_factory=dict)
    bare_merged: dict[str, float] = field(default_factory=dict)

    # Acts ----------------------------------------------------------------------------------------------

    def set_up(self, controller: Controller) -> None:
        """Machines that write, the controller, and the objects that an administrator makes."""
        stage.heading("The machines")
        stage.tell(
            """Three virtual machines, each with a disk of another kind: a local file, an image on a gluster
            volume (libgfapi), and an NBD export. Their only program writes to the disk all the time and can
            tell later whether a content is what it wrote."""
        )
        for kind, name in KINDS.items():
            self.machines[kind] = self._machine(kind, name)
            print(f"  {name} runs and writes ({kind})", flush=True)
        stage.heading("The controller")
        stage.command(("kubectl", "apply", "--server-side", "-k", "manifests/overlays/central"))
        controller.install()
        controller.start()
        stage.tell(
            f"""The controller runs as process {controller.pid}, with the token of the ServiceAccount that the
            manifests ship, and holds the Lease."""
        )
        host = self.lab.host()
        overlays = host.images.parent / "overlays"
        overlays.mkdir(exist_ok=True)
        self.apply(hypervisor("host-a", host.uri), shown=False)
        nbd_class = _CLASS.format(directory=overlays).replace("standard", "overlays-in-files")
        nbd_class = nbd_class.replace('  annotations:\n    varve.dev/is-default-class: "true"\n', "")
        plain = _CLASS.partition("  overlay:")[0]
        self.apply(plain, shown=False)
        self.apply(nbd_class, shown=False)
        self.kubectl("create", "namespace", NAMESPACE, quiet=True)
        self.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "hypervisor/host-a", quiet=True)
        self.kubectl("get", "hypervisors")

    def take(self) -> None:
        """Three points on each disk."""
        for point in POINTS:
            stage.heading(f"Take: the point '{point}' of each disk")
            for number, (kind, name) in enumerate(KINDS.items()):
                document = _SNAPSHOT.format(
                    name=f"{name}-{point}",
                    namespace=NAMESPACE,
                    domain=name,
                    policy="overlays-in-files" if kind == "nbd" else "standard",
                )
                first = point == POINTS[0] and number == 0
                with stage.Stopwatch() as watch:
                    self._apply_and_wait(document, f"{name}-{point}", shown=first)
                self.taken.setdefault(kind, []).append(watch.seconds)
                self._capture(kind, f"{name}-{point}")
            self.show()
            self._write_more()

    def merge(self) -> None:
        """Middle, newest, oldest deleted while the machines run."""
        stage.tell(
            """Now the points are deleted while the machines go on writing. The upper layer is copied down
            into the lower one and its image removed. No other point may change by it."""
        )
        for point, which in ORDER:
            stage.heading(f"Merge: '{point}', {which}, is deleted from each disk")
            for kind, name in KINDS.items():
                with stage.Stopwatch() as watch:
                    self.kubectl("delete", f"vvs/{name}-{point}", "-n", NAMESPACE)
                self.merged.setdefault(kind, []).append(watch.seconds)
                del self.captures[f"{name}-{point}"]
            self.show()
            self.verify()
            self._write_more()

    def show(self) -> None:
        """kubectl get, and the chains."""
        self.kubectl("get", "vvs", "-n", NAMESPACE)
        owners = self._owners()
        for machine in self.machines.values():
            print("\n" + tree(machine, owners))

    def verify(self) -> None:
        """Compare every kept point with what was captured of it, byte for byte; check the guests' data."""
        print()
        for name, capture in sorted(self.captures.items()):
            kind = self._kind_of(name)
            layer = self._layer_of(kind, name)
            found = self.lab.reader.verify(capture, layer)
            check = capture.check_writer()
            if not (found.identical and check.ok):
                raise LabError(f"{name} is NOT what it was: {found} {check}")
            print(
                f"  verified: {name} reads back as it was taken ({found.bytes_compared} bytes compared, "
                f"the guest's round {check.max_counter})"
            )
        for kind, machine in self.machines.items():
            now = self.lab.reader.capture(machine, "vda")
            check = now.check_writer()
            if not check.ok:
                raise LabError(f"the {kind} disk of {machine.name} is NOT what its guest wrote: {check}")
            print(
                f"  verified: {machine.name} holds what its guest wrote (round {check.max_counter}, "
                f"{check.checked_sectors} sectors checked, none torn or wrong)",
                flush=True,
            )

    def compare(self) -> None:
        """The same with bare libvirt calls on machines of their own."""
        stage.heading("How long it took")
        for kind in KINDS:
            machine = self._machine(kind, f"bare-{kind}")
            with stage.Stopwatch() as watch:
                bare.take(machine, "vda", self._bare_overlay(kind))
            self.bare_taken[kind] = watch.seconds
            machine.wait_writing(rounds=20)
            with stage.Stopwatch() as watch:
                bare.commit_active(machine, "vda")
            self.bare_merged[kind] = watch.seconds
            machine.remove()
        heading = ("disk", "kubectl apply + wait", "bare snapshot", "kubectl delete", "bare commit + pivot")
        rows = [heading, *(self._row(kind) for kind in KINDS)]
        print()
        stage.table(rows)
        stage.tell(
            """Medians of three. Each line of kubectl includes starting kubectl itself, twice for a take (some
            0.1 s each); docs/performance.md has the same without it."""
        )

    def _row(self, kind: str) -> tuple[str, ...]:
        seconds = (
            _median(self.taken[kind]),
            self.bare_taken[kind],
            _median(self.merged[kind]),
            self.bare_merged[kind],
        )
        return (kind, *(f"{value:.2f} s" for value in seconds))

    def _bare_overlay(self, kind: str) -> ImageSource:
        name = f"bare-{kind}.overlay.qcow2"
        if kind == "gluster":
            return self.lab.gluster.volume().source(name)
        return ImageSource.file(self.lab.host().images / name)

    # Small parts ---------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, quiet: bool = False) -> str:
        """Run kubectl and show it as the reader would type it."""
        if not quiet:
            stage.command(("kubectl", *arguments))
        try:
            text = self.lab.control_plane().kubectl(*arguments, timeout=60).stdout
        except subprocess.TimeoutExpired as error:
            state = self.lab.control_plane().kubectl("describe", "vvs", "-n", NAMESPACE).stdout
            raise LabError(f"kubectl {' '.join(arguments)} did not end\n{state}") from error
        if not quiet:
            stage.output(text)
        return text

    def apply(self, document: str, *, shown: bool) -> None:
        """kubectl apply -f -."""
        if shown:
            stage.command(("kubectl", "apply", "-f", "-"), document)
        text = self.lab.control_plane().kubectl("apply", "-f", "-", stdin=document).stdout
        stage.output(text)

    def _apply_and_wait(self, document: str, name: str, *, shown: bool) -> None:
        self.apply(document, shown=shown)
        wait = ("wait", "--for=condition=Ready", f"vvs/{name}", "-n", NAMESPACE, "--timeout=60s")
        self.kubectl(*wait, quiet=not shown)

    def _machine(self, kind: str, name: str) -> Machine:
        machine = self.lab.host().machine(name, [self.lab.disk(kind, name)])
        machine.wait_writing(rounds=20)
        return machine

    def _write_more(self) -> None:
        for machine in self.machines.values():
            machine.wait_writing(rounds=40)

    def _snapshots(self) -> list[dict[str, object]]:
        text = self.kubectl("get", "vvs", "-n", NAMESPACE, "-o", "json", quiet=True)
        items: list[dict[str, object]] = json.loads(text)["items"]
        return items

    def _owners(self) -> dict[str, str]:
        owners = {}
        for item in self._snapshots():
            layer = item["status"].get("layer", {})  # type: ignore[attr-defined]
            leaf = str(layer.get("source", "")).rsplit("/", 1)[-1]
            owners[leaf] = item["metadata"]["name"]  # type: ignore[index]
        return owners

    def _capture(self, kind: str, name: str) -> None:
        self.captures[name] = self.lab.reader.capture(self.machines[kind], "vda", self._layer_of(kind, name))

    def _layer_of(self, kind: str, name: str) -> Layer:
        """The layer that holds the point, as the object's status names it."""
        leaf = {owner: leaf for leaf, owner in self._owners().items()}[name]
        for layer in self.machines[kind].chain():
            if layer.source.name.rsplit("/", 1)[-1] == leaf:
                return layer
        raise LabError(f"{name} says that it is held by {leaf}, which is not in the chain")

    def _kind_of(self, name: str) -> str:
        return next(kind for kind, machine in KINDS.items() if name.startswith(f"{machine}-"))


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
