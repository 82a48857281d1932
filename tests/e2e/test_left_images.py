"""Images that stay, and what a hypervisor lacks: in its status, as kubectl shows it."""

from __future__ import annotations

import json

import pytest

from lab.deadline import wait_until
from tests.e2e.stage import Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def test_the_original_image_that_a_pull_leaves_is_in_the_inventory(stage: Stage) -> None:
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    [base] = [layer.source for layer in machine.chain()]
    shop.apply(other_class("pulls", merge={"settleSeconds": 0, "direction": "Pull"}))
    points.take("left-by-a-pull", volumeSnapshotClassName="pulls")
    points.delete("left-by-a-pull")

    def listed() -> dict[str, str] | None:
        found = json.loads(shop.kubectl("get", "hypervisors", "-o", "json"))["items"]
        images = [i for one in found for i in one["status"].get("orphanImages", {}).get("images", ())]
        return next((image for image in images if image["image"] == base.name), None)

    image = wait_until(listed, timeout=30, what="the image in the inventory", interval=0.2)
    assert (image["domain"], image["disk"]) == (machine.name, "vda")
    assert "did not make" in image["reason"]
    assert image["since"]
    told = shop.kubectl("describe", "hypervisors")
    assert "Orphan Images:" in told
    assert base.name in told
    assert "ORPHANS" in shop.kubectl("get", "hypervisors", "-o", "wide")
    points.check_guest()
