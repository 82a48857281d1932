"""Machines really write, the reader really reads, and both say so when something is wrong."""

from pathlib import Path

import libvirt
import pytest

from lab.bare import commit_active, pull, take
from lab.deadline import wait_until
from lab.errors import LabError
from lab.hosts.host import Host
from lab.lab import Lab
from lab.machines.disk import Disk
from lab.machines.machine import Machine
from lab.pytest_plugin import MachineFactory
from lab.reader import Reader
from lab.storage.image import ImageSource

pytestmark = pytest.mark.real


def overlay(lab: Lab, machine: Machine, kind: str) -> ImageSource:
    """A place for one overlay of this kind."""
    match kind:
        case "gluster":
            return lab.gluster.volume().source(f"{machine.name}-overlay.qcow2")
        case "nbd":
            return lab.nbd.export(f"{machine.name}-overlay", 32 << 20).source
    return ImageSource.file(machine.host.images / f"{machine.name}-overlay.qcow2")


def stands_still(machine: Machine) -> bool:
    """Whether the guest writes no more; one report may have been on its way."""
    return not (machine.alive(timeout=0.5) and machine.alive(timeout=0.5))


@pytest.mark.parametrize("kind", ["file", "gluster", "nbd"])
def test_a_point_keeps_its_content_while_the_guest_writes(
    kind: str, lab: Lab, machines: MachineFactory, reader: Reader
) -> None:
    machine = machines(kind)
    machine.wait_writing(rounds=32)
    base = machine.chain()[0]
    take(machine, "vda", overlay(lab, machine, kind))
    point = reader.capture(machine, "vda", base)
    assert point.check_writer().ok
    machine.wait_writing(rounds=32)

    assert reader.verify(point).identical
    assert reader.verify(point, live=False).identical
    now = reader.capture(machine, "vda")
    assert now.check_writer().ok
    assert now.check_writer().max_counter > point.check_writer().max_counter
    changed = reader.verify(point, machine.chain()[0])
    assert not changed.identical  # the guest went on: the active layer is not the point
    assert changed.first_difference is not None

    pull(machine, "vda") if kind == "file" else commit_active(machine, "vda")
    assert len(machine.chain()) == 1
    machine.wait_writing()
    assert reader.capture(machine, "vda").check_writer().ok


def test_damage_to_a_point_is_found(machines: MachineFactory, reader: Reader) -> None:
    machine = machines(Disk.file(image_format="raw"))
    machine.wait_writing(rounds=32)
    base = machine.chain()[0].source
    take(machine, "vda", ImageSource.file(machine.host.images / f"{machine.name}-over.qcow2"))
    point = reader.capture(machine, "vda", base)
    at = (machine.options.base_sector + 5) * 512 + 17
    with Path(base.name).open("r+b") as image:
        image.seek(at)
        byte = image.read(1)[0]
        image.seek(at)
        image.write(bytes([byte ^ 1]))
    for live in (True, False):
        assert reader.verify(point, live=live).first_difference == at
    damaged = reader.capture(machine, "vda", base).check_writer()
    assert (damaged.ok, damaged.torn, damaged.first_bad_sector) == (False, 1, at // 512)


def test_a_machine_that_never_ran_has_written_nothing(machines: MachineFactory, reader: Reader) -> None:
    machine = machines("file", start=False)
    blank = reader.capture(machine, "vda", live=False)
    assert blank.check_writer().max_counter == 0
    assert not blank.check_writer().ok
    assert not machine.alive(timeout=0.1)


def test_all_disks_are_written_and_a_killed_machine_goes_on_where_it_was(
    machines: MachineFactory, reader: Reader
) -> None:
    machine = machines("file", Disk.file(image_format="raw"), "file")
    machine.wait_writing(rounds=64)
    machine.kill_qemu()
    wait_until(lambda: not machine.domain.isActive(), timeout=10, what="libvirt's notice")
    before = [reader.capture(machine, disk, live=False).check_writer() for disk in machine.disks]
    assert all(check.ok for check in before), before
    assert max(c.max_counter for c in before) - min(c.max_counter for c in before) <= 1
    machine.start()
    machine.wait_writing(rounds=32)
    after = [reader.capture(machine, disk).check_writer() for disk in machine.disks]
    assert all(check.ok for check in after), after
    assert after[0].max_counter > before[0].max_counter


def test_a_guest_outlives_its_libvirtd(machines: MachineFactory, host: Host) -> None:
    machine = machines()
    machine.wait_writing()
    host.kill()
    assert not host.running
    machine.wait_writing()
    host.start()
    assert machine.domain.isActive()
    host.pause()
    machine.wait_writing()
    host.resume()
    assert machine.domain.isActive()


def test_a_stopped_guest_is_seen(machines: MachineFactory) -> None:
    machine = machines()
    machine.wait_writing()
    machine.pause_qemu()
    assert stands_still(machine)
    machine.resume_qemu()
    assert machine.alive()


def test_hosts_are_independent(lab: Lab, machines: MachineFactory) -> None:
    one, other = lab.host("a"), lab.host("b")
    machine = machines(host=other)
    assert one.connection().getHostname() == "varve-a"
    assert other.connection().getHostname() == "varve-b"
    with pytest.raises(libvirt.libvirtError):
        one.connection().lookupByUUIDString(machine.uuid)
    one.restart()
    machine.wait_writing()


def test_a_dead_nbd_server_is_felt_by_the_guest(lab: Lab, machines: MachineFactory) -> None:
    export = lab.nbd.export("mortal", 24 << 20)
    machine = machines(Disk.nbd(export))
    machine.wait_writing()
    export.pause()
    assert stands_still(machine)
    export.resume()
    machine.wait_writing()
    export.kill()
    wait_until(lambda: machine.progress()[1] > 0, timeout=20, what="a failed write")
    export.start()


def test_a_dead_brick_comes_back(lab: Lab, machines: MachineFactory) -> None:
    volume = lab.gluster.volume()
    machine = machines("gluster")
    machine.wait_writing()
    volume.pause_brick()
    assert stands_still(machine)
    volume.resume_brick()
    machine.wait_writing()
    assert f"{machine.name}-0.qcow2" in volume.images()
    volume.kill_brick()
    with pytest.raises(LabError, match="does not run"):
        volume.brick_record()
    lab.gluster.start_bricks(volume)
    assert volume.brick_record().pid > 0


def test_a_disk_too_small_for_the_writer_is_refused(machines: MachineFactory) -> None:
    with pytest.raises(LabError, match="too small"):
        machines(Disk.file(size=1 << 20))
