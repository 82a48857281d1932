"""libvirtd, QEMU, kube-apiserver and etcd end at the wrong moment, and come back."""

from __future__ import annotations

import libvirt
import pytest

from lab.deadline import wait_until
from lab.machines.machine import Machine
from tests.e2e.points import Points
from tests.e2e.stage import AT_ONCE, QUICK, Stage, gentle, other_class, overlays_in_chain

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def merging(stage: Stage, machine: Machine, unwanted: str, *, direction: str = "Cheapest") -> Points:
    """Three points, of which one is being merged away, in a job that takes some seconds."""
    points = stage.points(machine)
    stage.shop.apply(gentle(direction=direction))
    for name in ("old", "middle", "new"):
        points.take(name, rounds=256, volumeSnapshotClassName="gentle")
    machine.wait_writing(rounds=256)
    del points.kept[unwanted]
    stage.shop.begin_delete(unwanted)
    wait_until(lambda: machine.domain.blockJobInfo("vda"), timeout=20, what="the merge runs")
    return points


def merged(stage: Stage, points: Points, unwanted: str) -> None:
    """The merge comes to its end, and everything is right."""
    stage.shop.gone(unwanted, timeout=60)
    assert len(points.machine.chain()) == 3
    assert stage.overlays(points.machine) == overlays_in_chain(points.machine)
    points.verify()


def is_shut_off(machine: Machine) -> bool:
    """Whether libvirt knows that the machine does not run."""
    return bool(machine.domain.state()[0] == libvirt.VIR_DOMAIN_SHUTOFF)


@pytest.mark.parametrize("unwanted", ["middle", "new"])
def test_libvirtd_is_killed_in_the_middle_of_a_commit(stage: Stage, unwanted: str) -> None:
    machine = stage.machine(writer=QUICK)
    points = merging(stage, machine, unwanted, direction="Commit")
    stage.host.restart()
    if unwanted == "new":
        assert machine.domain.blockJobInfo("vda"), "the job did not outlive libvirtd"
        machine.domain.blockJobSetSpeed("vda", 0)
    merged(stage, points, unwanted)


@pytest.mark.parametrize(
    ("unwanted", "direction"), [("middle", "Commit"), ("new", "Commit"), ("new", "Pull")]
)
def test_qemu_is_killed_in_the_middle_of_a_merge(stage: Stage, unwanted: str, direction: str) -> None:
    machine = stage.machine(writer=QUICK)
    points = merging(stage, machine, unwanted, direction=direction)
    assert machine.domain.blockJobInfo("vda"), "the job ended too soon for this test to say anything"
    machine.kill_qemu()
    wait_until(lambda: is_shut_off(machine), timeout=10, what="libvirt sees that QEMU is gone")
    stage.shop.waits_for(unwanted, "WaitingForDomain")
    points.verify_shut_off()
    stage.shop.apply(gentle(direction=direction, limit=0))
    machine.start()
    merged(stage, points, unwanted)


def test_qemu_is_killed_right_after_a_pull_was_done(stage: Stage) -> None:
    machine = stage.machine(writer=QUICK)
    points = stage.points(machine)
    stage.shop.apply(other_class("pulling", merge={**AT_ONCE, "direction": "Pull"}))
    for name in ("old", "new"):
        points.take(name, rounds=256, volumeSnapshotClassName="pulling")
    points.delete("new")
    machine.kill_qemu()
    wait_until(lambda: is_shut_off(machine), timeout=10, what="libvirt sees that QEMU is gone")
    points.verify_shut_off()
    machine.start()
    points.verify()


def still_there(stage: Stage) -> None:
    """What a kubelet does: a controller that could not renew its Lease has ended, and is started again."""
    if not stage.controller.running:
        stage.controller.start()


def test_the_api_server_is_killed_during_a_merge(stage: Stage) -> None:
    machine = stage.machine(writer=QUICK)
    points = merging(stage, machine, "middle")
    stage.controller.plane.kill_apiserver()
    machine.wait_writing()
    stage.controller.plane.start_apiserver()
    still_there(stage)
    merged(stage, points, "middle")


def test_etcd_and_the_api_server_are_killed_between_apply_and_ready(stage: Stage) -> None:
    machine = stage.machine()
    points, shop, plane = stage.points(machine), stage.shop, stage.controller.plane
    points.take("before")
    stage.controller.pause()
    try:
        shop.snapshot("cut-off", machine.name)
        plane.kill_apiserver()
        plane.kill_etcd()
    finally:
        stage.controller.resume()
    machine.wait_writing()
    plane.start_etcd()
    plane.start_apiserver()
    still_there(stage)
    shop.ready("cut-off", timeout=60)
    points.remember("cut-off")
    assert len(machine.chain()) == 3
    points.verify()
