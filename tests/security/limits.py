"""A limit on the memory of a process, as a Deployment's limit is one: a control group."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from lab.controller import PROGRAM, REPOSITORY

_ROOT = Path("/sys/fs/cgroup")
_HERE = {
    "v2": (_ROOT, "memory.max"),
    "v1": (_ROOT / "memory", "memory.limit_in_bytes"),
}
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def deployed_limit() -> int:
    """The limit of the shipped Deployment, in bytes."""
    path = REPOSITORY / "manifests/overlays/central/deployment.yaml"
    deployment = yaml.safe_load(path.read_text(encoding="utf-8"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    text = str(container["resources"]["limits"]["memory"])
    return int(text[:-2]) * _UNITS[text[-2:]]


@dataclass(frozen=True)
class Group:
    """A control group; `directory` is None where none can be made, and nothing but a measurement is left."""

    directory: Path | None
    limit: int

    @property
    def program(self) -> tuple[str, ...]:
        """The controller's program, which enters the group and becomes the controller."""
        if self.directory is None:
            return PROGRAM
        enter = f"import os,sys; open({str(self.directory / 'cgroup.procs')!r},'w').write(str(os.getpid()))"
        return (sys.executable, "-c", f"{enter}; os.execv(sys.executable, {list(PROGRAM)!r} + sys.argv[1:])")

    @staticmethod
    def peak(pid: int) -> int:
        """The most memory that a process had resident, in bytes."""
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        (found,) = (line for line in lines if line.startswith("VmHWM:"))
        return int(found.split()[1]) << 10


@contextmanager
def limited(limit: int) -> Iterator[Group]:
    """A group of this process's own with a limit in bytes, for as long as the block lasts."""
    for root, file in _HERE.values():
        directory = root / f"varve-test-{os.getpid()}"
        try:
            directory.mkdir()
        except OSError:
            continue
        try:
            if not (directory / file).exists():
                continue
            (directory / file).write_text(str(limit))
            yield Group(directory, limit)
            return
        finally:
            directory.rmdir()
    yield Group(None, limit)
