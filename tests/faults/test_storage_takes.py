"""Storage servers that are gone or hang when a point is to be taken: nobody is frozen, and it goes on.

QEMU would open the new image in its main loop and freeze the guest until the server answers: so it is not
told to. What it cannot be kept from is waiting for the server of a disk that its guest uses already: such a
guest stands still for as long as its server does, whatever anybody else does.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lxml import etree

from lab.machines.disk import Disk
from tests.e2e.pools import made_pool
from tests.e2e.stage import Stage
from tests.faults.storage import WITHIN, export_of, gone, hung, hung_brick, monitor_answers

pytestmark = [pytest.mark.real, pytest.mark.cluster]

HOW = {"hung": (hung, "does not answer"), "gone": (gone, "refuses connections")}


@pytest.fixture
def gluster_pool(stage: Stage) -> Iterator[str]:
    """A storage pool of host a on the volume gv0; its name."""
    volume, server = stage.lab.gluster.volume(), stage.lab.gluster
    root = etree.Element("pool", type="gluster")
    etree.SubElement(root, "name").text = "faults-gluster"
    source = etree.SubElement(root, "source")
    etree.SubElement(source, "host", name=server.address)
    etree.SubElement(source, "dir", path="/")
    etree.SubElement(source, "name").text = volume.name
    pool = made_pool(stage.host.connection(), etree.tostring(root, encoding="unicode"))
    yield "faults-gluster"
    pool.destroy()


@pytest.mark.parametrize("how", HOW)
def test_the_server_that_is_to_hold_the_layer(stage: Stage, gluster_pool: str, how: str) -> None:
    """The guest is on local files: it never notices."""
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    points.take("before")
    away, words = HOW[how]
    with away(stage.lab.gluster):
        shop.snapshot("later", machine.name, overlay={"pool": gluster_pool})
        message = shop.waits_for("later", "StorageUnreachable")
        assert words in message
        assert stage.lab.gluster.address in message
        machine.wait_writing(rounds=64)
        assert monitor_answers(machine)
        assert len(machine.chain()) == 2
        points.verify()
    shop.ready("later", timeout=WITHIN)
    points.remember("later")
    points.verify()


def test_the_brick_that_is_to_hold_the_layer(stage: Stage, gluster_pool: str) -> None:
    """Its daemon answers. The guest is on local files: it never notices."""
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    points.take("before")
    volume = stage.lab.gluster.volume()
    with hung_brick(volume):
        shop.snapshot("later", machine.name, overlay={"pool": gluster_pool})
        message = shop.waits_for("later", "StorageUnreachable")
        assert f"brick {stage.lab.gluster.address}:{volume.brick} accepts" in message
        machine.wait_writing(rounds=64)
        assert monitor_answers(machine)
        points.verify()
    shop.ready("later", timeout=WITHIN)
    points.remember("later")
    points.verify()


def test_a_dead_ceph_monitor_does_not_freeze_the_guest(stage: Stage) -> None:
    """Told to use it, QEMU would wait for 300 s. The guest reads and writes through the OSD meanwhile."""
    if reason := stage.lab.why_not("rbd"):
        pytest.skip(reason)
    machine = stage.machine("rbd")
    points, shop = stage.points(machine), stage.shop
    points.take("before")
    with gone(stage.lab.rbd.monitor):
        shop.snapshot("later", machine.name)
        message = shop.waits_for("later", "StorageUnreachable")
        assert f"127.0.0.1:{stage.lab.rbd.port} refuses connections" in message
        machine.wait_writing(rounds=64)
        assert monitor_answers(machine)
    shop.ready("later", timeout=WITHIN)
    points.remember("later")
    points.verify()


@pytest.mark.parametrize("kind", ["nbd", "iscsi"])
def test_the_hung_server_of_the_guests_own_disk(stage: Stage, kind: str) -> None:
    """The guest stands still with it, and so would QEMU's monitor if a point were taken, also of the other
    disk, the file. When the server goes on, so does the guest, and no write was lost."""
    if reason := stage.lab.why_not(kind):
        pytest.skip(reason)
    own = stage.lab.disk(kind, f"own-{kind}")
    machine = stage.machine(Disk.file(), own)
    server = stage.lab.iscsi if kind == "iscsi" else export_of(stage.lab, own.source)
    points, shop = stage.points(machine), stage.shop
    points.take("before")
    elsewhere = {"directory": str(stage.scratch)}
    with hung(server):
        shop.snapshot("file", machine.name)
        shop.snapshot("net", machine.name, disk="vdb", overlay=elsewhere)
        for name in ("file", "net"):
            assert "does not answer" in shop.waits_for(name, "StorageUnreachable")
        assert monitor_answers(machine)
    machine.wait_writing()
    shop.ready("file", "net", timeout=WITHIN)
    points.remember("file")
    points.verify()
    other = stage.points(machine, "vdb")
    other.remember("net")
    assert other.reader.verify(other.kept["net"]).identical
    assert machine.progress()[1] == 0, "a write of the guest failed"


def test_a_server_with_room_for_the_machine_alone(stage: Stage) -> None:
    """`qemu-nbd` serves one client if it is not told otherwise: it cannot be asked, but the guest tells."""
    export = stage.lab.nbd.export("lonely", 20 << 20, clients=1)
    machine = stage.machine(Disk.nbd(export))
    points, shop = stage.points(machine), stage.shop
    machine.wait_writing()
    elsewhere = {"directory": str(stage.scratch)}
    with hung(export):
        shop.snapshot("first", machine.name, overlay=elsewhere)
        assert "--shared" in shop.waits_for("first", "StorageUnreachable")
        assert monitor_answers(machine)
    shop.ready("first", timeout=WITHIN)
    machine.wait_writing()
    shop.snapshot("second", machine.name, overlay=elsewhere)
    shop.ready("second")
    assert len(machine.chain()) == 3
    for name in ("first", "second"):
        machine.wait_writing()
        shop.delete(name, timeout=WITHIN)
    assert len(machine.chain()) == 1
    machine.wait_writing()
    assert machine.progress()[1] == 0, "a write of the guest failed"
    machine.destroy()  # only now is there room for somebody who reads
    points.verify_shut_off()


def test_a_server_with_room_for_another_disk_of_the_machine_alone(stage: Stage) -> None:
    """A point of the file beside it needs nothing of that server, but QEMU waits for it."""
    export = stage.lab.nbd.export("lonely-beside", 20 << 20, clients=1)
    machine = stage.machine(Disk.file(), Disk.nbd(export))
    points, shop = stage.points(machine), stage.shop
    points.take("before")
    with hung(export):
        shop.snapshot("later", machine.name)
        assert "--shared" in shop.waits_for("later", "StorageUnreachable")
        assert monitor_answers(machine)
    shop.ready("later", timeout=WITHIN)
    points.remember("later")
    points.verify()
    points.delete("before")
    points.verify()
