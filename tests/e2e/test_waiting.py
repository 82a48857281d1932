"""What waits says what it waits for, changes nothing, and goes on by itself when the cause is gone."""

from __future__ import annotations

import pytest

from lab.controller import hypervisor
from lab.hosts.host import Host
from tests.e2e.stage import AT_ONCE, Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def test_a_shut_off_machine_is_waited_for(stage: Stage) -> None:
    machine = stage.machine(start=False)
    shop = stage.shop
    shop.snapshot("after-start", machine.name)
    assert "start it" in shop.waits_for("after-start", "WaitingForDomain")
    assert len(machine.chain(inactive=True)) == 1
    machine.start()
    shop.ready("after-start")
    machine.wait_writing()
    assert len(machine.chain()) == 2

    machine.destroy()
    shop.begin_delete("after-start")
    shop.waits_for("after-start", "WaitingForDomain")
    assert len(machine.chain(inactive=True)) == 2
    machine.start()
    shop.gone("after-start")
    assert len(machine.chain()) == 1


def test_a_domain_that_is_defined_later(stage: Stage) -> None:
    shop = stage.shop
    shop.snapshot("of-the-future", "later-1")
    assert "later-1" in shop.waits_for("of-the-future", "DomainNotFound")
    assert shop.condition("of-the-future", "Stalled")["status"] == "False"
    shop.fails("of-the-future")
    machine = stage.machine(name="later-1")
    shop.ready("of-the-future")
    assert len(machine.chain()) == 2


def test_access_denied_then_granted_then_taken_away(stage: Stage) -> None:
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    uri = stage.host.uri
    shop.apply(hypervisor("host-a", uri, [{"namespaces": ["elsewhere"], "domains": ["*"]}]))
    try:
        shop.snapshot("denied", machine.name)
        assert "spec.access" in shop.waits_for("denied", "AccessDenied")
        assert shop.condition("denied", "Stalled")["status"] == "True"
        assert len(machine.chain()) == 1
        shop.apply(hypervisor("host-a", uri, [{"namespaces": ["sh*"], "domains": [machine.name]}]))
        shop.ready("denied")
        machine.wait_writing()
        shop.apply(hypervisor("host-a", uri, [{"namespaces": ["elsewhere"], "domains": ["*"]}]))
        shop.waits_for("denied", "AccessDenied")
        assert len(machine.chain()) == 2
    finally:
        shop.apply(hypervisor("host-a", uri))
    shop.ready("denied")
    assert len(machine.chain()) == 2
    points.check_guest()


def test_a_class_that_is_made_later(stage: Stage) -> None:
    machine = stage.machine()
    shop = stage.shop
    shop.snapshot("classless", machine.name, volumeSnapshotClassName="made-later")
    assert "made-later" in shop.waits_for("classless", "ClassNotFound")
    shop.fails("classless")
    assert len(machine.chain()) == 1
    shop.apply(other_class("made-later"))
    shop.ready("classless")
    assert len(machine.chain()) == 2


def test_a_disk_that_does_not_exist(stage: Stage) -> None:
    machine = stage.machine()
    stage.shop.snapshot("no-disk", machine.name, disk="vdz")
    assert "virsh domblklist" in stage.shop.waits_for("no-disk", "DiskNotFound")
    stage.shop.fails("no-disk")
    stage.shop.delete("no-disk")
    assert len(machine.chain()) == 1


def test_a_hypervisor_that_does_not_exist(stage: Stage) -> None:
    """B2: somebody is told which object is wrong."""
    machine = stage.machine()
    source = {"domain": machine.name, "disk": "vda", "hypervisor": "host-z"}
    stage.shop.snapshot("no-host", machine.name, source=source)
    assert "host-z" in stage.shop.waits_for("no-host", "HypervisorNotFound")
    stage.shop.fails("no-host")
    stage.shop.delete("no-host")
    assert len(machine.chain()) == 1


def test_a_disk_without_a_beside_needs_a_place(stage: Stage) -> None:
    machine = stage.machine("nbd")
    points, shop = stage.points(machine), stage.shop
    shop.snapshot("placeless", machine.name)
    message = shop.waits_for("placeless", "OverlayRequired")
    assert "spec.overlay.directory" in message
    assert "class" in message
    assert shop.condition("placeless", "Stalled")["status"] == "True"
    assert len(machine.chain()) == 1
    place = f'-p={{"spec":{{"overlay":{{"directory":"{stage.scratch}"}}}}}}'
    shop.kubectl("patch", "vvs/placeless", "--type=merge", place)
    machine.wait_writing()
    shop.ready("placeless")
    points.remember("placeless")
    points.verify()


def test_a_pull_from_an_end_that_is_not_known_waits_for_another_direction(stage: Stage) -> None:
    machine = stage.machine("nbd")
    points, shop = stage.points(machine), stage.shop
    merge = {**AT_ONCE, "direction": "Pull"}
    place = {"directory": str(stage.scratch)}
    shop.apply(other_class("only-pull", merge=merge, overlay=place))
    points.take("endless", volumeSnapshotClassName="only-pull")
    shop.begin_delete("endless")
    assert "merge.direction" in shop.waits_for("endless", "ChainUnknown")
    assert len(machine.chain()) == 2
    shop.apply(other_class("only-pull", merge=AT_ONCE, overlay=place))
    shop.gone("endless")
    assert len(machine.chain()) == 1
    stage.points(machine).check_guest()


def test_a_name_on_two_hypervisors(stage: Stage, other_host: Host) -> None:
    one = stage.machine(name="twice-1")
    two = stage.machine(name="twice-1", host=other_host)
    shop = stage.shop
    shop.snapshot("which", "twice-1")
    message = shop.waits_for("which", "DomainAmbiguous")
    assert one.uuid in message
    assert two.uuid in message
    assert len(one.chain()) == len(two.chain()) == 1
    two.remove()
    shop.ready("which")
    assert shop.get("which")["status"]["resolved"]["domainUUID"] == one.uuid
    assert len(one.chain()) == 2


def test_a_machine_that_was_started_anew_has_other_indexes(stage: Stage) -> None:
    machine = stage.machine()
    points = stage.points(machine)
    for name in ("before-1", "before-2", "before-3"):
        points.take(name)
    points.delete("before-2")
    indexes = [layer.index for layer in machine.chain()]
    machine.destroy()
    machine.start()
    assert [layer.index for layer in machine.chain()] != indexes
    points.verify()
    points.take("after")
    points.delete("before-3")
    points.verify()
    points.delete("before-1", "after")
    assert len(machine.chain()) == 1
    points.check_guest()


def test_a_transient_domain(stage: Stage) -> None:
    machine = stage.machine()
    machine.domain.undefine()
    assert not machine.domain.isPersistent()
    points = stage.points(machine)
    points.take("fleeting-1")
    points.take("fleeting-2")
    points.delete("fleeting-1")
    points.verify()
    points.delete("fleeting-2")
    points.verify()


def test_deleting_an_object_whose_domain_is_gone_takes_a_minute(stage: Stage) -> None:
    """The slow one: the 60 s are a promise, and not for configuration."""
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    points.take("orphan")
    images = stage.overlays(machine)
    machine.remove()
    shop.waits_for("orphan", "DomainNotFound")
    shop.begin_delete("orphan")
    shop.gone("orphan", timeout=90)
    assert points.kept["orphan"].source.name in shop.wait_event("orphan", "DomainNotFound")
    assert stage.overlays(machine) == images
