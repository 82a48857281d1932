"""Storage servers that hang or are gone in the middle of each kind of merge: the object says so, the guest
loses nothing, and the merge comes to its end when they are back.

test_storage_merges.py tells what is particular about some of them; here every kind of merge meets each.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from lab.deadline import wait_until
from lab.lab import Lab
from lab.machines.disk import Disk
from tests.e2e.points import Points
from tests.e2e.stage import AT_ONCE, QUICK, Stage, other_class
from tests.faults.storage import WITHIN, at_full_speed, export_of, gone, hung, hung_brick

pytestmark = [pytest.mark.real, pytest.mark.cluster]

SLOWLY = {**AT_ONCE, "bandwidthBytesPerSecond": 65536}
MERGES = {"middle": "Commit", "newest": "Commit", "old": "Pull"}
"""By point, in the order of their deletion: a commit below the active layer, an active commit with its pivot,
a pull into the active layer."""


@dataclass(frozen=True)
class Fault:
    """What happens to the server of a disk, and what the object says of it."""

    kind: str
    begin: Callable[[Lab, Disk], AbstractContextManager[None]]
    words: str
    """A regular expression."""
    reasons: frozenset[str] = frozenset({"StorageUnreachable", "Removing"})
    """Where data flows on without the server, the merge may be over, and the removal of its image waits."""


SILENT, REFUSED = "does not answer", "refuses connections"
STANDS_STILL = "a storage server of its disks hangs|it has copied nothing since"
"""The monitor answers; QEMU stands still, so that the machine cannot even be read, or the job alone does."""
UNSEEN = frozenset({"Failed", "StorageUnreachable"})
FAULTS = {
    "nbd hung": Fault("nbd", lambda lab, disk: hung(export_of(lab, disk.source)), SILENT),
    # A guest whose NBD server is gone needs a new start (test_storage_merges.py).
    "iscsi hung": Fault("iscsi", lambda lab, _: hung(lab.iscsi), SILENT),
    "iscsi gone": Fault("iscsi", lambda lab, _: gone(lab.iscsi), REFUSED),
    "monitor hung": Fault("rbd", lambda lab, _: hung(lab.rbd.monitor), SILENT),
    "monitor gone": Fault("rbd", lambda lab, _: gone(lab.rbd.monitor), REFUSED),
    "osd hung": Fault("rbd", lambda lab, _: hung(lab.rbd.osd), STANDS_STILL, UNSEEN),
    "osd gone": Fault("rbd", lambda lab, _: gone(lab.rbd.osd), STANDS_STILL, UNSEEN),
    "glusterd hung": Fault("gluster", lambda lab, _: hung(lab.gluster), SILENT),
    "glusterd gone": Fault("gluster", lambda lab, _: gone(lab.gluster), REFUSED),
    "brick hung": Fault("gluster", lambda lab, _: hung_brick(lab.gluster.volume()), "brick"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_merge_comes_to_its_end(stage: Stage, name: str) -> None:
    fault = FAULTS[name]
    if reason := stage.lab.why_not(fault.kind):
        pytest.skip(reason)
    disk = stage.lab.disk(fault.kind, f"during-{name.replace(' ', '-')}", image_format="raw")
    points = three_points(stage, disk)
    for point in MERGES:
        points.machine.wait_writing(rounds=128)
        del points.kept[point]
        stage.shop.begin_delete(point)
        wait_until(lambda: points.machine.domain.blockJobInfo("vda"), timeout=20, what="the merge runs")
        with fault.begin(stage.lab, disk):
            told = stage.shop.told(
                point, fault.words, timeout=2 * WITHIN
            )  # a hung Ceph is silent for 30 s at a time
            assert (told["status"], told["reason"]) in {("False", reason) for reason in fault.reasons}
        at_full_speed(points.machine)
        stage.shop.gone(point, timeout=2 * WITHIN)
        points.verify()


def three_points(stage: Stage, disk: Disk) -> Points:
    """Points old, middle and newest, each of a class that merges it slowly in the direction of MERGES."""
    points = stage.points(stage.machine(disk, writer=QUICK))
    for direction in set(MERGES.values()):
        stage.shop.apply(other_class(direction.lower(), merge={**SLOWLY, "direction": direction}))
    fixed = disk.source is not None and disk.source.protocol in {"nbd", "iscsi"}
    elsewhere = {"overlay": {"directory": str(stage.scratch)}} if fixed else {}
    for name in ("old", "middle", "newest"):
        points.take(name, rounds=128, volumeSnapshotClassName=MERGES[name].lower(), **elsewhere)
    return points
