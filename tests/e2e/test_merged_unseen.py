"""B11 on real parts: somebody merges with virsh while no controller runs, and whole points stay."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import libvirt
import pytest

from controller.chain.journal_codec import decode, encode
from controller.chain.parse import JOURNAL_NAMESPACE
from lab.deadline import wait_until
from lab.machines.machine import Machine
from tests.e2e.points import Points
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]

_BOTH = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG


def three_points(stage: Stage, title: str) -> Points:
    machine = stage.machine("file", name=f"unseen-{title}")
    points = stage.points(machine)
    for number in ("1", "2", "3"):
        points.take(f"{machine.name}-{number}")
    return points


def let_time_pass(machine: Machine) -> None:
    """As if the last point had been taken half an hour ago, and the images been written long before."""
    at = f"{datetime.now(UTC) - timedelta(minutes=30):%Y-%m-%dT%H:%M:%SZ}"
    kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    journal = decode(machine.domain.metadata(kind, JOURNAL_NAMESPACE))
    record = journal.disk("vda")
    assert record.known is not None
    changed = journal.with_disk(replace(record, known=replace(record.known, at=at)))
    machine.domain.setMetadata(kind, encode(changed), "varve", JOURNAL_NAMESPACE, _BOTH)
    for layer in machine.chain()[1:]:
        os.utime(layer.source.name, (time.time() - 3600, time.time() - 3600))


def by_hand(points: Points, merge: Callable[[Machine, list[str]], object]) -> None:
    """``merge`` gets the names of the four layers, the upper first, and leaves three. The image of the second
    is removed, as by ``--delete``."""
    machine = points.machine
    image = Path(machine.chain()[1].source.name)
    names = [f"vda[{layer.index}]" for layer in machine.chain()]
    merge(machine, names)
    wait_until(
        lambda: len(machine.chain()) == 3 and len(machine.chain(inactive=True)) == 3,
        timeout=30,
        what="the end of the merge",
    )
    image.unlink()


def commit(machine: Machine, names: list[str]) -> None:
    """``virsh blockcommit``: the second layer into the third."""
    machine.domain.blockCommit("vda", names[2], names[1], 0, 0)


def pull(machine: Machine, names: list[str]) -> None:
    """``virsh blockpull --base``: the second layer into the active one."""
    machine.domain.blockRebase("vda", names[2], 0, 0)


@pytest.mark.parametrize(("merge", "lost"), [(commit, "2"), (pull, "3")], ids=["it went down", "it went up"])
def test_a_merge_that_nobody_saw(
    stage: Stage, merge: Callable[[Machine, list[str]], None], lost: str
) -> None:
    points = three_points(stage, merge.__name__)
    machine, shop = points.machine, stage.shop
    gone = f"{machine.name}-{lost}"
    stage.controller.stop()
    let_time_pass(machine)
    by_hand(points, merge)
    stage.controller.start()
    shop.waits_for(gone, "Lost")
    points.kept.pop(gone)
    shop.ready(*points.kept)
    points.verify()
    shop.delete(gone)
    for name in list(points.kept):
        points.delete(name)
        points.verify()


def test_a_merge_right_after_the_last_point_proves_nothing(stage: Stage) -> None:
    """Two clocks may differ by minutes, so both points beside the layer are lost, and the third is not."""
    points = three_points(stage, "at-once")
    machine, shop = points.machine, stage.shop
    stage.controller.stop()
    by_hand(points, commit)
    stage.controller.start()
    for number in ("2", "3"):
        name = f"{machine.name}-{number}"
        shop.waits_for(name, "Lost")
        points.kept.pop(name)
    shop.ready(f"{machine.name}-1")
