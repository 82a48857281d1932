"""kill -9 of the controller at calls to libvirt: the next one ends in the same state.

The enumeration of all calls is done on the simulated hypervisor (tests/reconcile/test_kill.py); this is the
proof on real parts, at the boundaries that matter: intent written and call not made, call made and nothing
noted, done and not flushed, image removed and not noted.
"""

from __future__ import annotations

import signal

import pytest

from lab.controller import Controller
from tests.e2e.launcher import KillPoint, program
from tests.e2e.stage import AT_ONCE, Stage, other_class, overlays_in_chain

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def mortal(stage: Stage, point: KillPoint) -> Controller:
    """A controller that will be killed there, in the place of the stage's."""
    assert stage.controller.stop() == 0
    found = Controller(stage.lab, name="mortal", program=program(stage.scratch / "calls", point))
    found.start()
    return found


def die(victim: Controller, stage: Stage, point: KillPoint) -> None:
    """Wait until it was killed as meant, and start the next one."""
    assert victim.wait_ended() == -signal.SIGKILL
    assert stage.scratch.joinpath("calls").read_text().split()[-1] == point.method
    stage.controller.start()


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_in_a_take(stage: Stage, side: str) -> None:
    machine = stage.machine("gluster")
    points, shop = stage.points(machine), stage.shop
    points.take("first")
    point = KillPoint(side, "create_snapshot", 1)
    victim = mortal(stage, point)
    machine.wait_writing()
    shop.snapshot("second", machine.name)
    die(victim, stage, point)
    shop.ready("second")
    points.remember("second")
    assert len(machine.chain()) == 3
    assert stage.overlays(machine) == overlays_in_chain(machine)
    points.verify()
    points.delete("first", "second")
    assert len(machine.chain()) == 1
    points.check_guest()


MERGES = {
    "commit": (
        "Commit",
        "middle",
        [("after", "set_metadata"), ("after", "commit"), ("after", "remove_image")],
    ),
    "active commit": ("Commit", "new", [("after", "commit"), ("before", "pivot"), ("after", "pivot")]),
    "pull": ("Pull", "new", [("after", "pull"), ("before", "flush"), ("after", "flush")]),
}
CASES = [
    pytest.param(direction, victim, KillPoint(side, method, 1), id=f"{kind}, {side} {method}")
    for kind, (direction, victim, kill_points) in MERGES.items()
    for side, method in kill_points
]


@pytest.mark.parametrize(("direction", "unwanted", "point"), CASES)
def test_killed_in_a_merge(stage: Stage, direction: str, unwanted: str, point: KillPoint) -> None:
    machine = stage.machine()
    points, shop = stage.points(machine), stage.shop
    shop.apply(other_class("killed", merge={**AT_ONCE, "direction": direction}))
    for name in ("old", "middle", "new"):
        points.take(name, volumeSnapshotClassName="killed")
    victim = mortal(stage, point)
    del points.kept[unwanted]
    shop.begin_delete(unwanted)
    die(victim, stage, point)
    shop.gone(unwanted)
    assert len(machine.chain()) == 3
    assert stage.overlays(machine) == overlays_in_chain(machine)
    points.verify()
    machine.destroy()
    points.verify_shut_off()
