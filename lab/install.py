"""Install what the lab needs from Debian's packages. Standard library only: it runs before there is a
virtualenv.

Some storage servers are big and few people ask for them: their packages are groups of their own, brought when
the lab is first asked for the server. So is what makes another release of Debian in a folder.

`python3 lab/install.py` (or `python -m lab.install`) says what is missing, installs it with apt-get,
through sudo when the caller is not root. What is there is left alone; with nothing missing it needs no root
and no network.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# Command that proves a package's presence -> package. Looking at files works without dpkg's lock, and for
# self-built programs as well.
COMMANDS = {
    "libvirtd": "libvirt-daemon",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "glusterd": "glusterfs-server",
    "gluster": "glusterfs-cli",
    "as": "binutils",
    "openssl": "openssl",
    "gcc": "gcc",
    "pkg-config": "pkg-config",
    "git": "git",
}
# The same for things that are no commands: a file of the package, with its directory's pattern.
FILES = {
    "usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so": "libvirt-daemon-driver-qemu",
    "usr/lib/*/libvirt/storage-file/libvirt_storage_file_gluster.so": "libvirt-daemon-driver-storage-gluster",
    "usr/lib/*/libvirt/storage-backend/libvirt_storage_backend_rbd.so": "libvirt-daemon-driver-storage-rbd",
    "usr/lib/*/qemu/block-gluster.so": "qemu-block-extra",
    "usr/include/libvirt/libvirt.h": "libvirt-dev",
    "usr/lib/*/libc.so": "libc6-dev",
}
# The same, of libvirt's drivers that Debian 12 has in libvirt-daemon, and Debian 13 in packages of their own:
# asked for only when all else is there, so that no package is named that a release does not have.
_LIBVIRT = "usr/lib/*/libvirt"
SPLIT = {
    f"{_LIBVIRT}/connection-driver/libvirt_driver_secret.so": "libvirt-daemon-driver-secret",
    f"{_LIBVIRT}/connection-driver/libvirt_driver_storage.so": "libvirt-daemon-driver-storage",
    f"{_LIBVIRT}/storage-backend/libvirt_storage_backend_logical.so": "libvirt-daemon-driver-storage-logical",
}
# Group -> command -> package, for what is brought on demand.
GROUPS = {
    "iscsi": {"tgtd": "tgt", "tgtadm": "tgt"},
    "rbd": {"ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd", "ceph": "ceph-common", "rbd": "ceph-common"},
    "releases": {"debootstrap": "debootstrap", "chroot": "coreutils"},
}
# Services that a package would start at once, on all addresses: the lab starts its own, on loopback.
_SERVICES = {"tgt": "tgt.service"}
_ROUNDS = 2
"""What is split off is looked for when the rest is there."""
_LOCK_SECONDS = 300  # another apt-get may be at work
_SEARCH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
# libvirtd looks this user up before it reads its configuration; the package that makes it brings systemd
# units along.
_ACCOUNT = "libvirt-qemu"


def missing_packages(group: str | None = None) -> list[str]:
    """Debian packages that are needed and not there: those of every lab, or those of one of GROUPS."""
    if group is not None:
        return sorted(_missing_commands(GROUPS[group]))
    missing = _missing_commands(COMMANDS) | _missing_files(FILES) | _missing_for_python()
    return sorted(missing or _missing_files(SPLIT))


def _missing_files(files: dict[str, str], root: Path = Path("/")) -> set[str]:
    return {package for pattern, package in files.items() if next(root.glob(pattern), None) is None}


def _missing_commands(commands: dict[str, str]) -> set[str]:
    return {package for name, package in commands.items() if shutil.which(name, path=_SEARCH) is None}


def _missing_for_python() -> set[str]:
    """What this interpreter lacks to make a virtualenv and to compile the libvirt binding in it."""
    missing = set()
    if importlib.util.find_spec("ensurepip") is None:
        missing.add("python3-venv")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        missing.add("python3-dev")
    return missing


def _account_is_missing() -> bool:
    accounts = Path("/etc/passwd").read_text(encoding="utf-8").splitlines()
    return not any(line.startswith(f"{_ACCOUNT}:") for line in accounts)


def _as_root(*command: str) -> None:
    """Run a command as root, saying so. Raises SystemExit with a sentence if it fails."""
    words = list(command)
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise SystemExit(f"lab: needs root and there is no sudo: run as root: {' '.join(words)}")
        words = ["sudo", *words]
    print(f"lab: {' '.join(words)}", file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(words, check=False, env=environment, stdout=sys.stderr).returncode != 0:
        raise SystemExit(f"lab: failed: {' '.join(words)}")


def install(group: str | None = None) -> None:
    """Bring everything that every lab needs, or one of GROUPS.

    Nothing is done and nothing said when it is there. Raises SystemExit with a sentence if it cannot be.
    """
    for _ in range(_ROUNDS):
        packages = missing_packages(group)
        if not packages:
            break
        if shutil.which("apt-get") is None:
            raise SystemExit(f"lab: this is not Debian; install what it packages as: {' '.join(packages)}")
        purpose = f" (for {group})" if group else ""
        print(f"lab: not installed yet{purpose}: {' '.join(packages)}", file=sys.stderr, flush=True)
        _bring(packages)
        still = set(missing_packages(group)) & set(packages)
        if still:
            raise SystemExit(
                f"lab: apt-get installed them and yet these are missing: {' '.join(sorted(still))}"
            )
    if _account_is_missing():
        _as_root("groupadd", "--system", "--force", _ACCOUNT)
        _as_root("useradd", "--system", "--gid", _ACCOUNT, "--shell", "/usr/sbin/nologin", _ACCOUNT)


def _bring(packages: list[str]) -> None:
    apt_get = ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={_LOCK_SECONDS}"]
    if Path("/run/systemd/system").is_dir():  # sd_booted(3)
        for service in (_SERVICES[package] for package in packages if package in _SERVICES):
            _as_root("systemctl", "mask", service)
    _as_root(*apt_get, "update")
    _as_root(*apt_get, "install", "-y", "--no-install-recommends", *packages)


if __name__ == "__main__":
    install()
