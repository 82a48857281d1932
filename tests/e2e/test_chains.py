"""Chains as people see and change them: approval, what virsh does behind the controller's back, adoption."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.controller import REPOSITORY
from lab.deadline import wait_until
from lab.machines.machine import Machine
from tests.e2e.points import Points, shown
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]

SAMPLES = REPOSITORY / "manifests" / "samples"


@pytest.fixture
def quick(stage: Stage) -> Iterator[Stage]:
    """A controller that looks at everything every few seconds: `snapshot-create-as` has no event."""
    assert stage.controller.stop() == 0
    stage.controller.start("--resync-seconds=4")
    yield stage
    stage.shop.clear()
    stage.shop.kubectl("delete", "vvc", "--all")
    assert stage.controller.stop() == 0  # the next test starts it as it was


def virsh(stage: Stage, *arguments: str) -> None:
    subprocess.run(
        ["/usr/bin/virsh", "-c", stage.host.uri, *arguments], check=True, capture_output=True, timeout=60
    )


def chain(stage: Stage, name: str) -> dict[str, Any]:
    """The status of a VolumeChain; empty when there is none."""
    found = stage.shop.kubectl("get", f"vvc/{name}", "-o", "json", "--ignore-not-found")
    status: dict[str, Any] = json.loads(found)["status"] if found else {}
    return status


def reason(stage: Stage, name: str) -> str:
    conditions = chain(stage, name).get("conditions", [])
    return next((str(one["reason"]) for one in conditions if one["type"] == "Ready"), "")


def kinds(stage: Stage, name: str) -> list[str]:
    """What the steps of its plan do."""
    return [step["kind"] for step in chain(stage, name).get("plan", {}).get("steps", [])]


def until_drift(stage: Stage, name: str, *words: str) -> None:
    wait_until(
        lambda: all(word in chain(stage, name).get("drift", {}).get("what", "") for word in words),
        timeout=60,
        what=f"the drift {words} is told",
        interval=0.3,
    )


def verify(stage: Stage, points: Points, *names: str) -> None:
    """These points are Ready and read back byte for byte."""
    stage.shop.ready(*names, timeout=60)
    holders = points.holders()
    for name in names:
        found = stage.lab.reader.verify(points.kept[name], holders[name].source, live=True)
        assert found.identical, (name, found)


def leaves(machine: Machine) -> list[str]:
    return [shown(layer.source) for layer in machine.chain()]


def test_the_sample_of_a_chain_lets_nothing_merge_before_it_is_approved(quick: Stage) -> None:
    shop = quick.shop
    machine = quick.machine(name="db-1")
    points = quick.points(machine)
    shop.plane.kubectl("apply", "--validate=strict", "-f", str(SAMPLES / "20-chain.yaml"))
    for name in ("old", "middle", "new"):
        points.take(name)
    shop.begin_delete("old", "new")
    assert "approvedPlan" in shop.waits_for("old", "AwaitingApproval")
    # The first look may have met the first deletion alone.
    wait_until(
        lambda: kinds(quick, "db-1-vda") == ["Commit", "Remove", "Commit", "Remove"],
        timeout=60,
        what="the chain shows the plan for both",
        interval=0.3,
    )
    assert reason(quick, "db-1-vda") == "AwaitingApproval"
    plan = chain(quick, "db-1-vda")["plan"]
    assert len(machine.chain()) == 4
    header, row = (line.split() for line in shop.kubectl("get", "vvc").splitlines())
    assert header == ["NAME", "READY", "REASON", "DOMAIN", "DISK", "DEPTH", "PLAN", "AGE"]
    assert row[:7] == ["db-1-vda", "False", "AwaitingApproval", "db-1", "vda", "4", plan["hash"]]
    approve = json.dumps({"spec": {"approvedPlan": plan["hash"]}})
    shop.kubectl("patch", "vvc/db-1-vda", "--type=merge", "-p", approve)
    shop.gone("old", "new", timeout=60)
    del points.kept["old"], points.kept["new"]
    points.verify()
    wait_until(lambda: reason(quick, "db-1-vda") == "InSync", timeout=60, what="the chain is in sync")
    assert "plan" not in chain(quick, "db-1-vda")


def test_a_snapshot_a_commit_and_a_pull_by_virsh(quick: Stage) -> None:
    shop = quick.shop
    machine = quick.machine(name="by-hand")
    points, name = quick.points(machine), "by-hand-vda"
    for point in ("a", "b", "c"):
        points.take(point)
    over_c, over_b, over_a, base = leaves(machine)

    mine = str(Path(base).with_name("mine.qcow2"))
    virsh(
        quick, "snapshot-create-as", "by-hand", "--disk-only", "--no-metadata", f"--diskspec=vda,file={mine}"
    )
    until_drift(quick, name, f"+ {mine}")
    assert reason(quick, name) == "Drifted"
    assert f"+ {mine}" in shop.wait_event(name, "ChainDrifted")
    verify(quick, points, "a", "b", "c")
    assert leaves(machine)[0] == mine, "it is kept"

    virsh(quick, "blockcommit", "by-hand", "vda", f"--top={over_a}", f"--base={base}", "--wait")
    until_drift(quick, name, f"+ {mine}", f"- {over_a}")
    assert "make a new one" in shop.waits_for("a", "Lost")
    del points.kept["a"]
    verify(quick, points, "b", "c")

    virsh(quick, "blockpull", "by-hand", "vda", f"--base={over_b}", "--wait")
    until_drift(quick, name, f"+ {mine}", f"- {over_a}", f"- {over_c}")
    verify(quick, points, "b", "c")
    assert leaves(machine) == [mine, over_b, base], "nothing was done about it"
    points.check_guest()

    adopt = json.dumps({"spec": {"onDrift": "Adopt"}})
    shop.kubectl("patch", f"vvc/{name}", "--type=merge", "-p", adopt)
    wait_until(lambda: "drift" not in chain(quick, name), timeout=60, what="the drift is adopted")
    points.delete("b", timeout=60)  # what virsh left over refers to the images below, and stops nothing
    assert all(Path(left).exists() for left in (over_a, over_c))
    verify(quick, points, "c")
    shop.delete("a", "c", timeout=60)
    assert len(machine.chain()) == 1
    points.kept.clear()
    points.check_guest()


def test_a_layer_from_before_is_adopted_and_merged_away(quick: Stage) -> None:
    shop = quick.shop
    machine = quick.machine(name="adopted")
    points = quick.points(machine)
    machine.wait_writing(rounds=16)
    (base,) = leaves(machine)
    old = str(Path(base).with_name("adopted-old.qcow2"))
    virsh(
        quick, "snapshot-create-as", "adopted", "--disk-only", "--no-metadata", f"--diskspec=vda,file={old}"
    )
    shop.snapshot("from-before", "adopted", adopt={"layer": base})
    shop.ready("from-before")
    assert leaves(machine) == [old, base]
    status = shop.get("from-before")["status"]
    assert status["layer"]["source"] == base
    assert "creationTime" not in status
    points.remember("from-before")
    points.verify()
    points.delete("from-before", timeout=60)
    assert len(machine.chain()) == 1
    points.check_guest()
    assert "varve did not make" in shop.wait_event("from-before", "ImageLeft")
