"""What a VolumeSnapshot can ask for, and who else may be on the same disk."""

from __future__ import annotations

import json

import pytest

from lab.controller import snapshot
from lab.errors import LabError
from tests.e2e.stage import Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def test_retain_leaves_the_layer_and_forgets_it(stage: Stage) -> None:
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    points.take("kept-by-retain", deletionPolicy="Retain")
    points.take("above-it")
    before = [layer.source for layer in machine.chain()]
    capture = points.kept["kept-by-retain"]
    points.delete("kept-by-retain")
    assert [layer.source for layer in machine.chain()] == before
    assert "stays" in shop.wait_event("kept-by-retain", "LayerRetained")

    points.delete("above-it")  # merging above an unmanaged boundary leaves its point as it was
    chain = machine.chain()
    assert [layer.source for layer in chain] == before[1:]
    assert stage.lab.reader.verify(capture, chain[1].source).identical
    points.check_guest()


def test_suspend_leaves_everything_alone_until_it_is_lifted(stage: Stage) -> None:
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    lift = ("--type=merge", '-p={"spec":{"suspend":false}}')

    shop.snapshot("not-yet", machine.name, suspend=True)
    shop.waits_for("not-yet", "Suspended")
    points.take("meanwhile")
    assert len(machine.chain()) == 2
    shop.kubectl("patch", "vvs/not-yet", *lift)
    shop.ready("not-yet")
    points.remember("not-yet")
    points.verify()

    shop.kubectl("patch", "vvs/meanwhile", "--type=merge", '-p={"spec":{"suspend":true}}')
    shop.begin_delete("meanwhile")
    assert "set it to false" in shop.waits_for("meanwhile", "Suspended")
    points.delete("not-yet")  # work on the same disk goes on
    assert len(machine.chain()) == 2
    shop.kubectl("patch", "vvs/meanwhile", *lift)
    shop.gone("meanwhile")
    assert len(machine.chain()) == 1
    points.check_guest()


def test_two_objects_applied_at_once_both_become_ready(stage: Stage) -> None:
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    machine.wait_writing()
    shop.apply(snapshot("twin-1", machine.name), snapshot("twin-2", machine.name))
    shop.ready("twin-1", "twin-2")
    objects = shop.objects()
    layers = {name: objects[name]["status"]["layer"]["source"] for name in ("twin-1", "twin-2")}
    shared = layers["twin-1"] == layers["twin-2"]
    assert len(machine.chain()) == (2 if shared else 3)
    points.remember("twin-2")
    points.delete("twin-1")
    if shared:
        assert len(machine.chain()) == 2, "a point that another object owns too must stay"
    points.verify()
    points.delete("twin-2")
    assert len(machine.chain()) == 1
    points.check_guest()


def test_several_deleted_in_one_command_cost_one_job_and_spare_the_rest(stage: Stage) -> None:
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    shop.apply(other_class("settling", merge={"settleSeconds": 1}))
    for name in ("run-1", "run-2", "run-3", "run-4"):
        points.take(name, volumeSnapshotClassName="settling")
    before = stage.controller.log.stat().st_size
    points.delete("run-2", "run-3")
    assert len(machine.chain()) == 3
    with stage.controller.log.open("rb") as log:
        log.seek(before)
        assert log.read().count(b"step=StartMerge") == 1
    points.verify()


def test_only_the_wanted_disk_of_a_machine_gets_a_layer(stage: Stage) -> None:
    machine = stage.machine("file", "file", "gluster")
    first, second = stage.points(machine, "vda"), stage.points(machine, "vdb")
    second.take("only-vdb")
    assert [len(machine.chain(disk)) for disk in machine.disks] == [1, 2, 1]
    first.take("vda-too")
    assert [len(machine.chain(disk)) for disk in machine.disks] == [2, 2, 1]
    first.verify()
    second.verify()
    second.delete("only-vdb")
    assert [len(machine.chain(disk)) for disk in machine.disks] == [2, 1, 1]
    first.verify()


def test_by_uuid_and_a_spec_that_may_not_change(stage: Stage) -> None:
    machine = stage.machine()
    shop = stage.shop
    document = json.loads(snapshot("by-uuid", machine.name))
    document["spec"]["source"] = {"domainUUID": machine.uuid, "disk": "vda", "hypervisor": "host-a"}
    shop.apply(json.dumps(document))
    shop.ready("by-uuid")
    assert shop.get("by-uuid")["status"]["resolved"]["domainName"] == machine.name
    document["spec"]["source"]["disk"] = "vdb"
    with pytest.raises(LabError, match="source is immutable"):
        shop.apply(json.dumps(document))
    assert len(machine.chain()) == 2
