"""What a test can make the simulated hypervisor suffer from that lasts: storage that answers badly, a daemon
that is missing, a domain that hangs."""

from __future__ import annotations

import asyncio

import pytest

from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.source import Source
from controller.hypervisor.driver import Answered, Event, Removal
from controller.hypervisor.errors import (
    Busy,
    HypervisorError,
    NotExaminable,
    NotRemovable,
    OperationFailed,
    StillOpen,
    Unreadable,
)
from controller.hypervisor.simulated import ODD_NAME, SimulatedHost
from controller.hypervisor.timing import Timing

BASE = Source.file("/images/base.qcow2")
NOTE = f'<chain xmlns="{JOURNAL_NAMESPACE}"/>'


def ignore(_: Event) -> None:
    """Hear nothing."""


async def test_a_fault_lasts_until_it_is_mended() -> None:
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    driver = await host.connect(ignore)
    host.fail_before(2, Busy("held", code=68), on="read", lasting=True)
    await driver.read(uuid)
    for _ in range(3):
        with pytest.raises(Busy):
            await driver.read(uuid)
    assert len(host.faults.struck) == 3
    host.faults.mend()
    await driver.read(uuid)


async def test_a_place_that_cannot_be_listed() -> None:
    """B6, B16: a directory that libvirt cannot read, or one with a name that is not UTF-8."""
    host = SimulatedHost()
    host.add_domain("web-1", {"vda": BASE})
    driver = await host.connect(ignore)
    answers: dict[type[HypervisorError], Exception] = {
        Unreadable: ODD_NAME,
        OperationFailed: OperationFailed("cannot open directory", code=38),
    }
    for raised, error in answers.items():
        host.storage.unlistable["file:/images/"] = error
        with pytest.raises(raised):
            await driver.referrers(BASE)
        with pytest.raises(raised):
            await driver.remove_image(BASE)
    host.storage.unlistable.clear()
    assert await driver.remove_image(BASE) is Removal.REMOVED


async def test_an_image_that_cannot_be_removed() -> None:
    """B7: immutable, or on storage that is read-only; or open for ever."""
    host = SimulatedHost()
    host.add_domain("web-1", {"vda": BASE})
    driver = await host.connect(ignore)
    for error in (NotRemovable("Operation not permitted", code=38), StillOpen("a client has it open")):
        host.storage.kept[BASE.key] = error
        for _ in range(2):
            with pytest.raises(type(error)):
                await driver.remove_image(BASE)
    del host.storage.images[BASE.key]
    assert await driver.remove_image(BASE) is Removal.ABSENT


async def test_modular_daemons_without_the_one_for_storage() -> None:
    """B8: machines run, and nothing of storage answers."""
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    host.storage_daemon = False
    driver = await host.connect(ignore)
    await driver.set_metadata(uuid, NOTE, live=True, config=True)
    assert not [name for name in (await driver.facts()).capabilities if name.startswith("storage-")]
    with pytest.raises(NotRemovable):
        await driver.remove_image(BASE)
    with pytest.raises(NotRemovable):
        await driver.referrers(BASE)
    with pytest.raises(NotExaminable):
        await driver.examine(uuid, BASE, way_in=None)


async def test_a_domain_whose_documents_wait_for_a_job() -> None:
    """B9: libvirt 11.0 to 11.4; the deadline ends the wait, and the answer is told of when it comes."""
    host = SimulatedHost()
    uuid = host.add_domain("web-1", {"vda": BASE})
    host.timing = Timing(read=0.01, definition=0.01)
    heard: list[Event] = []
    driver = await host.connect(heard.append)
    host.hang(uuid)
    waiting = asyncio.ensure_future(driver.read(uuid))
    await asyncio.sleep(0)
    host.unhang(uuid)
    assert (await waiting).live_xml
    host.hang(uuid)
    with pytest.raises(Busy):
        await driver.set_metadata(uuid, NOTE, live=True, config=False)
    with pytest.raises(Busy, match="has not answered"):
        await driver.read(uuid)
    with pytest.raises(Busy, match="nothing more is sent"):
        await driver.read(uuid)
    assert (await driver.definitions()).unread == {uuid: "web-1"}
    host.unhang(uuid)
    said = await driver.definitions()
    assert not said.unread
    host.hang(uuid)
    assert await driver.definitions() == said, "what it last said counts"
    host.unhang(uuid)
    host.shutdown(uuid)
    host.hang(uuid)
    assert (await driver.definitions()).unread, "it is off by now, and may name other images"
    host.unhang(uuid)
    assert (await driver.read(uuid)).inactive_xml
    assert Answered(uuid) in heard
