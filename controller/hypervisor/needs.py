"""What a hypervisor may lack, what that stops, and what brings it.

Two ways lead here. What libvirt can be asked for (:mod:`controller.hypervisor.probe`) is known to be missing
before anybody needs it. Which drivers QEMU has cannot be asked without touching a machine:
``query-qmp-schema`` lists those that it was built with, whether their modules are installed or not. QEMU says
so when one is used, in the words that :func:`block_driver_of` knows (measured on QEMU 7.2, with its modules
taken away).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_STORAGE = {
    "storage-dir": (
        "directories cannot be listed: nothing is merged down into a file, because nobody can tell what "
        "else stands on it, and merged images stay as orphans",
        "Debian: package libvirt-daemon; elsewhere libvirt-daemon-driver-storage",
    ),
    "storage-gluster": (
        "nothing is merged down into an image on gluster, because nobody can tell what else stands on it; "
        "merged images there stay as orphans, and libvirt neither keeps relative names in headers nor finds "
        "a chain again after a restart",
        "package libvirt-daemon-driver-storage-gluster, then restart libvirtd",
    ),
    "storage-rbd": (
        "merged images on RBD stay as orphans, and pools of RBD cannot be named in overlay.pool",
        "package libvirt-daemon-driver-storage-rbd, then restart libvirtd",
    ),
}
_NO_STORAGE = (
    "directories cannot be listed: nothing is merged down into an image that lies in one, merged images stay "
    "as orphans, and pools cannot be named in overlay.pool",
    "package libvirt-daemon-driver-storage (Debian 12: libvirt-daemon) and a restart of libvirtd; with "
    "modular daemons virtstoraged (systemctl enable --now virtstoraged.socket), then a restart of virtqemud",
)
_FEATURES = {
    "backing-store-input": (
        "chains on the network cannot be written into a domain, so after its restart nothing is merged there",
        "libvirt 5.10 or later",
    ),
}
_FLAGS = {
    "commit-active": ("the newest point cannot be merged down", "libvirt 1.2.6 or later"),
    "commit-relative": (
        "a commit makes relative names in headers absolute",
        "libvirt 1.2.7 or later",
    ),
    "rebase-relative": (
        "a pull makes relative names in headers absolute",
        "libvirt 1.2.7 or later",
    ),
    "snapshot-quiesce": ("file systems cannot be frozen for a point", "libvirt 0.9.5 or later"),
}
"""By capability: what does not work without it, and what brings it. The versions are those in which libvirt's
own documentation says that the flag came."""

ASKED_OF_DOMAINS = frozenset(_FLAGS)
"""Capabilities that are unknown as long as the hypervisor has no domain to ask with."""

_MODULES = {
    **dict.fromkeys(("gluster", "rbd", "iscsi", "ssh", "nfs"), ""),
    **dict.fromkeys(("http", "https", "ftp", "ftps"), "curl"),
}
"""Drivers of QEMU that come as modules, and the module's name where it is another."""

_NO_DRIVER = re.compile(
    r"Unknown (?:driver|protocol) '(?P<unknown>[a-z0-9-]{1,32})'"
    r"|Block driver '(?P<absent>[a-z0-9-]{1,32})' not found or not supported"
    r"|Parameter 'driver' does not accept value '(?P<unbuilt>[a-z0-9-]{1,32})'"
)
"""Of ``blockdev-add``; of the command line; of ``blockdev-create``; of a driver that was not even built."""


_NO_SERVICE = re.compile(
    r"Failed to connect socket to '[^']*/(?P<daemon>virt[a-z]+)-(?:admin-)?sock(?:-ro)?'"
)
"""libvirt's client, here inside a daemon that looks for another one (modular daemons)."""


def no_service(message: str) -> bool:
    """Whether an answer of a daemon says that it did not find another one that it needs."""
    return _NO_SERVICE.search(message) is not None


def service_advice(message: str) -> str:
    """What brings the daemon that :func:`no_service` found missing."""
    found = _NO_SERVICE.search(message)
    daemon = "its daemon" if found is None else found["daemon"]
    return f"{daemon} does not run on the hypervisor ({message}): systemctl enable --now {daemon}.socket"


def missing(capabilities: Collection[str], *, asked: bool) -> Iterator[tuple[str, str, str]]:
    """Each capability that is not there, with what does not work without it and what brings it, in order.

    ``asked``: there was a domain, so that flags which are not in ``capabilities`` are really missing.
    """
    storage = (
        _STORAGE if any(name.startswith("storage-") for name in capabilities) else {"storage": _NO_STORAGE}
    )
    known = {**storage, **_FEATURES, **(_FLAGS if asked else {})}
    for name in sorted(set(known) - set(capabilities)):
        yield (name, *known[name])


def block_driver_of(message: str) -> str | None:
    """The driver of QEMU that is missing according to an error; None when it says nothing like it."""
    found = _NO_DRIVER.search(message)
    return None if found is None else found[found.lastgroup or 0]


def advice(driver: str) -> str:
    """What brings a driver of QEMU."""
    if driver not in _MODULES:
        return f"this QEMU has no driver for {driver}, and no package brings it: use another protocol"
    module = f"block-{_MODULES[driver] or driver}.so"
    return (
        f"this QEMU has no driver for {driver}: install package qemu-block-extra (Debian, Ubuntu) or "
        f"qemu-block-{_MODULES[driver] or driver} (Fedora, SUSE), which brings {module}; "
        "machines that ran before may have to be restarted"
    )
