"""B10 on real servers: a storage server has another address, and the stored definition says so."""

from __future__ import annotations

import libvirt
import pytest
from lxml import etree

from lab.machines.machine import Machine
from tests.e2e.matrix import Matrix, on
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]

_WHOLE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


def define_moved(machine: Machine, addresses: dict[tuple[str, str], tuple[str, str]]) -> None:
    """What somebody does with ``virsh edit``: each server (name, port) of the disks at its new address."""
    root = etree.fromstring(machine.domain.XMLDesc(_WHOLE))
    for host in root.iterfind("devices/disk//source/host"):
        name, port = addresses[host.get("name", ""), host.get("port", "")]
        host.set("name", name)
        host.set("port", port)
    machine.host.connection().defineXML(etree.tostring(root, encoding="unicode"))


def move_exports(stage: Stage, matrix: Matrix) -> dict[tuple[str, str], tuple[str, str]]:
    """All exports of the machine at other ports: old address to new."""
    names = {layer.source.name for layer in matrix.machine.chain(inactive=True)}
    addresses = {}
    for export in stage.lab.nbd.exports():
        if export.source.name in names:
            old, new = export.source, stage.lab.nbd.move(export).source
            addresses[old.host, str(old.port)] = new.host, str(new.port)
    return addresses


def verify_live(matrix: Matrix) -> None:
    """Points and guest through QEMU alone: the headers name servers that are not there any more."""
    points = matrix.points
    holders = points.holders()
    assert set(holders) == set(points.kept)
    for name, layer in holders.items():
        assert points.reader.verify(points.kept[name], layer.source, live=True).identical, name
    points.check_guest()


def test_nbd_exports_at_other_ports(stage: Stage) -> None:
    matrix = on(stage, "nbd", "moved")
    machine, shop = matrix.machine, stage.shop
    base = machine.chain()[0].source.name
    matrix.take("1", "2")
    machine.destroy()
    define_moved(machine, move_exports(stage, matrix))
    for name in ("1", "2"):
        assert "have another address" in shop.wait_event(matrix.named(name), "LayersMoved", timeout=30)
    machine.start()
    machine.wait_writing()
    shop.ready(matrix.named("1"), matrix.named("2"))
    verify_live(matrix)
    for name in ("1", "2"):
        matrix.points.delete(matrix.named(name))
        verify_live(matrix)
    assert [layer.source.name for layer in machine.chain()] == [base]


def test_gluster_by_another_address(stage: Stage) -> None:
    matrix = on(stage, "gluster", "moved")
    machine, shop = matrix.machine, stage.shop
    matrix.take("1", "2")
    stage.controller.stop()
    machine.destroy()
    server = machine.chain(inactive=True)[0].source
    first, *rest = (int(part) for part in server.host.split("."))
    other = f"{first}.{int.from_bytes(rest)}"  # the same, as inet_aton reads it
    define_moved(machine, {(server.host, str(server.port)): (other, str(server.port))})
    machine.start()
    machine.wait_writing()
    stage.controller.start()
    for name in ("1", "2"):
        assert other in shop.wait_event(matrix.named(name), "LayersMoved", timeout=30)
    shop.ready(matrix.named("1"), matrix.named("2"))
    verify_live(matrix)
    before = set(stage.lab.gluster.volume().images())
    matrix.points.delete(matrix.named("2"), matrix.named("1"))
    (left,) = machine.chain()
    assert left.source.host == other
    assert len(before - set(stage.lab.gluster.volume().images())) == 2, "the layers are removed"
    matrix.points.check_guest()
