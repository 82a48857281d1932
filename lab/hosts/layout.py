"""The private directories and configuration files of one libvirtd."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from lab import cache

# Compiled into libvirtd; covered per host by a directory of the host's own.
_TARGETS = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
    "etc": "/etc/libvirt",
}
_QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
vnc_listen = "127.0.0.1"
nbd_tls_x509_cert_dir = "/etc/libvirt/nbd-tls"
"""
# No authentication: only root gets into the directory of the socket. No mDNS, no TCP.
_LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
unix_sock_ro_perms = "0700"
host_uuid = "{uuid}"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one host's directory."""

    directory: Path
    release: str | None = None
    """The Debian release whose libvirtd and QEMU it has; None: the machine's own."""

    @property
    def socket(self) -> Path:
        """libvirtd's read-write socket."""
        return self.directory / "run" / "libvirt-sock"

    @property
    def log(self) -> Path:
        """What libvirtd says."""
        return self.directory / "log" / "libvirtd.log"

    @property
    def output(self) -> Path:
        """What it writes to stdout and stderr."""
        return self.directory / "libvirtd.out"

    @property
    def nbd_certificates(self) -> Path:
        """Where its QEMUs find a client's certificates for NBD over TLS; empty until an export has TLS."""
        return self.directory / "etc" / "nbd-tls"

    def pid_file(self, domain: str) -> Path:
        """Where libvirt keeps the PID of a domain's QEMU."""
        return self.directory / "run" / "qemu" / f"{domain}.pid"

    @property
    def status(self) -> Path:
        """Where libvirt notes the state of each running domain, in NAME.xml."""
        return self.directory / "run" / "qemu"

    @property
    def definitions(self) -> Path:
        """Where libvirt keeps the definition of each domain, in NAME.xml."""
        return self.directory / "etc" / "qemu"

    def qemu_log(self, domain: str) -> Path:
        """What a domain's QEMU writes."""
        return self.directory / "log" / "qemu" / f"{domain}.log"

    def binds(self) -> list[tuple[Path, str]]:
        """For lab.namespace: which of our directories covers which of the system's."""
        return [(self.directory / name, target) for name, target in _TARGETS.items()]

    def make(self) -> None:
        """Make the directories and the configuration; bring the probed capabilities from the cache."""
        for name in _TARGETS:
            (self.directory / name).mkdir(parents=True)
        self.nbd_certificates.mkdir(mode=0o700)
        (self.directory / "etc" / "qemu.conf").write_text(_QEMU_CONF, encoding="ascii")
        libvirtd = _LIBVIRTD_CONF.format(uuid=uuid.uuid4())
        (self.directory / "etc" / "libvirtd.conf").write_text(libvirtd, encoding="ascii")
        if self._kept.is_dir():
            shutil.copytree(self._kept, self._capabilities, dirs_exist_ok=True)

    @property
    def _capabilities(self) -> Path:
        return self.directory / "cache" / "qemu" / "capabilities"

    @property
    def _kept(self) -> Path:
        """In the lab's cache. libvirt names an entry after QEMU's path, which is the same in all releases."""
        suffix = f"-{self.release}" if self.release else ""
        return cache.cache_directory() / f"qemu-capabilities{suffix}"

    def keep_capabilities(self) -> None:
        """Put what libvirtd has probed into the cache: the probe takes seconds.

        libvirtd itself checks that an entry fits the QEMU, libvirt and kernel at hand, and probes again
        otherwise.
        """
        fresh = {path.name for path in self._capabilities.glob("*.xml")}
        known = {path.name for path in self._kept.glob("*.xml")}
        if fresh and any(_differs(self._capabilities / name, self._kept / name) for name in fresh | known):
            incoming = self._kept.with_name(f"{self._kept.name}-{uuid.uuid4().hex}")
            shutil.copytree(self._capabilities, incoming)
            shutil.rmtree(self._kept, ignore_errors=True)
            try:
                incoming.rename(self._kept)
            except OSError:  # another lab did the same at this moment: theirs is as good
                shutil.rmtree(incoming)


def _differs(ours: Path, kept: Path) -> bool:
    return not (ours.exists() and kept.exists() and ours.read_bytes() == kept.read_bytes())
