"""Where etcd, kube-apiserver and kubectl come from: what the machine has, else a build of our own."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab import cache
from lab.control.toolchain import MODULE, go_command
from lab.errors import LabError
from lab.say import say

_OLDEST = (1, 30)  # the oldest Kubernetes that the controller supports
_PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
}
_SAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Binaries:
    """Paths of the three programs, and in words where they are from."""

    etcd: Path
    kube_apiserver: Path
    kubectl: Path
    origin: str


def find_binaries() -> Binaries:
    """The programs from KUBEBUILDER_ASSETS, from PATH, or built (about six minutes on two cores, once).

    Raises LabError if KUBEBUILDER_ASSETS is set but does not hold them, or the build fails.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        return _in_directory(Path(assets), f"KUBEBUILDER_ASSETS={assets}")
    found = {name: shutil.which(name) for name in _PACKAGES}
    apiserver = found["kube-apiserver"]
    if all(found.values()) and apiserver and (_apiserver_version(apiserver) or (0, 0)) >= _OLDEST:
        return _named({name: Path(path) for name, path in found.items() if path}, "PATH")
    return _in_directory(_built(), "built from lab/go")


def _named(paths: dict[str, Path], origin: str) -> Binaries:
    return Binaries(paths["etcd"], paths["kube-apiserver"], paths["kubectl"], origin)


def _in_directory(directory: Path, origin: str) -> Binaries:
    paths = {name: directory / name for name in _PACKAGES}
    missing = [name for name, path in paths.items() if not os.access(path, os.X_OK)]
    if missing:
        raise LabError(f"{origin}: no {', '.join(missing)} in {directory}")
    return _named(paths, origin)


def _apiserver_version(program: str) -> tuple[int, int] | None:
    answer = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, timeout=30)
    found = re.search(r"v(\d+)\.(\d+)\.", answer.stdout)
    return (int(found[1]), int(found[2])) if found else None


def module_key() -> str:
    """Changes exactly when what would be built changes."""
    content = (MODULE / "go.mod").read_bytes() + (MODULE / "go.sum").read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _built() -> Path:
    return cache.once("control-plane", module_key(), _build_all)


def kubernetes_version() -> str:
    """The version that lab/go/go.mod requires, such as v1.36.3."""
    found = re.search(r"k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(encoding="utf-8"))
    if found is None:
        raise LabError(f"{MODULE / 'go.mod'} does not require k8s.io/kubernetes")
    return found[1]


def _build_all(directory: Path) -> None:
    version = kubernetes_version()
    major, minor = version.lstrip("v").split(".")[:2]
    stamp = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    flags = " ".join(
        ["-s -w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamp.items())]
    )
    go = go_command()
    say(f"building the control plane ({', '.join(_PACKAGES)}) once; minutes the first time")
    for name, package in _PACKAGES.items():
        _build(name, [go, "build", "-trimpath", "-ldflags", flags, "-o", str(directory / name), package])


def _build(name: str, argv: list[str]) -> None:
    """Run one build and say every few seconds that it still runs: minutes of silence look like a hang."""
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOWORK": "off",
    }
    began = time.monotonic()
    with subprocess.Popen(argv, cwd=MODULE, env=environment, stdin=subprocess.DEVNULL) as build:
        while True:
            try:
                code = build.wait(_SAY_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(f"building {name}: {time.monotonic() - began:.0f} s")
            except BaseException:
                build.kill()
                raise
    if code != 0:
        raise LabError(f"building {name} failed with exit code {code}: see the lines above")
    say(f"built {name} in {time.monotonic() - began:.0f} s")
