"""B27: a CRD that is newer than the controller, on a real API server: objects with a new field."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.deadline import wait_until
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]

CRD = "crd/volumesnapshots.varve.dev"
PLACE = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/lock"
FIELD = {"type": "object", "properties": {"until": {"type": "string", "maxLength": 32}}}
LOCK = '-p={"spec":{"lock":{"until":"2027-01-31T00:00:00Z"}}}'


@pytest.fixture
def newer(stage: Stage) -> Iterator[Stage]:
    """VolumeSnapshots may have a field that this controller has never heard of."""
    plane = stage.shop.plane

    def change(**operation: object) -> None:
        body = json.dumps([{"path": PLACE, **operation}])
        plane.kubectl("patch", CRD, "--type=json", f"-p={body}")

    change(op="add", value=FIELD)
    yield stage
    stage.shop.clear()
    change(op="remove")


def locked(stage: Stage, name: str) -> bool:
    """Set the field; an API server that does not serve the new schema yet drops it."""
    stage.shop.kubectl("patch", f"vvs/{name}", "--type=merge", LOCK)
    return "lock" in stage.shop.get(name)["spec"]


def test_an_object_that_is_not_understood_says_so_and_keeps_its_point(newer: Stage) -> None:
    """B27: neither lost nor let go; after the upgrade (here: without the field) all goes on."""
    machine = newer.machine()
    points, shop = newer.points(machine), newer.shop
    points.take("locked")
    points.take("understood")  # above it, so that what the status of `locked` says of its layer stays true
    before = shop.get("locked")["status"]
    wait_until(lambda: locked(newer, "locked"), timeout=30, what="the new schema", interval=0.5)
    message = shop.waits_for("locked", "NotUnderstood")
    assert "spec.lock" in message
    assert "upgrade the controller" in message
    shop.fails("locked")
    after = shop.get("locked")
    kept = set(before) - {"conditions", "observedGeneration"}
    assert kept >= {"layer", "creationTime", "resolved", "readyToUse"}
    assert {name: after["status"][name] for name in kept} == {name: before[name] for name in kept}
    assert after["metadata"]["finalizers"]

    shop.begin_delete("locked")
    points.delete("understood")
    shop.fails("locked")
    assert newer.controller.stop() == 0
    newer.controller.start()
    points.take("after")
    assert shop.condition("locked", "Ready")["reason"] == "NotUnderstood"
    points.verify()

    shop.kubectl("patch", "vvs/locked", "--type=json", '-p=[{"op":"remove","path":"/spec/lock"}]')
    points.kept.pop("locked")
    shop.gone("locked")
    points.verify()
    assert len(machine.chain()) == 2
