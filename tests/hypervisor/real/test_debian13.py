"""What libvirt 11.3 does otherwise than 9.0, and what it does the same."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import libvirt
import pytest

from controller.chain.source import Source
from controller.hypervisor import errors
from controller.hypervisor.driver import Answered, Removal
from controller.hypervisor.libvirt_driver import connect_libvirt
from lab import Host, Machine
from lab.deadline import wait_until
from lab.pytest_plugin import MachineFactory
from lab.storage.image import run_qemu_tool
from tests.hypervisor.real import files
from tests.hypervisor.real.subject import Events

pytestmark = pytest.mark.real


@contextlib.contextmanager
def hanging(machine: Machine, host: Host) -> Iterator[None]:
    """Its QEMU stands still, and a call waits for it with the machine's lock."""
    own = libvirt.open(host.uri)

    def ask() -> None:
        with contextlib.suppress(libvirt.libvirtError):
            own.lookupByUUIDString(machine.uuid).blockInfo("vda")

    asking = threading.Thread(target=ask)
    machine.pause_qemu()
    try:
        asking.start()
        wait_until(
            lambda: machine.domain.controlInfo()[0] != libvirt.VIR_DOMAIN_CONTROL_OK,
            timeout=30,
            what="a call waits for QEMU",
        )
        yield
    finally:
        machine.resume_qemu()
        asking.join()
        own.close()


async def test_b9_a_machine_that_hangs_is_left_out_and_what_it_last_said_counts(
    trixie: Host, machines: MachineFactory
) -> None:
    """B9: libvirt 11.0 to 11.4 reads no definition of a machine whose lock is held, for 30 s."""
    hung, fine = machines(host=trixie), machines(host=trixie)
    for known in (False, True):
        events = Events()
        driver = await connect_libvirt(trixie.uri)(events)
        try:
            if known:
                assert not (await driver.definitions()).unread
            with hanging(hung, trixie):
                for _ in range(3):
                    async with asyncio.timeout(25):  # libvirt would wait 30 s for the lock
                        said = await driver.definitions()
                    assert sum(fine.uuid in document for document in said.documents) == 2
                    assert sum(hung.uuid in document for document in said.documents) == (2 if known else 0)
                    assert said.unread == ({} if known else {hung.uuid: hung.name})
                    assert (await driver.read(fine.uuid)).live_xml
                with pytest.raises(errors.Busy, match=f"definition of {hung.name} has not answered since"):
                    await driver.read(hung.uuid)
                assert (await driver.facts()).flags_asked
            await events.wait(Answered(hung.uuid).__eq__)
            assert (await driver.read(hung.uuid)).live_xml
        finally:
            await driver.close()


async def test_b16_an_administrators_pool_is_left_as_it_is(trixie: Host) -> None:
    """B16: libvirt takes a pool on the same place beside it, if that is spelled in another way."""
    directory = f"{trixie.images}/pooled"
    files.make_directory(directory)
    base, top = f"{directory}/base", f"{directory}/top"
    xml = f"<pool type='dir'><name>admins</name><target><path>{directory}</path></target></pool>"
    pool = trixie.connection().storagePoolCreateXML(xml)
    driver = await connect_libvirt(trixie.uri)(Events())
    try:
        run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", base, "4M")
        run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
        assert await driver.referrers(Source.file(base)) == (top,)
        assert pool.listVolumes() == [], "nobody has refreshed it"
        assert await driver.remove_image(Source.file(top)) is Removal.REMOVED
        assert await driver.remove_image(Source.file(top)) is Removal.ABSENT
        assert files.names(directory) == {"base"}
        assert pool.isActive()
    finally:
        await driver.close()
        pool.destroy()
