"""QEMU whose modules for the network are not installed, as Debian has it without qemu-block-extra."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.chain.disk import Layer
from controller.chain.parse import parse_domain
from controller.chain.source import Host as SourceHost
from controller.chain.source import Source
from controller.hypervisor.errors import DriverMissing
from controller.hypervisor.libvirt_driver import connect_libvirt
from controller.hypervisor.snapshot_xml import snapshot_xml
from lab import Host
from lab.hosts.layout import Layout
from lab.lab import Lab
from tests.hypervisor.real.subject import Events

MODULES = Path("/usr/lib/x86_64-linux-gnu/qemu")

pytestmark = pytest.mark.real


class WithoutModules(Layout):
    """The directories of a host whose QEMU finds no block driver beside those that it was built with."""

    def binds(self) -> list[tuple[Path, str]]:
        """Cover the directory of the modules with one that lacks some."""
        rest = self.directory / "modules"
        shutil.copytree(MODULES, rest, ignore=shutil.ignore_patterns("block-*"))
        return [*super().binds(), (rest, str(MODULES))]

    def keep_capabilities(self) -> None:
        """What this QEMU can do is nothing for others to know."""


@pytest.fixture
def bare(lab: Lab) -> Iterator[Host]:
    if not (MODULES / "block-rbd.so").exists():
        pytest.skip(f"the modules of this QEMU are not in {MODULES}")
    host = Host(lab.session, "bare")
    host.layout = WithoutModules(host.layout.directory)
    host.layout.make()
    host.images.mkdir()
    host.start()
    yield host
    for machine in host.machines():
        machine.remove()
    host.stop()


async def test_a_driver_that_qemu_lacks_is_named_with_its_package(bare: Host, lab: Lab) -> None:
    machine = bare.machine("bare-1", [lab.disk("file", "bare-1")])
    driver = await connect_libvirt(bare.uri)(Events())
    try:
        definition = parse_domain(machine.domain.XMLDesc(0))
        for protocol, name in (("rbd", "p/i"), ("iscsi", "iqn.2024-01.lv:t1/1")):
            overlay = Layer(Source.network(protocol, name, [SourceHost("127.0.0.1", "1")]), "qcow2")
            before = machine.domain.XMLDesc(0)
            with pytest.raises(DriverMissing, match="qemu-block-extra") as caught:
                await driver.create_snapshot(machine.uuid, snapshot_xml(definition, {"vda": overlay}))
            assert f"driver '{protocol}'" in caught.value.message
            assert machine.domain.XMLDesc(0) == before
    finally:
        await driver.close()
