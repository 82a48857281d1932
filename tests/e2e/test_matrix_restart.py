"""What somebody's `virsh define` does to a chain that libvirt cannot find by itself, and what mends it."""

from __future__ import annotations

import libvirt
import pytest
from lxml import etree

from lab.deadline import wait_until
from lab.machines.machine import Machine
from tests.e2e.matrix import on
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]

_WHOLE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


def define_short(machine: Machine, *leave_out: str) -> str:
    """Define the machine anew, as a tool does that knows its disk and nothing of layers, nor of what else is
    left out. Gives the definition that it had."""
    before: str = machine.domain.XMLDesc(_WHOLE)
    root = etree.fromstring(before)
    for path in ("devices/disk/backingStore", *leave_out):
        for element in root.findall(path):
            parent = element.getparent()
            assert parent is not None
            parent.remove(element)
    machine.host.connection().defineXML(etree.tostring(root, encoding="unicode"))
    return before


@pytest.mark.parametrize("kind", ["rbd", "nbd-tls", "iscsi-chap"])
def test_a_definition_without_its_layers_is_whole_again_before_the_next_start(
    stage: Stage, kind: str
) -> None:
    """Without that, the disks that must log in would not even start."""
    matrix = on(stage, kind, "short")
    machine = matrix.machine
    matrix.take("1", "2")
    before = [layer.source for layer in machine.chain(inactive=True)]
    define_short(machine, "metadata")
    wait_until(
        lambda: [layer.source for layer in machine.chain(inactive=True)] == before,
        timeout=30,
        what="the whole chain in the definition",
    )
    wait_until(lambda: "varve.dev" in machine.domain.XMLDesc(_WHOLE), timeout=30, what="the journal in it")
    matrix.stop_and_start()
    matrix.delete("1")
    matrix.take("3")
    matrix.delete("2", "3")
    matrix.stop_and_start()


def test_started_without_its_layers_it_waits_for_one_more_start(stage: Stage) -> None:
    matrix = on(stage, "nbd", "started-short")
    machine, shop = matrix.machine, stage.shop
    matrix.take("1", "2")
    stage.controller.stop()
    before = define_short(machine)
    machine.destroy()
    machine.start()
    assert len(machine.chain()) == 1
    stage.controller.start()

    shop.begin_delete(matrix.named("1"))
    for name in ("1", "2"):
        assert "Layers out of sight" in shop.waits_for(matrix.named(name), "ChainUnknown")
    machine.wait_writing()
    assert len(machine.chain()) == 1

    machine.host.connection().defineXML(before)  # by hand, as docs/operations.md says
    wait_until(
        lambda: "start it once" in shop.condition(matrix.named("1"), "Ready")["message"],
        timeout=60,
        what="the news of the definition",
    )
    machine.destroy()
    machine.start()
    matrix.points.kept.pop(matrix.named("1"))
    shop.gone(matrix.named("1"))
    shop.ready(matrix.named("2"))
    matrix.points.verify()
