"""A hypervisor that stops, and one that hangs."""

from __future__ import annotations

import pytest

from lab.hosts.host import Host
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def test_libvirtd_stops_and_comes_back(stage: Stage, other_host: Host) -> None:
    machine = stage.machine(name="away-1", host=other_host)
    points, shop = stage.points(machine), stage.shop
    points.take("before-the-stop")
    other_host.stop()
    shop.kubectl("wait", "--for=condition=Ready=False", "hypervisor/host-b", "--timeout=30s")
    shop.waits_for("before-the-stop", "HypervisorUnreachable")
    shop.snapshot("meanwhile", machine.name)
    shop.waits_for("meanwhile", "HypervisorUnreachable")
    shop.begin_delete("before-the-stop")
    shop.waits_for("before-the-stop", "HypervisorUnreachable")
    machine.wait_writing()  # its QEMU goes on

    other_host.start()
    shop.gone("before-the-stop", timeout=60)
    shop.ready("meanwhile", timeout=60)
    assert len(machine.chain()) == 2
    points.check_guest()


def test_libvirtd_hangs_and_goes_on(stage: Stage, other_host: Host) -> None:
    machine = stage.machine(name="hang-1", host=other_host)
    near = stage.machine()
    points, shop = stage.points(machine), stage.shop
    points.take("before-the-hang")
    other_host.pause()
    try:
        shop.snapshot("while-it-hangs", machine.name)
        shop.snapshot("on-another", near.name)
        shop.ready("on-another", timeout=10)  # one hung hypervisor slows no other
        message = shop.waits_for("while-it-hangs", "HypervisorUnreachable", timeout=45)
        assert "nothing is concluded" in message
        shop.kubectl("wait", "--for=condition=Ready=False", "hypervisor/host-b", "--timeout=30s")
        shop.delete("on-another", timeout=10)
    finally:
        other_host.resume()
    shop.ready("while-it-hangs", "before-the-hang", timeout=60)
    assert len(machine.chain()) == 3
    points.remember("while-it-hangs")
    points.verify()
