"""Points that are wanted together are taken together: one libvirt call, one moment, one layer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.controller import Controller, snapshot
from lab.machines.machine import Machine
from tests.e2e import launcher
from tests.e2e.gate import Gate
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]

DISKS = 10


@dataclass(frozen=True)
class Counted:
    """A stage whose controller records its changing calls; it does not run yet."""

    stage: Stage
    controller: Controller
    calls: Path

    def takes(self) -> int:
        """Snapshot calls that libvirt got."""
        return self.calls.read_text(encoding="ascii").split().count("create_snapshot")

    def taken(self) -> list[list[str]]:
        """By snapshot call: the disks that it was about."""
        log = self.controller.log.read_text(encoding="utf-8")
        return [found.split(",") for found in re.findall(r'step=Take disks="?([\w,]+)', log)]


@pytest.fixture
def counted(stage: Stage, tmp_path: Path) -> Iterator[Counted]:
    assert stage.controller.stop() == 0
    calls = tmp_path / "calls"
    controller = Controller(stage.lab, name="batching", program=launcher.program(calls))
    controller.log.unlink(missing_ok=True)
    yield Counted(stage, controller, calls)
    if controller.running:
        assert controller.stop() == 0


def check_taken(stage: Stage, machine: Machine, *, together: bool) -> None:
    """Each disk has one new layer, and a point that is its base; `together`: all are of one moment."""
    newest = []
    for disk in machine.disks:
        active, frozen = machine.chain(disk)
        sources = [layer.source for layer in machine.chain(disk, inactive=True)]
        assert [active.source, frozen.source] == sources
        check = stage.lab.reader.capture(machine, disk, frozen, live=False).check_writer()
        assert check.ok, (disk, check)
        newest.append(check.max_counter)
    # The guest writes a round to one disk after the other, so at most one write lies between any two.
    assert not together or max(newest) - min(newest) <= 1, newest


def test_ten_disks_while_the_controller_was_away(counted: Counted) -> None:
    stage, shop = counted.stage, counted.stage.shop
    machine = stage.machine(*["file"] * DISKS)
    machine.wait_writing(rounds=16)
    names = {disk: f"away-{disk}" for disk in machine.disks}
    shop.apply(*(snapshot(name, machine.name, disk=disk) for disk, name in names.items()))
    counted.controller.start()
    shop.ready(*names.values())
    assert counted.takes() == 1
    assert [sorted(disks) for disks in counted.taken()] == [machine.disks]
    check_taken(stage, machine, together=True)


def test_five_of_one_disk_while_the_controller_was_away(counted: Counted) -> None:
    stage, shop = counted.stage, counted.stage.shop
    machine = stage.machine()
    points, names = stage.points(machine), [f"same-{number}" for number in range(5)]
    machine.wait_writing(rounds=16)
    shop.apply(*(snapshot(name, machine.name) for name in names))
    counted.controller.start()
    shop.ready(*names)
    assert counted.takes() == 1
    check_taken(stage, machine, together=True)
    told = [one["status"] for one in shop.objects().values()]
    assert len({(one["layer"]["source"], one["creationTime"]) for one in told}) == 1, told
    points.remember(names[-1])
    points.delete(*names[:-1])
    points.verify()
    points.delete(names[-1])
    assert len(machine.chain()) == 1
    points.check_guest()


def test_ten_disks_with_one_apply(counted: Counted, tmp_path: Path) -> None:
    """The first call is held until kubectl has applied the last one: what comes during a call shares the
    next. How many there are depends otherwise on how fast kubectl is."""
    stage, shop = counted.stage, counted.stage.shop
    machine = stage.machine(*["file"] * DISKS)
    hold = launcher.Hold("create_snapshot", tmp_path / "hold")
    os.mkfifo(hold.fifo)
    controller = Controller(stage.lab, name="batching", program=launcher.program(counted.calls, hold))
    controller.start()
    machine.wait_writing(rounds=16)
    names = {disk: f"apply-{disk}" for disk in machine.disks}
    try:
        shop.apply(*(snapshot(name, machine.name, disk=disk) for disk, name in names.items()))
        hold.release()
        shop.ready(*names.values())
    finally:
        controller.stop()
    assert counted.takes() == len(counted.taken()) <= 3
    assert sorted(disk for disks in counted.taken() for disk in disks) == machine.disks
    assert machine.disks[0] in counted.taken()[0], "the first one waited for others"
    check_taken(stage, machine, together=False)


def test_the_first_of_one_apply_is_ready_before_the_next_is_there(counted: Counted) -> None:
    """The API server gets the second object when the first is Ready, and not before: whoever waits for
    company would wait for ever."""
    stage, shop = counted.stage, counted.stage.shop
    machine = stage.machine(*["file"] * DISKS)
    counted.controller.start()
    names = {disk: f"gated-{disk}" for disk in machine.disks}
    first, second = list(names.values())[:2]
    documents = "\n---\n".join(snapshot(name, machine.name, disk=disk) for disk, name in names.items())
    with Gate(shop.plane, before=second) as gate, ThreadPoolExecutor(1) as pool:
        apply = ("--server", gate.url, "apply", "--validate=false", "-f", "-")
        applying = pool.submit(shop.kubectl, *apply, stdin=documents)
        try:
            gate.wait_held()
            shop.ready(first)
            assert shop.names() == {first}
            assert counted.takes() == 1
        finally:
            gate.open()
        applying.result()
    shop.ready(*names.values())
    assert counted.taken()[0] == [machine.disks[0]]
    check_taken(stage, machine, together=False)
