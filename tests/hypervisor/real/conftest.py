"""A driver and a disk for each test, against the session's lab."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from controller.hypervisor.driver import Driver
from controller.hypervisor.libvirt_driver import connect_libvirt
from lab import Host
from lab.pytest_plugin import MachineFactory
from tests.hypervisor.real.subject import Events, Subject


@pytest.fixture
async def events() -> Events:
    """The events of ``driver``."""
    return Events()


@pytest.fixture
async def driver(host: Host, events: Events) -> AsyncIterator[Driver]:
    """A connection to the host ``a``."""
    driver = await connect_libvirt(host.uri)(events)
    yield driver
    await driver.close()


@pytest.fixture
async def subject(driver: Driver, events: Events, machines: MachineFactory) -> Subject:
    """Disk vda of a fresh machine with two disks whose guest has written something and is paused now."""
    machine = machines("file", "file")
    machine.wait_writing()
    machine.domain.suspend()
    return Subject(driver, machine, events)
