"""Storage servers that end or hang while a merge runs: it waits or fails, says so, and comes to its end.

A guest whose own server hangs stands still with it, and QEMU 7.2 with the guest where the server is an OSD or
a brick: then even reading the domain has no answer, and that is what is told.
"""

from __future__ import annotations

import pytest

from lab.deadline import wait_until
from lab.machines.disk import Disk
from tests.e2e.points import Points
from tests.e2e.stage import QUICK, Stage, gentle
from tests.faults.storage import (
    WITHIN,
    at_full_speed,
    export_of,
    gone,
    hung,
    hung_brick,
    monitor_answers,
)

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def merging(stage: Stage, disk: Disk, unwanted: str, *, direction: str = "Commit") -> Points:
    """The points old and new, of which one is being merged away in a job that takes some seconds. On a disk
    that has no place beside it, the point new alone, with a file above it."""
    machine = stage.machine(disk, writer=QUICK)
    points = stage.points(machine)
    stage.shop.apply(gentle(direction=direction))
    fixed = disk.source is not None and disk.source.protocol in {"nbd", "iscsi"}
    elsewhere = {"overlay": {"directory": str(stage.scratch)}} if fixed else {}
    for name in ("new",) if fixed else ("old", "new"):
        points.take(name, rounds=256, volumeSnapshotClassName="gentle", **elsewhere)
    machine.wait_writing(rounds=256)
    del points.kept[unwanted]
    stage.shop.begin_delete(unwanted)
    wait_until(lambda: machine.domain.blockJobInfo("vda"), timeout=20, what="the merge runs")
    return points


def merged(stage: Stage, points: Points, unwanted: str) -> None:
    """The merge comes to its end, and everything is right: no write of the guest has failed either."""
    stage.shop.gone(unwanted, timeout=2 * WITHIN)  # the rest of the job as well
    points.verify()


def test_an_nbd_server_hangs_during_a_commit(stage: Stage) -> None:
    disk = stage.lab.disk("nbd", "hangs")
    points = merging(stage, disk, "new")
    with hung(export_of(stage.lab, disk.source)):
        message = stage.shop.waits_for("new", "StorageUnreachable")
        assert "stands still" in message
        assert "does not answer" in message
        assert monitor_answers(points.machine)
    at_full_speed(points.machine)
    merged(stage, points, "new")


def test_an_nbd_server_ends_during_a_commit(stage: Stage) -> None:
    """QEMU 7.2 does not connect again: the job fails, the guest reads nothing of its base any more, and only
    a new start mends that. All that was written is there then."""
    disk = stage.lab.disk("nbd", "ends")
    points = merging(stage, disk, "new")
    with gone(export_of(stage.lab, disk.source)):
        assert "refuses connections" in stage.shop.waits_for("new", "StorageUnreachable")
        assert monitor_answers(points.machine)
        points.machine.destroy()
        stage.shop.waits_for("new", "WaitingForDomain")
    points.verify_shut_off()
    stage.shop.apply(gentle(direction="Commit", limit=0))
    points.machine.start()
    stage.shop.gone("new", timeout=WITHIN)
    assert len(points.machine.chain()) == 1
    points.machine.wait_writing()
    points.machine.destroy()
    points.verify_shut_off()


def test_an_iscsi_server_ends_during_a_commit(stage: Stage) -> None:
    """libiscsi connects again and repeats what was not answered: nobody notices but by the delay."""
    if reason := stage.lab.why_not("iscsi"):
        pytest.skip(reason)
    points = merging(stage, stage.lab.disk("iscsi", "ends"), "new")
    with gone(stage.lab.iscsi):
        message = stage.shop.waits_for("new", "StorageUnreachable")
        assert "stands still" in message
        assert "refuses connections" in message
    at_full_speed(points.machine)
    merged(stage, points, "new")


def test_a_ceph_monitor_ends_during_a_commit(stage: Stage) -> None:
    """The data goes on flowing, so the job becomes ready; the pivot waits, and the guest does not."""
    if reason := stage.lab.why_not("rbd"):
        pytest.skip(reason)
    points = merging(stage, stage.lab.disk("rbd", "monitor-ends"), "new")
    with gone(stage.lab.rbd.monitor):
        at_full_speed(points.machine)
        assert "refuses connections" in stage.shop.waits_for("new", "StorageUnreachable")
        points.machine.wait_writing(rounds=64)
        assert monitor_answers(points.machine)
    merged(stage, points, "new")


def test_a_ceph_osd_hangs_during_a_commit(stage: Stage) -> None:
    if reason := stage.lab.why_not("rbd"):
        pytest.skip(reason)
    points = merging(stage, stage.lab.disk("rbd", "osd-hangs"), "old")
    with hung(stage.lab.rbd.osd):
        message = stage.shop.waits_for("old", "Failed", timeout=120)
        assert "has not answered" in message
        assert "a storage server of its disks hangs" in message
    merged(stage, points, "old")


def test_a_gluster_daemon_hangs_during_a_pull(stage: Stage) -> None:
    """The bricks go on serving, so the pull ends; what it copied is made durable when the daemon answers."""
    points = merging(stage, stage.lab.disk("gluster", "hangs"), "new", direction="Pull")
    with hung(stage.lab.gluster):
        at_full_speed(points.machine)
        assert "does not answer" in stage.shop.waits_for("new", "StorageUnreachable")
        points.machine.wait_writing(rounds=64)
    merged(stage, points, "new")


def test_a_brick_hangs_during_a_pull(stage: Stage) -> None:
    """QEMU stands still with it, so the machine cannot even be read; the brick is named all the same."""
    volume = stage.lab.gluster.volume()
    points = merging(stage, stage.lab.disk("gluster", "brick-hangs"), "new", direction="Pull")
    with hung_brick(volume):
        message = stage.shop.waits_for("new", "StorageUnreachable", timeout=60)
        assert f"brick {stage.lab.gluster.address}:{volume.brick} accepts" in message
    merged(stage, points, "new")
