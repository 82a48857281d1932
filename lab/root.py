"""The lab needs root: mount namespaces, a privileged libvirtd, gluster's extended attributes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.say import say

# What a sudo policy may drop although the lab's answer depends on it.
_KEPT = (
    "PATH",
    "HOME",
    "XDG_CACHE_HOME",
    "VARVE_LAB_DIR",
    "VARVE_LAB_CACHE",
    "KUBEBUILDER_ASSETS",
    "PYTHONPATH",
)


def require_root() -> None:
    """Raise LabError, with the way out, if this process is not root."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root (namespaces, libvirtd): run the same command with `sudo -E`")


def become_root(module: str, arguments: Sequence[str]) -> None:
    """If this process is not root: replace it by `python -m MODULE ARGUMENTS` below sudo, and say so."""
    if os.geteuid() == 0:
        return
    sudo = shutil.which("sudo")
    if sudo is None:
        require_root()
        return
    say("needs root (namespaces, libvirtd): going on with sudo")
    kept = [f"{name}={os.environ[name]}" for name in _KEPT if name in os.environ]
    argv = [sudo, "env", *kept, sys.executable, "-m", module, *arguments]
    os.execv(sudo, argv)  # noqa: S606 - no shell is the point


def hand_over(path: Path) -> None:
    """Give a file to the person who called sudo, if that is how we became root."""
    if os.geteuid() == 0 and "SUDO_UID" in os.environ:
        os.chown(path, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
