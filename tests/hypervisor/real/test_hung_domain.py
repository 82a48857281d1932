"""A machine whose QEMU hangs in the middle of a call keeps its lock; nobody else has to wait for that."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import libvirt
import pytest

from controller.hypervisor.libvirt_driver import connect_libvirt
from lab import Host
from lab.deadline import wait_until
from lab.pytest_plugin import MachineFactory

pytestmark = pytest.mark.real


async def test_a_hung_machine_does_not_make_the_hypervisor_look_dead(
    host: Host, machines: MachineFactory
) -> None:
    made = {machine.uuid: machine for machine in (machines(), machines())}
    listed = [domain.UUIDString() for domain in host.connection().listAllDomains(0)]
    hung = made[next(uuid for uuid in listed if uuid in made)]
    own = libvirt.open(host.uri)

    def ask() -> None:
        with contextlib.suppress(libvirt.libvirtError):
            own.lookupByUUIDString(hung.uuid).blockInfo("vda")

    asking = threading.Thread(target=ask)
    hung.pause_qemu()
    try:
        asking.start()
        wait_until(
            lambda: hung.domain.controlInfo()[0] != libvirt.VIR_DOMAIN_CONTROL_OK,
            timeout=30,
            what="a call waits for QEMU",
        )
        driver = await connect_libvirt(host.uri)(lambda _: None)
        async with asyncio.timeout(25):  # libvirt would wait 30 s for the lock, for each flag
            facts = await driver.facts()
        assert facts.flags_asked
        assert "commit-relative" in facts.capabilities
        (fine,) = made.keys() - {hung.uuid}
        for _ in range(3):
            said = await driver.definitions()
            assert sum(fine in document for document in said.documents) == 2
            # libvirt 11.0 to 11.4 reads it under the lock that the hung call has.
            assert hung.uuid in said.unread or any(hung.uuid in document for document in said.documents)
        await driver.close()
    finally:
        hung.resume_qemu()
        asking.join()
        own.close()
