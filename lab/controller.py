"""The controller as a process of the lab: installed from the shipped manifests, logged in as a pod would be.

It runs with the token of the shipped ServiceAccount, so a verb that the shipped RBAC lacks shows here.
"""

from __future__ import annotations

import json
import signal
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.control.plane import ControlPlane
from lab.deadline import wait_until
from lab.errors import LabError
from lab.lab import Lab
from lab.ports import free_port
from lab.process import ProcessRecord, is_alive, send_signal, wait_gone
from lab.storage.image import ImageSource

REPOSITORY = Path(__file__).resolve().parent.parent
NAMESPACE = "varve-system"
ACCOUNT = "varve-controller"
EVERYBODY = [{"namespaces": ["*"], "domains": ["*"], "overlays": ["*", "/dev/*"]}]
"""Access rules that give everything that can be given: every machine, every place, every device."""
PROGRAM = (sys.executable, "-m", "controller")


class Controller:
    """One controller process at a time; start, stop and kill it as often as you like.

    `program`: what the flags are given to, for a controller in other surroundings (a mount namespace, a
    launcher that breaks something).
    """

    def __init__(
        self,
        lab: Lab,
        *,
        name: str = "controller",
        arguments: tuple[str, ...] = (),
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._lab = lab
        self._name = name
        self._arguments = arguments
        self._program = tuple(program)
        self._health = free_port()
        self._metrics = free_port()
        self._record: ProcessRecord | None = None
        self._started = 0
        self.log = lab.directory / f"{name}.log"
        self._kubeconfig = lab.directory / f"{name}.kubeconfig"

    @property
    def plane(self) -> ControlPlane:
        """The control plane it works with."""
        return self._lab.control_plane()

    def install(self) -> None:
        """Apply `manifests/overlays/central` as shipped and log in as its ServiceAccount."""
        self.plane.kubectl("apply", "--server-side", "-k", str(REPOSITORY / "manifests/overlays/central"))
        self.plane.kubectl(
            "wait", "--for=condition=Established", "--timeout=30s", "crd", "volumesnapshots.varve.dev"
        )
        self.plane.service_account_kubeconfig(self._kubeconfig, NAMESPACE, ACCOUNT)

    def start(self, *extra: str, timeout: float = 30) -> None:
        """Start the process and wait until it says that it is ready."""
        if not self._kubeconfig.exists():
            self.install()
        self._started += 1
        argv = [
            *self._program,
            f"--kubeconfig={self._kubeconfig}",
            f"--health-probe-bind-address=127.0.0.1:{self._health}",
            f"--metrics-bind-address=127.0.0.1:{self._metrics}",
            f"--lease-namespace={NAMESPACE}",
            *self._arguments,
            *extra,
        ]
        name = f"{self._name}-{self._started}"
        self._record = self._lab.session.spawn(
            name, argv, log=self.log, env={"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
        )
        wait_until(
            self.is_ready,
            timeout=timeout,
            what=f"the controller is ready ({self.log})",
            failed=lambda: self._lab.session.why_gone(name, self.log),
        )

    def is_ready(self) -> bool:
        """What /readyz says; False while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> str:
        """The metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        """The sum over all labels of one metric; 0 when it is not there."""
        lines = (line for line in self.metrics().splitlines() if not line.startswith("#"))
        found = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    @property
    def pid(self) -> int:
        """The process that runs now."""
        return self._running().pid

    def _running(self) -> ProcessRecord:
        if self._record is None:
            raise RuntimeError("the controller was not started")
        return self._record

    @property
    def running(self) -> bool:
        """Whether the process that was started last still runs."""
        return self._record is not None and is_alive(self._record)

    def wait_ended(self, timeout: float = 30) -> int:
        """Wait until the process ends by itself; returns the exit code (negative: a signal)."""
        if self._record is not None and not wait_gone(self._record, timeout):
            raise LabError(f"the controller did not end within {timeout:g} s ({self.log})")
        return self._exit_code()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self, timeout: float = 30) -> int:
        """SIGTERM; returns the exit code."""
        self._end(signal.SIGTERM, timeout)
        return self._exit_code()

    def pause(self) -> None:
        """SIGSTOP: it sees and does nothing."""
        send_signal(self._running(), signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        send_signal(self._running(), signal.SIGCONT)

    def _exit_code(self) -> int:
        """How the process ended, which the keeper knows a moment after its first thread is gone. Raises
        LabError if it has not."""

        def ended() -> tuple[int] | None:
            code = self._lab.session.exit_code(f"{self._name}-{self._started}")
            return None if code is None else (code,)

        return wait_until(ended, timeout=5, what=f"the end of the controller ({self.log})")[0]

    def _end(self, number: signal.Signals, timeout: float = 30) -> None:
        if self._record is not None:
            send_signal(self._record, number)
            wait_gone(self._record, timeout)
            self._record = None


def hypervisor(name: str, uri: str, access: list[dict[str, Any]] | None = None) -> str:
    """A Hypervisor object as JSON for `kubectl apply -f -`; open to everybody unless `access` says not."""
    return json.dumps(
        {
            "apiVersion": "varve.dev/v1alpha1",
            "kind": "Hypervisor",
            "metadata": {"name": name},
            "spec": {"uri": uri, "access": EVERYBODY if access is None else access},
        }
    )


def snapshot(name: str, domain: str, *, namespace: str = "shop", disk: str = "vda", **spec: Any) -> str:
    """A VolumeSnapshot object as JSON for `kubectl apply -f -`."""
    return json.dumps(
        {
            "apiVersion": "varve.dev/v1alpha1",
            "kind": "VolumeSnapshot",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"source": {"domain": domain, "disk": disk}, **spec},
        }
    )


def policy(name: str = "standard", **spec: Any) -> str:
    """The default VolumeSnapshotClass as JSON for `kubectl apply -f -`."""
    return json.dumps(
        {
            "apiVersion": "varve.dev/v1alpha1",
            "kind": "VolumeSnapshotClass",
            "metadata": {"name": name, "annotations": {"varve.dev/is-default-class": "true"}},
            "spec": spec,
        }
    )


def lent(place: ImageSource, content: str = "Format") -> dict[str, Any]:
    """The part of a VolumeSnapshot's spec that sends its layer to `place`, which was made beforehand.

    Credentials are not said: varve takes them from the disk, if that is on the same server.
    """
    if place.protocol in {"file", "block"}:
        return {"overlay": {"source": {"path": place.name, "content": content}}}
    host: dict[str, Any] = (
        {"socket": place.socket} if place.socket else {"name": place.host, "port": place.port}
    )
    source = {"protocol": place.protocol, "name": place.name, "hosts": [host], "content": content}
    return {"overlay": {"source": source}}
