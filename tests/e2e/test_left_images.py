"""Images that stay, and what a hypervisor lacks: in its status, as kubectl shows it."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from lab.deadline import wait_until
from tests.e2e.shop import Shop
from tests.e2e.stage import Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def in_the_inventory(shop: Shop, name: str) -> dict[str, str]:
    """Wait until a Hypervisor lists this image as an orphan."""

    def listed() -> dict[str, str] | None:
        found = json.loads(shop.kubectl("get", "hypervisors", "-o", "json"))["items"]
        images = [i for one in found for i in one["status"].get("orphanImages", {}).get("images", ())]
        return next((image for image in images if image["image"] == name), None)

    return wait_until(listed, timeout=30, what="the image in the inventory", interval=0.2)


def test_b6_a_file_name_that_is_not_utf8_beside_the_images_stops_nothing(stage: Stage) -> None:
    r"""B6: ``touch $'caf\351.iso'``; libvirt lists the directory before each merge and removal."""
    machine = stage.machine()
    points = stage.points(machine)
    odd = os.fsencode(machine.host.images) + b"/caf\xe9.iso"
    subprocess.run([b"touch", odd], check=True)
    try:
        points.take("beside-an-odd-name")
        points.delete("beside-an-odd-name")
        assert not stage.overlays(machine)
        points.check_guest()
    finally:
        subprocess.run([b"rm", odd], check=True)


def test_the_original_image_that_a_pull_leaves_is_in_the_inventory(stage: Stage) -> None:
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    [base] = [layer.source for layer in machine.chain()]
    shop.apply(other_class("pulls", merge={"settleSeconds": 0, "direction": "Pull"}))
    points.take("left-by-a-pull", volumeSnapshotClassName="pulls")
    points.delete("left-by-a-pull")

    image = in_the_inventory(shop, base.name)
    assert (image["domain"], image["disk"]) == (machine.name, "vda")
    assert "did not make" in image["reason"]
    assert image["since"]
    told = shop.kubectl("describe", "hypervisors")
    assert "Orphan Images:" in told
    assert base.name in told
    assert "ORPHANS" in shop.kubectl("get", "hypervisors", "-o", "wide")
    points.check_guest()


def test_b7_an_image_that_cannot_be_unlinked_holds_up_nobody(stage: Stage) -> None:
    """B7: `chattr +i`, a read-only export, root_squash: the merge is done, so the object goes."""
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    points.take("immutable")
    overlay = machine.chain()[0].source
    points.take("above")  # so that the guest does not write to the overlay any more
    subprocess.run(["chattr", "+i", overlay.name], check=True)
    try:
        points.delete("immutable", timeout=120)
    finally:
        subprocess.run(["chattr", "-i", overlay.name], check=True)
    image = in_the_inventory(shop, overlay.name)
    assert "not permitted" in image["reason"]
    assert "ImageLeft" in shop.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}")
    points.check_guest()
