"""One etcd and one kube-apiserver on loopback."""

from __future__ import annotations

import json
import os
import secrets
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab import process
from lab.control.binaries import Binaries, find_binaries
from lab.control.pki import Pki, make_pki
from lab.deadline import wait_until
from lab.errors import LabError
from lab.ports import free_port
from lab.process import ProcessRecord
from lab.root import hand_over
from lab.session import Session

NOTE = "control-plane"
_READY_SECONDS = 60.0
_STOP_SECONDS = 30.0
ETCD = "etcd"
APISERVER = "kube-apiserver"


class ControlPlane:
    """A running Kubernetes API: RBAC, CEL, service-account tokens; no controllers, no nodes.

    So a Deployment makes no pod, and a deleted namespace stays in Terminating.
    """

    def __init__(self, session: Session, description: Mapping[str, Any]) -> None:
        self._session = session
        self._directory = session.directory / "control-plane"
        self._ports: dict[str, int] = description["ports"]
        self._commands: dict[str, list[str]] = description["commands"]
        self.server = f"https://127.0.0.1:{self._ports['apiserver']}"
        self.kubectl_path = Path(description["kubectl"])
        self.kubeconfig = self._directory / "admin.kubeconfig"
        self.token: str = description["token"]
        self.ca = self._directory / "pki" / "ca.crt"

    @classmethod
    def start(cls, session: Session) -> ControlPlane:
        """Start one and wait until /readyz says so. Builds the programs if they are not there yet."""
        binaries = find_binaries()
        directory = session.directory / "control-plane"
        pki = make_pki(directory / "pki")
        ports = {name: free_port() for name in ("etcd", "peer", "apiserver")}
        token = secrets.token_hex(16)
        tokens = directory / "tokens.csv"
        tokens.touch(0o600)
        tokens.write_text(f'{token},admin,admin,"system:masters"\n', encoding="utf-8")
        description = {
            "ports": ports,
            "commands": {
                ETCD: _etcd_command(binaries, directory, ports),
                APISERVER: _apiserver_command(binaries, pki, tokens, ports),
            },
            "kubectl": str(binaries.kubectl),
            "token": token,
        }
        plane = cls(session, description)
        plane.kubeconfig.touch(0o600)
        hand_over(plane.write_kubeconfig(plane.kubeconfig, token))
        session.note(NOTE, description)
        plane.start_etcd()
        plane.start_apiserver()
        return plane

    @classmethod
    def attach(cls, session: Session) -> ControlPlane | None:
        """The lab's control plane, if one was started."""
        description = session.state().notes.get(NOTE)
        return cls(session, description) if description else None

    # -- use

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator. Raises LabError with its stderr when `check` and it fails."""
        answer = subprocess.run(
            [str(self.kubectl_path), *arguments],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=timeout,
            env=self.environment(),
        )
        if check and answer.returncode != 0:
            raise LabError(f"kubectl {' '.join(arguments)}: {answer.stderr.strip()}")
        return answer

    def environment(self) -> dict[str, str]:
        """This process's environment, with KUBECONFIG and with the lab's kubectl first on PATH."""
        path = f"{self.kubectl_path.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def write_kubeconfig(self, path: Path, token: str, *, namespace: str = "default") -> Path:
        """Write a kubeconfig for whoever has `token` (a service account, say). Returns `path`."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "lab", "cluster": {"server": self.server, "certificate-authority": str(self.ca)}}
            ],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [
                {"name": "lab", "context": {"cluster": "lab", "user": "user", "namespace": namespace}}
            ],
            "current-context": "lab",
        }
        path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")  # JSON is YAML
        return path

    def service_account_kubeconfig(
        self, path: Path, namespace: str, name: str, *, seconds: int = 86400
    ) -> Path:
        """Write a kubeconfig with a fresh token of an existing ServiceAccount. Returns `path`."""
        arguments = ("create", "token", name, "--namespace", namespace, f"--duration={seconds}s")
        path.touch(0o600)
        return self.write_kubeconfig(path, self.kubectl(*arguments).stdout.strip(), namespace=namespace)

    # -- faults

    def start_etcd(self) -> None:
        """Start etcd (again, with the data it had) and wait until it is healthy."""
        self._spawn(ETCD, f"http://127.0.0.1:{self._ports['etcd']}/health")

    def start_apiserver(self) -> None:
        """Start kube-apiserver (again, same port) and wait for /readyz and the namespace kube-system."""
        self._spawn(APISERVER, f"{self.server}/readyz")
        wait_until(
            lambda: self._answers(f"{self.server}/api/v1/namespaces/kube-system"),
            timeout=_READY_SECONDS,
            what="the namespace kube-system",
        )

    def kill_apiserver(self) -> None:
        """SIGKILL kube-apiserver; returns when it is gone."""
        self._end(APISERVER, signal.SIGKILL)

    def kill_etcd(self) -> None:
        """SIGKILL etcd; returns when it is gone."""
        self._end(ETCD, signal.SIGKILL)

    def stop_apiserver(self) -> None:
        """SIGTERM kube-apiserver; returns when it is gone."""
        self._end(APISERVER, signal.SIGTERM)

    def stop_etcd(self) -> None:
        """SIGTERM etcd; returns when it is gone."""
        self._end(ETCD, signal.SIGTERM)

    def restart_apiserver(self) -> None:
        """SIGKILL kube-apiserver and start it again."""
        self.kill_apiserver()
        self.start_apiserver()

    def pause_apiserver(self) -> None:
        """SIGSTOP kube-apiserver: it accepts connections and never answers."""
        process.send_signal(self.record(APISERVER), signal.SIGSTOP)

    def resume_apiserver(self) -> None:
        """SIGCONT kube-apiserver."""
        process.send_signal(self.record(APISERVER), signal.SIGCONT)

    def record(self, name: str) -> ProcessRecord:
        """The process of `etcd` or `kube-apiserver`. Raises LabError if it does not run."""
        record = self._session.state().processes.get(name)
        if record is None:
            raise LabError(f"{name} does not run")
        return record

    def _end(self, name: str, number: signal.Signals) -> None:
        record = self.record(name)
        process.send_signal(record, number)
        if not process.wait_gone(record, _STOP_SECONDS):
            raise LabError(f"{name} did not end within {_STOP_SECONDS:g} s of {number.name}")

    def _spawn(self, name: str, url: str) -> None:
        log = self._directory / f"{name}.log"
        self._session.spawn(name, self._commands[name], log=log)
        wait_until(
            lambda: self._answers(url),
            timeout=_READY_SECONDS,
            what=f"{name} at {url}",
            interval=0.05,
            failed=lambda: self._session.why_gone(name, log),
        )

    def _answers(self, url: str) -> bool:
        """Whether an HTTP GET is answered with 200."""
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own URL
        context = ssl.create_default_context(cafile=str(self.ca)) if url.startswith("https:") else None
        try:
            with urllib.request.urlopen(request, timeout=2, context=context) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:  # not listening, not ready (500), reset, too slow: urllib's and ssl's errors too
            return False


def _etcd_command(binaries: Binaries, directory: Path, ports: dict[str, int]) -> list[str]:
    client, peer = (f"http://127.0.0.1:{ports[name]}" for name in ("etcd", "peer"))
    return [
        *(
            str(binaries.etcd),
            "--name=lab",
            f"--data-dir={directory / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ),
        *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
        *(
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=lab={peer}",
        ),
    ]


def _apiserver_command(binaries: Binaries, pki: Pki, tokens: Path, ports: dict[str, int]) -> list[str]:
    return [
        str(binaries.kube_apiserver),
        f"--etcd-servers=http://127.0.0.1:{ports['etcd']}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",  # loopback is refused for the `kubernetes` Endpoints
        f"--secure-port={ports['apiserver']}",
        f"--tls-cert-file={pki.server_certificate}",
        f"--tls-private-key-file={pki.server_key}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki.service_account_public_key}",
        f"--service-account-signing-key-file={pki.service_account_key}",
        "--service-cluster-ip-range=10.96.0.0/16",
    ]
