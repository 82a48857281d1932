"""Points of each kind of disk: taken, and merged away in any order, while the guest writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.lab import Lab
from lab.machines.machine import Machine
from lab.pytest_plugin import MachineFactory
from tests.e2e.fixtures import AT_ONCE, MakePoints, other_class
from tests.e2e.points import Points
from tests.e2e.shop import Shop

pytestmark = [pytest.mark.real, pytest.mark.cluster]

CASES = [
    ("file", "raw", "Commit"),
    ("file", "qcow2", "Pull"),
    ("gluster", "raw", "Pull"),
    ("gluster", "qcow2", "Commit"),
    ("nbd", "raw", "Commit"),
    ("nbd", "qcow2", "Pull"),
]


def overlays_on_storage(lab: Lab, machine: Machine, directory: Path) -> set[str]:
    """Names of the images on the machine's storage that the controller made, whichever kind of disk."""
    names = {path.name for path in (*machine.host.images.iterdir(), *directory.iterdir())}
    names |= set(lab.gluster.volume().images())
    return {name for name in names if name.startswith(f"{machine.name}.vda.varve-")}


def overlays_in_chain(machine: Machine) -> set[str]:
    """Names of the images in the chain that the controller made."""
    leaves = (layer.source.name.rsplit("/", 1)[-1] for layer in machine.chain())
    return {leaf for leaf in leaves if ".varve-" in leaf}


def policy_of(shop: Shop, kind: str, image_format: str, direction: str, directory: Path) -> dict[str, Any]:
    """A class for this case; and a spec that names it, and with it the place for the overlays of NBD disks:
    in the class for the raw one, in the snapshot for the other."""
    name = f"{kind}-{image_format}-{direction}".lower()
    in_class = {"overlay": {"directory": str(directory)}} if (kind, image_format) == ("nbd", "raw") else {}
    in_spec = {"overlay": {"directory": str(directory)}} if (kind, image_format) == ("nbd", "qcow2") else {}
    shop.apply(other_class(name, merge={**AT_ONCE, "direction": direction}, **in_class))
    return {"volumeSnapshotClassName": name, **in_spec}


@pytest.mark.parametrize(("kind", "image_format", "direction"), CASES)
def test_three_points_then_the_middle_the_newest_and_the_oldest_go(
    lab: Lab,
    shop: Shop,
    machines: MachineFactory,
    points: MakePoints,
    tmp_path: Path,
    kind: str,
    image_format: str,
    direction: str,
) -> None:
    name = f"{kind}-{image_format}"
    machine = machines(lab.disk(kind, name, image_format=image_format), name=name)
    spec = policy_of(shop, kind, image_format, direction, tmp_path)
    disk: Points = points(machine)
    base = machine.chain()[0].source
    old, middle, new = (f"{name}-{when}" for when in ("old", "middle", "new"))

    for point in (old, middle, new):
        disk.take(point, **spec)
    assert [layer.image_format for layer in machine.chain()] == ["qcow2"] * 3 + [image_format]
    disk.verify()

    for point in (middle, new, old):
        disk.delete(point)
        assert overlays_on_storage(lab, machine, tmp_path) == overlays_in_chain(machine)
        disk.verify()

    (left,) = machine.chain()
    assert (left.source == base) is (direction == "Commit")
    machine.destroy()
    disk.verify_shut_off()
    machine.start()  # the persistent definition leads to the same data
    disk.check_guest()
