"""B5: backup software makes checkpoints of a disk that has points; both go on, and the backups are right."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from controller.hypervisor.driver import Driver
from tests.e2e.stage import Stage
from tests.hypervisor.real.subject import Events, Subject
from tests.hypervisor.real.test_checkpoints import Backups

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def test_points_are_merged_under_a_checkpoint_and_the_next_increment_is_right(stage: Stage) -> None:
    machine = stage.machine()
    points = stage.points(machine)
    backups = Backups(Subject(cast("Driver", None), machine, Events()), stage.scratch)
    points.take("a")
    asyncio.run(backups.backup("k1", checkpoint=True))
    for name in ("b", "c", "d"):
        points.take(name)
    points.delete("b")  # in the middle
    points.delete("d")  # the active one
    points.verify()
    points.delete("a", "c", timeout=60)  # down into the image that the machine began with
    assert len(machine.chain()) == 1
    machine.wait_writing()
    machine.domain.suspend()
    assert asyncio.run(backups.restored("k1"))
    machine.domain.resume()
    points.check_guest()
