"""Storage servers that are gone or hang before a merge begins: nothing is begun, we freeze no guest, and
every kind of merge comes to its end when they are back.

QEMU drains all disks before it changes one, so the server of any layer of the machine counts, also where the
layers that are merged are local files (the chains over NBD and iSCSI here).
"""

from __future__ import annotations

import pytest

from lab.machines.disk import Disk
from lab.storage.server import ServerProcess
from tests.e2e.stage import AT_ONCE, SMALL, Stage, other_class
from tests.faults.storage import WITHIN, export_of, gone, hung, monitor_answers

pytestmark = [pytest.mark.real, pytest.mark.cluster]

HOW = {"hung": (hung, "does not answer"), "gone": (gone, "refuses connections")}
MERGES = {"middle": "Commit", "newest": "Commit", "old": "Pull"}
"""By point, in the order of their deletion: a commit below the active layer, an active commit with its pivot,
a pull into the active layer."""
AWAY = [
    ("gluster", "hung"),
    ("gluster", "gone"),
    ("rbd", "hung"),
    ("rbd", "gone"),
    ("iscsi", "hung"),
    ("iscsi", "gone"),
    ("nbd", "hung"),
    # A guest whose NBD server is gone needs a new start, whatever varve does: QEMU 7.2 does not connect again
    # (test_storage_merges.py has that).
]


def server_of(stage: Stage, kind: str, disk: Disk) -> ServerProcess:
    """The one that is asked whether it lives; where daemons and data are apart, the guest goes on without."""
    match kind:
        case "gluster":
            return stage.lab.gluster
        case "rbd":
            return stage.lab.rbd.monitor
        case "iscsi":
            return stage.lab.iscsi
    return export_of(stage.lab, disk.source)


@pytest.mark.parametrize(("kind", "how"), AWAY)
def test_each_merge_waits_for_the_server(stage: Stage, kind: str, how: str) -> None:
    if reason := stage.lab.why_not(kind):
        pytest.skip(reason)
    disk = stage.lab.disk(kind, f"away-{kind}-{how}", image_format="raw")
    machine = stage.machine(disk, writer=SMALL)
    points, shop = stage.points(machine), stage.shop
    for direction in set(MERGES.values()):
        shop.apply(other_class(direction.lower(), merge={**AT_ONCE, "direction": direction}))
    elsewhere = {"overlay": {"directory": str(stage.scratch)}} if kind in {"nbd", "iscsi"} else {}
    for name in ("old", "middle", "newest"):
        points.take(name, volumeSnapshotClassName=MERGES[name].lower(), **elsewhere)
    away, words = HOW[how]
    for name in MERGES:
        del points.kept[name]
        with away(server_of(stage, kind, disk)):
            shop.begin_delete(name)
            assert words in shop.waits_for(name, "StorageUnreachable")
            assert monitor_answers(machine)
            assert not machine.domain.blockJobInfo("vda"), "it was begun all the same"
        shop.gone(name, timeout=WITHIN)
        points.verify()
