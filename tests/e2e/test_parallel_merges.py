"""Deletions on different disks of one machine, and on different machines, are merged at the same time."""

from __future__ import annotations

import libvirt
import pytest

from lab.deadline import wait_until
from lab.machines.machine import Machine
from tests.e2e.stage import QUICK, Stage, gentle

pytestmark = [pytest.mark.real, pytest.mark.cluster]

_FLAGS = libvirt.VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES


def job_of(machine: Machine, disk: str) -> int | None:
    """The kind of the job on a disk, as libvirt numbers it; None without one."""
    found = machine.domain.blockJobInfo(disk, _FLAGS)
    return int(found["type"]) if found else None


@pytest.mark.parametrize("kind", ["file", "nbd"])
def test_merges_overlap(stage: Stage, kind: str) -> None:
    """At the rate of the class each job takes many seconds. All jobs are seen at one moment: had one waited
    for another, the first would have been over before the last began."""
    first = stage.machine(kind, kind, name=f"two-disks-{kind}", writer=QUICK)
    second = stage.machine(kind, name=f"one-disk-{kind}", writer=QUICK)
    disks = [(first, "vda"), (first, "vdb"), (second, "vda")]
    stage.shop.apply(gentle())
    spec = {
        "volumeSnapshotClassName": "gentle",
        **({"overlay": {"directory": str(stage.scratch)}} if kind == "nbd" else {}),
    }
    series = {at: stage.points(machine, disk) for at, (machine, disk) in enumerate(disks)}
    for when in ("old", "new"):
        for at, points in series.items():
            points.take(f"{kind}-{when}-{at}", rounds=1024, **spec)

    old = [f"{kind}-old-{at}" for at in series]
    stage.shop.begin_delete(*old)
    wait_until(
        lambda: all(job_of(*disk) == libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT for disk in disks),
        timeout=30,
        what="three commits at the same time",
    )
    assert stage.shop.names() >= set(old)
    for machine, disk in disks:
        machine.domain.blockJobSetSpeed(disk, 0, 0)
    stage.shop.gone(*old)
    for at, points in series.items():
        del points.kept[f"{kind}-old-{at}"]
        layer = points.holders()[f"{kind}-new-{at}"]
        assert stage.lab.reader.verify(points.kept[f"{kind}-new-{at}"], layer.source).identical
        points.check_guest()
