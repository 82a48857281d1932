"""libvirt's own event loop: one per process, on a daemon thread.

libvirt delivers events and sends keepalives only while somebody runs its event loop, and only for
connections that were opened after the loop was registered.
"""

from __future__ import annotations

import logging
import threading

import libvirt

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_running: list[threading.Thread] = []
_PAUSE = 1.0
"""Seconds between attempts when libvirt's loop itself fails (out of memory or descriptors)."""


def ensure_running() -> None:
    """Start the loop unless it runs. To be called before the first connection is opened; any thread."""
    with _lock:
        if _running:
            return
        # Every error comes back as an exception as well; by default libvirt would also print it.
        libvirt.registerErrorHandler(_silent, None)
        libvirt.virEventRegisterDefaultImpl()
        thread = threading.Thread(target=_run, name="libvirt-events", daemon=True)
        thread.start()
        _running.append(thread)


def _silent(_context: object, _error: object) -> None:
    pass


def _run() -> None:
    never = threading.Event()
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            _log.exception("libvirt's event loop failed; events and keepalives stop until it runs again")
            never.wait(_PAUSE)
