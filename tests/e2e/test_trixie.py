"""A hypervisor whose libvirt has a known fault: Debian 13 (A3)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab import bare
from lab.controller import hypervisor
from lab.hosts.host import Host
from lab.machines.machine import Machine
from lab.storage.image import ImageSource
from tests.e2e.stage import Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]

MOST = 22
"""Images that libvirt 11.3 starts for certain."""
RESYNC = 5


@pytest.fixture
def debian(stage: Stage, trixie: Host) -> Iterator[Host]:
    """Debian 13, as Hypervisor debian; the controller looks at everything every few seconds."""
    stage.controller.stop()
    stage.controller.start(f"--resync-seconds={RESYNC}")
    shop = stage.shop
    shop.apply(hypervisor("debian", trixie.uri))
    shop.kubectl("wait", "--for=condition=Ready", "hypervisor/debian", "--timeout=30s")
    yield trixie
    shop.clear()
    shop.kubectl("delete", "hypervisor/debian")
    stage.controller.stop()


def start_again(machine: Machine) -> None:
    """An orderly stop and start."""
    machine.destroy()
    machine.start()
    machine.wait_writing()


def test_every_chain_that_varve_lets_grow_starts_again(stage: Stage, debian: Host) -> None:
    machine = stage.machine(host=debian)
    points, shop = stage.points(machine), stage.shop
    for number in range(MOST - 1):
        points.take(f"p{number}", rounds=1)
    shop.snapshot("more", machine.name)
    message = shop.waits_for("more", "ChainTooLong")
    assert f"no machine with more than {MOST}" in message
    assert shop.condition("more", "Stalled")["status"] == "True"
    assert shop.condition("p0", "Ready")["status"] == "True", "whose point is there has nothing to wait for"
    assert len(machine.chain()) == MOST
    machine.destroy()
    points.verify_shut_off()
    machine.start()
    machine.wait_writing()
    points.check_guest()

    points.delete("p3", timeout=60)
    shop.ready("more")
    points.remember("more")
    start_again(machine)
    points.verify()


def test_a_chain_of_40_is_named_and_can_be_mended(stage: Stage, debian: Host) -> None:
    machine = stage.machine(host=debian)
    points, shop = stage.points(machine), stage.shop
    points.take("mine")
    for number in range(38):
        bare.take(machine, "vda", ImageSource.file(debian.images / f"{machine.name}-by-hand-{number}.qcow2"))
    assert len(machine.chain()) == 40

    message = shop.told("mine", "has 40 images", timeout=3 * RESYNC)["message"]
    for words in (
        "before 18 are gone",
        "shop/mine",
        "38 layers that are not varve's",
        "blockcommit",
    ):
        assert words in message, message
    assert shop.condition("mine", "Stalled")["status"] == "True"
    assert shop.get("mine")["status"]["readyToUse"] is True, "the point itself is there"
    chain = f"vvc/{machine.name}-vda"  # which is told some seconds later
    shop.kubectl("wait", chain, "--for=condition=Stalled", "--timeout=60s", timeout=60)
    assert "ChainTooLong" in shop.kubectl("get", chain)

    faults = json.loads(shop.kubectl("get", "hypervisor/debian", "-o", "json"))["status"]["knownFaults"]
    assert {one["name"]: one.get("limit") for one in faults}["ChainDepth"] == MOST

    by_hand = machine.chain()[1:20]
    bare.commit(machine, "vda", top=by_hand[0], base=by_hand[-1])
    shop.ready("mine", timeout=3 * RESYNC)
    start_again(machine)
    points.check_guest()
    assert stage.lab.reader.verify(points.kept["mine"], points.holders()["mine"].source).identical


def test_layers_made_by_hand_go_by_adopting_and_deleting_them(stage: Stage, debian: Host) -> None:
    """The way out that the message names, with the machine's statistics out of reach."""
    machine = stage.machine(host=debian)
    points, shop = stage.points(machine), stage.shop
    points.take("mine")
    for number in range(28):
        bare.take(machine, "vda", ImageSource.file(debian.images / f"{machine.name}-by-hand-{number}.qcow2"))
    images = len(machine.chain())
    shop.told("mine", f"has {images} images", timeout=3 * RESYNC)
    excess = images - MOST
    adopted = [layer.source.name for layer in machine.chain()[1 : excess + 1]]
    names = [f"adopted-{number}" for number in range(excess)]
    shop.apply(other_class("together", merge={"settleSeconds": 10}))
    for name, image in zip(names, adopted, strict=True):
        shop.snapshot(name, machine.name, adopt={"layer": image}, volumeSnapshotClassName="together")
    shop.until(names[-1], '.status.conditions[?(@.type=="ChainInSync")].status', "True")
    shop.delete(*names, timeout=60)
    shop.ready("mine", timeout=3 * RESYNC)
    assert len(machine.chain()) == MOST
    start_again(machine)
    points.check_guest()
    assert stage.lab.reader.verify(points.kept["mine"], points.holders()["mine"].source).identical
