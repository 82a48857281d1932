"""Many points deleted with one command are one job, and it copies what the plan foresaw."""

from __future__ import annotations

import libvirt
import libvirt_qemu
import pytest

from lab.machines.disk import MEBIBYTE
from lab.machines.machine import Machine
from tests.e2e.matrix import need
from tests.e2e.stage import Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]

POINTS = 8
EACH = 16
"""MiB that each layer holds and no other; beside that some 0.3 MiB of tables, and what the guest writes."""
_BACKEND = "/machine/peripheral/virtio-disk0/virtio-backend"


def write(machine: Machine, number: int) -> None:
    """QEMU writes the region of this number into the active layer."""
    command = f'qemu-io -d {_BACKEND} "write -P {number + 1} {EACH * (number + 1)}M {EACH}M"'
    said = libvirt_qemu.qemuMonitorCommand(
        machine.domain, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
    )
    assert not said.strip(), said


def held(machine: Machine) -> dict[int | None, int]:
    """Bytes on the storage of each layer, by index."""
    connection = machine.host.connection()
    ((_, found),) = connection.domainListGetStats(
        [connection.lookupByUUIDString(machine.uuid)],
        libvirt.VIR_DOMAIN_STATS_BLOCK,
        libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING,
    )
    count = range(found["block.count"])
    return {found[f"block.{n}.backingIndex"]: found[f"block.{n}.physical"] for n in count}


def counted(stage: Stage) -> tuple[int, int, int]:
    """So far: merges begun, bytes that those were to copy that are done, and bytes that they copied."""
    page = stage.controller.metrics().splitlines()

    def value(start: str) -> int:
        found = (line.rsplit(" ", 1) for line in page)
        return sum(int(float(number)) for name, number in found if name.startswith(start))

    return (
        value('varve_step_seconds_count{result="call",step="StartMerge"'),
        value('varve_merge_bytes_total{kind="commit",what="planned"'),
        value('varve_merge_bytes_total{kind="commit",what="copied"'),
    )


@pytest.mark.parametrize("kind", ["file", "gluster"])
def test_five_adjacent_points_of_eight_go_with_one_job(stage: Stage, kind: str) -> None:
    need(stage, kind)
    name = f"bytes-{kind}"
    stage.shop.apply(other_class("together", merge={"settleSeconds": 5}))
    disk = stage.lab.disk(kind, name, size=EACH * (POINTS + 2) * MEBIBYTE)
    machine = stage.machine(disk, name=name)
    points = stage.points(machine)
    for number in range(POINTS):
        write(machine, number)
        points.take(f"{name}-{number}", volumeSnapshotClassName="together")
    write(machine, POINTS)
    before = held(machine)
    chain = machine.chain()  # the point 7 is frozen in chain[1], the point 0 in chain[8]
    jobs, planned, copied = counted(stage)

    points.delete(*(f"{name}-{number}" for number in range(2, 7)), timeout=90)

    after = counted(stage)
    assert after[0] - jobs == 1
    kept = chain[6]
    left = machine.chain()
    assert [layer.source for layer in left] == [layer.source for layer in (chain[0], *chain[6:])]
    grown = held(machine)[kept.index] - before[kept.index]
    foreseen = sum(before[layer.index] for layer in chain[1:6])
    planned, copied = after[1] - planned, after[2] - copied
    assert abs(grown - foreseen) <= 0.05 * foreseen
    # A server may account for what was written a moment later.
    assert abs(planned - foreseen) <= 0.01 * foreseen
    assert abs(copied - grown) <= 0.01 * grown
    for number in (2, 6):
        note = stage.shop.wait_event(f"{name}-{number}", "LayerMerged")
        assert note.endswith(f"{copied} bytes were copied; the plan foresaw {planned} at most")
    points.verify()
