"""Directories of a hypervisor that are its own: no tenant's layer goes there, whatever an administrator's
pattern says, and what holds device nodes is never listed.

Told from the path alone. A directory elsewhere may lead there (a link, a second mount), which no path shows.
"""

from __future__ import annotations

import posixpath
import re

_DEVICES = ("/dev", "/proc", "/sys", "/run", "/var/run", "/var/lock")
"""What the kernel and the running system keep there: libvirtd opens each node of a directory that it lists,
and opening is enough to arm a watchdog or to rewind a tape."""

_SYSTEM = (*_DEVICES, "/boot", "/etc", "/root", "/var/spool/cron", "/var/lib/libvirt")
_IMAGES = "/var/lib/libvirt/images"
"""The one directory below libvirt's own that is for images."""

DEVICES = "/dev/"
_SOCKET = "socket="


def plain(path: str) -> str:
    """The path without ``.``, ``..`` and doubled slashes, as text; links are not followed."""
    return "/" + posixpath.normpath(posixpath.join("/", path)).lstrip("/")


def holds_devices(path: str) -> str | None:
    """The directory of the kernel's or of the running system that ``path`` is or is in; None elsewhere."""
    return _among(_DEVICES, path)


def system_directory(path: str) -> str | None:
    """The directory of the hypervisor's own that ``path`` is or is in; None elsewhere."""
    return None if _is_below(_IMAGES, plain(path)) else _among(_SYSTEM, path)


def gives_device(pattern: str) -> bool:
    """Whether an administrator's pattern is one for devices: only then may it give one. What stands for
    everything was not meant for the disks of the machine itself."""
    return pattern.startswith(DEVICES)


def gives_socket(pattern: str) -> bool:
    """The same for unix sockets in a directory of the system, where those of its daemons are."""
    return system_directory(pattern.partition(_SOCKET)[2] or "/") is not None


def _among(directories: tuple[str, ...], path: str) -> str | None:
    found = plain(path)
    return next((one for one in directories if _is_below(one, found)), None)


def _is_below(directory: str, path: str) -> bool:
    return re.match(rf"{re.escape(directory)}(/|$)", path) is not None
