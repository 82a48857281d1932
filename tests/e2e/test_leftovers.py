"""Images that merges by hand leave beside a chain, on real libvirt: ours stop nothing, a stranger's are named
with two ways out."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from lab.deadline import wait_until
from lab.machines.machine import Machine
from tests.e2e.stage import Stage
from tests.e2e.test_chains import chain, virsh

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def orphans(stage: Stage) -> dict[str, str]:
    """Image to reason, of all hypervisors."""
    found = json.loads(stage.shop.kubectl("get", "hypervisors", "-o", "json"))["items"]
    images = [i for one in found for i in one["status"].get("orphanImages", {}).get("images", ())]
    return {image["image"]: image["reason"] for image in images}


def patch(stage: Stage, machine: Machine, **spec: Any) -> None:
    """kubectl patch of the VolumeChain, when it is there."""
    name = f"{machine.name}-vda"
    wait_until(lambda: chain(stage, name), timeout=30, what="the VolumeChain is made", interval=0.3)
    stage.shop.kubectl("patch", f"vvc/{name}", "--type=merge", "-p", json.dumps({"spec": spec}))


def test_an_overlay_of_ours_that_was_committed_down_by_hand_stops_nothing(stage: Stage) -> None:
    """B3: `virsh blockcommit` without --delete leaves it, with a header that names the image below."""
    machine = stage.machine()
    points = stage.points(machine)
    for name in ("a", "b", "c"):
        points.take(name)
    patch(stage, machine, onDrift="Adopt")
    _, leftover, below, base = [layer.source.name for layer in machine.chain()]
    virsh(stage, "blockcommit", machine.name, "vda", f"--top={leftover}", f"--base={below}", "--wait")
    wait_until(lambda: leftover in orphans(stage), timeout=30, what="the leftover is listed", interval=0.3)
    assert "somebody else merged it away" in orphans(stage)[leftover]
    points.delete("a", "b", "c", timeout=60)
    assert [layer.source.name for layer in machine.chain()] == [base]
    assert {leftover, below} <= {str(path) for path in machine.host.images.iterdir()}
    points.check_guest()


def test_a_strangers_image_is_named_and_listed_as_not_in_use(stage: Stage) -> None:
    """B4: until then the merge into what its header names waits."""
    machine = stage.machine()
    points = stage.points(machine)
    points.take("a")
    points.take("b")
    [*_, base] = [layer.source.name for layer in machine.chain()]
    strangers = [f"{base}.by-hand-{number}" for number in (1, 2)]
    for name in strangers:
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, name]
        subprocess.run(command, check=True, timeout=60)
    stage.shop.begin_delete("a")
    stage.shop.waits_for("a", "ImageProtected")
    stage.shop.wait_detail(*strangers, "remove each of these", "spec.notInUse")
    patch(stage, machine, notInUse=strangers)
    points.kept.pop("a")
    stage.shop.gone("a", timeout=15)
    points.verify()
