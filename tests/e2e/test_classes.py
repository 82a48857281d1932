"""B1: `kubectl delete` of a class and of the VolumeSnapshots that use it, in one go, ends in every order."""

from __future__ import annotations

import json

import pytest

from lab.controller import policy, snapshot
from tests.e2e.stage import AT_ONCE, Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def classes(stage: Stage) -> set[str]:
    found = stage.shop.kubectl("get", "volumesnapshotclasses", "-o", "jsonpath={.items[*].metadata.name}")
    return set(found.split())


@pytest.mark.parametrize("first", ["class", "snapshots"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "default"])
def test_a_class_and_its_snapshots_deleted_together(stage: Stage, first: str, named: bool) -> None:
    """B1: what a prune of Flux or Argo CD does: the layers are merged, and the class goes last."""
    machine = stage.machine()
    shop, name = stage.shop, "pruned" if named else "standard"
    the_class = other_class(name, merge=AT_ONCE) if named else policy(merge=AT_ONCE)
    spec = {"volumeSnapshotClassName": name} if named else {}
    snapshots = [snapshot(each, machine.name, **spec) for each in ("pruned-1", "pruned-2")]
    shop.apply(the_class, snapshots[0])
    shop.ready("pruned-1")
    shop.apply(snapshots[1])
    shop.ready("pruned-2")
    machine.wait_writing()
    assert len(machine.chain()) == 3
    everything = [the_class, *snapshots] if first == "class" else [*snapshots, the_class]
    try:
        shop.kubectl("delete", "-f", "-", "--timeout=40s", stdin="\n---\n".join(everything), timeout=40)
        assert not shop.names()
        assert name not in classes(stage)
        assert len(machine.chain()) == 1
        stage.points(machine).check_guest()
    finally:
        shop.apply(policy(merge=AT_ONCE))


def test_a_class_alone_waits_for_those_who_use_it(stage: Stage) -> None:
    """B1: and says who they are."""
    machine = stage.machine()
    shop = stage.shop
    shop.apply(other_class("awaited", merge=AT_ONCE))
    shop.snapshot("awaiting", machine.name, volumeSnapshotClassName="awaited")
    shop.ready("awaiting")
    shop.kubectl("delete", "volumesnapshotclass/awaited", "--wait=false")
    events = ("get", "events.events.k8s.io", "-o", "json")
    shop.kubectl("wait", "--for=jsonpath={.metadata.deletionTimestamp}", "volumesnapshotclass/awaited")
    shop.delete("awaiting")
    shop.kubectl("wait", "--for=delete", "volumesnapshotclass/awaited", "--timeout=10s")
    assert len(machine.chain()) == 1
    items = json.loads(shop.plane.kubectl("-n", "kube-system", *events).stdout)["items"]
    told = [one for one in items if one["regarding"]["name"] == "awaited"]
    assert [one["reason"] for one in told] == ["ClassInUse"]
    assert "shop/awaiting" in told[0]["note"]


def test_a_class_whose_finalizer_was_stripped_holds_up_no_deletion(stage: Stage) -> None:
    """B1: after a restart nobody knows what it protected: the object goes, and nothing is written to."""
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    shop.apply(other_class("stripped", merge=AT_ONCE))
    points.take("orphaned", volumeSnapshotClassName="stripped")
    shop.kubectl("delete", "volumesnapshotclass/stripped", "--wait=false")
    assert stage.controller.stop() == 0
    nothing = '-p={"metadata":{"finalizers":null}}'
    shop.kubectl("patch", "volumesnapshotclass/stripped", "--type=merge", nothing)
    assert "stripped" not in classes(stage)
    stage.controller.start()
    point = points.kept["orphaned"]
    points.delete("orphaned")
    assert "stripped is gone" in shop.wait_event("orphaned", "LayerRetained")
    assert len(machine.chain()) == 2
    assert stage.lab.reader.verify(point, machine.chain()[1].source).identical
    points.check_guest()
