"""Storage pools that an administrator makes beside a controller that is at work."""

from __future__ import annotations

import libvirt

from controller.hypervisor.storage import OURS
from lab.deadline import wait_until


def made_pool(connection: libvirt.virConnect, xml: str) -> libvirt.virStoragePool:
    """A transient pool with this definition.

    varve may list the same place at this moment, and has a pool of its own on it for some milliseconds;
    libvirt takes one at most. So it is tried again, as docs/operations.md tells people to do.
    """

    def make() -> libvirt.virStoragePool | None:
        try:
            return connection.storagePoolCreateXML(xml, 0)
        except libvirt.libvirtError as error:
            if f"Storage source conflict with pool: '{OURS}" in str(error):
                return None
            raise

    return wait_until(make, timeout=30, what="a place that no pool of varve is on")
