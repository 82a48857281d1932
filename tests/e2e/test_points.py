"""Points of each kind of disk: taken, and merged away in any order, while the guest writes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.stage import AT_ONCE, Stage, other_class, overlays_in_chain

pytestmark = [pytest.mark.real, pytest.mark.cluster]

CASES = [
    ("file", "raw", "Commit"),
    ("file", "qcow2", "Pull"),
    ("gluster", "raw", "Pull"),
    ("gluster", "qcow2", "Commit"),
    ("nbd", "raw", "Commit"),
    ("nbd", "qcow2", "Cheapest"),
]


def policy_of(stage: Stage, kind: str, image_format: str, direction: str) -> dict[str, Any]:
    """A class for this case; and a spec that names it, and with it the place for the overlays of NBD disks:
    in the class for the raw one, in the snapshot for the other."""
    name = f"{kind}-{image_format}-{direction}".lower()
    in_class: dict[str, Any] = {}
    in_spec: dict[str, Any] = {}
    if kind == "nbd":
        where = in_class if image_format == "raw" else in_spec
        where["overlay"] = {"directory": str(stage.scratch)}
    stage.shop.apply(other_class(name, merge={**AT_ONCE, "direction": direction}, **in_class))
    return {"volumeSnapshotClassName": name, **in_spec}


@pytest.mark.parametrize(("kind", "image_format", "direction"), CASES)
def test_three_points_then_the_middle_the_newest_and_the_oldest_go(
    stage: Stage, kind: str, image_format: str, direction: str
) -> None:
    name = f"{kind}-{image_format}"
    machine = stage.machine(stage.lab.disk(kind, name, image_format=image_format), name=name)
    spec = policy_of(stage, kind, image_format, direction)
    points = stage.points(machine)
    base = machine.chain()[0].source
    old, middle, new = (f"{name}-{when}" for when in ("old", "middle", "new"))

    for point in (old, middle, new):
        points.take(point, **spec)
    assert [layer.image_format for layer in machine.chain()] == ["qcow2"] * 3 + [image_format]
    points.verify()

    for point in (middle, new, old):
        points.delete(point)
        assert stage.overlays(machine) == overlays_in_chain(machine)
        points.verify()

    (left,) = machine.chain()
    if direction != "Cheapest":
        assert (left.source == base) is (direction == "Commit")
    machine.destroy()
    points.verify_shut_off()
    machine.start()  # the persistent definition leads to the same data
    points.check_guest()
