"""Another Debian release in a folder: its libvirtd and QEMU serve a host of the lab.

Made by debootstrap once per machine and kept in the cache of the lab (some 600 MiB), from the mirror that the
machine has for its own apt. The servers of the lab serve its hosts too.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab import cache, namespace
from lab.errors import LabError
from lab.install import install
from lab.say import say

GROUP = "releases"
"""Of :data:`lab.install.GROUPS`: what makes a release."""

_PACKAGES = {
    "trixie": (
        "glusterfs-common",
        "libvirt-daemon",
        "libvirt-daemon-driver-qemu",
        "libvirt-daemon-driver-secret",
        "libvirt-daemon-driver-storage",
        "libvirt-daemon-driver-storage-gluster",
        "libvirt-daemon-driver-storage-logical",
        "libvirt-daemon-driver-storage-rbd",
        "qemu-block-extra",
        "qemu-system-x86",
        "qemu-utils",
    ),
}
RELEASES = tuple(_PACKAGES)
_RECIPE = "2"
"""Another one makes the folder anew: change it with what is installed."""
_LAST_LINES = 5
_NO_SERVICES = "#!/bin/sh\nexit 101\n"


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is there."""

    name: str
    root: Path

    @classmethod
    def get(cls, name: str) -> Release:
        """The release of this name, made at the first call. Raises LabError with what is in the way."""
        if name not in _PACKAGES:
            raise LabError(f"unknown release {name!r}; there are {', '.join(RELEASES)}")
        try:
            install(GROUP)
        except SystemExit as error:
            raise LabError(f"no release {name}: {error}") from None
        return cls(name, cache.once(f"release-{name}", _RECIPE, lambda folder: _make(name, folder)))


def _make(name: str, folder: Path) -> None:
    mirror = _mirror()
    say(f"making Debian {name} in a folder, from {mirror}: takes some minutes, once")
    _run(["debootstrap", "--variant=minbase", name, str(folder), mirror])
    # Without this, a package that is installed may start its daemon, on the machine's own addresses.
    policy = folder / "usr/sbin/policy-rc.d"
    policy.write_text(_NO_SERVICES, encoding="ascii")
    policy.chmod(0o755)
    resolver = Path("/etc/resolv.conf")
    if resolver.exists():
        (folder / "etc/resolv.conf").write_text(resolver.read_text(encoding="utf-8"), encoding="utf-8")
    inside = ["chroot", str(folder)]
    _run([*inside, "apt-get", "-q", "update"])
    _run([*inside, "apt-get", "-q", "-y", "--no-install-recommends", "install", *_PACKAGES[name]])
    _run([*inside, "apt-get", "clean"])
    _run([*inside, "groupadd", "--system", "--force", "libvirt-qemu"])
    if b"\nlibvirt-qemu:" not in (folder / "etc/passwd").read_bytes():
        _run([*inside, "useradd", "--system", "--gid", "libvirt-qemu", "libvirt-qemu"])


def _mirror() -> str:
    """Where the machine's own apt gets Debian from. Raises LabError."""
    wanted = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    wanted += ["Created-By: Packages", "Label: Debian", "Component: main"]
    for _ in range(2):
        try:
            said = subprocess.run(wanted, check=False, capture_output=True, text=True)
        except FileNotFoundError:
            raise LabError("there is no apt-get here, whose mirror could serve") from None
        if said.stdout.strip():
            return said.stdout.split()[0]
        _run(["apt-get", "-q", "update"])  # labels are known of what was fetched
    raise LabError("apt of this machine has no mirror of Debian (apt-get indextargets shows what it has)")


def _run(argv: list[str]) -> None:
    """Run a program in a mount namespace of its own, so that what it mounts goes with it."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    with tempfile.TemporaryFile() as output:
        command = namespace.command(argv, binds=[])
        code = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        ).returncode
        output.seek(0)
        last = output.read().decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
    if code != 0:
        raise LabError(f"{' '.join(argv)} ended with {code}: {' | '.join(last)}")
