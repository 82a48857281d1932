"""The cluster is lost and its machines are not: a new one finds their points by the same manifests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.controller import Controller, hypervisor, policy, snapshot
from lab.lab import Lab
from lab.machines.machine import Machine
from tests.e2e import launcher
from tests.e2e.points import Points, shown
from tests.e2e.shop import Shop
from tests.e2e.stage import AT_ONCE, SMALL, Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]

SHARED = ("shared-1", "shared-2", "shared-3")
REMEMBERED = ("creationTime", "consistency", "consistencyMessage", "restoreSize", "layer")
"""What an object says of its point, and must say again."""
MAKES_OR_REMOVES = ("create_snapshot", "commit", "pull", "pivot", "remove_image")


@dataclass(frozen=True)
class Lost:
    """What is left of a cluster: Git, the machine, and what people remember."""

    stage: Stage
    machine: Machine
    points: Points
    cluster: str
    """Its identity in the journals."""
    manifests: dict[str, str]
    """Its VolumeSnapshots, by name, as they are in Git."""
    told: dict[str, dict[str, Any]]
    """What each of them said of its point."""
    chain: list[str]

    def chain_now(self) -> list[str]:
        return [shown(layer.source) for layer in self.machine.chain()]


@dataclass
class Rebuilt:
    """An empty cluster of its own, and a controller whose changing calls are recorded."""

    lab: Lab
    lost: Lost
    calls: Path
    arguments: tuple[str, ...] = ()
    running: list[Controller] = field(default_factory=list)

    @property
    def shop(self) -> Shop:
        return Shop(self.lab.control_plane())

    def install(self) -> Controller:
        """A controller that does not run yet, and what a cluster has before its VolumeSnapshots."""
        program = launcher.program(self.calls)
        controller = Controller(self.lab, arguments=self.arguments, program=program)
        controller.install()
        self.shop.plane.kubectl("create", "namespace", self.shop.namespace)
        self.shop.apply(policy(merge=AT_ONCE))
        self.running.append(controller)
        return controller

    def points(self) -> Points:
        """The points as the new cluster has them, against what was captured in the days of the old one."""
        kept = dict(self.lost.points.kept)
        return Points(self.shop, self.lost.points.reader, self.lost.machine, kept=kept)

    def check_found(self, *names: str) -> None:
        """These are Ready with the points that they had, and nothing was made or removed for it."""
        self.shop.ready(*names)
        objects = self.shop.objects()
        for name in names:
            assert told_by(objects[name]) == self.lost.told[name], name
        assert self.lost.chain_now() == self.lost.chain
        assert not self.made_or_removed()

    def made_or_removed(self) -> list[str]:
        """Calls that changed more than the journal."""
        called = self.calls.read_text(encoding="ascii").split()
        return [method for method in called if method in MAKES_OR_REMOVES]


def told_by(found: dict[str, Any]) -> dict[str, Any]:
    """What an object says of its point, but for what the layer takes: the file system settles that later."""
    told = {name: found["status"][name] for name in REMEMBERED if name in found["status"]}
    told["layer"] = {key: value for key, value in told["layer"].items() if key != "allocatedBytes"}
    return told


@pytest.fixture
def lost(stage: Stage) -> Lost:
    """One disk with a point that was adopted, two of one owner each and, between them, one of three."""
    shop, machine = stage.shop, stage.machine(writer=SMALL)
    points = stage.points(machine)
    manifests: dict[str, str] = {}

    def git(name: str, **spec: Any) -> str:
        manifests[name] = snapshot(name, machine.name, **spec)
        return manifests[name]

    points.take("first")  # and forgotten by its owner: what is adopted then is a layer from before
    layer = shop.get("first")["status"]["layer"]["source"]
    shop.kubectl("patch", "vvs/first", "--type=merge", '-p={"spec":{"deletionPolicy":"Retain"}}')
    points.delete("first")
    shop.apply(git("adopted", adopt={"layer": layer}))
    shop.ready("adopted")
    points.remember("adopted")

    points.take("older")
    git("older")
    machine.wait_writing(rounds=16)
    assert stage.controller.stop() == 0  # so that all of them are pending at once
    shop.apply(*(git(name) for name in SHARED))
    stage.controller.start()
    shop.ready(*SHARED)
    points.remember(SHARED[0])
    points.take("newer")
    git("newer")
    points.verify()

    told = {name: told_by(found) for name, found in shop.objects().items()}
    assert set(told) == set(manifests)
    assert len({json.dumps(told[name]) for name in SHARED}) == 1, told
    assert "creationTime" not in told["adopted"]
    assert all("creationTime" in told[name] for name in told if name != "adopted")
    assert stage.controller.stop() == 0
    uid = ("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
    chain = [shown(layer.source) for layer in machine.chain()]
    return Lost(stage, machine, points, shop.kubectl(*uid), manifests, told, chain)


@pytest.fixture
def rebuilt(lost: Lost, tmp_path: Path) -> Iterator[Rebuilt]:
    """A new cluster with an etcd of its own, which knows nothing."""
    with Lab() as lab:
        found = Rebuilt(lab, lost, tmp_path / "calls")
        yield found
        for controller in found.running:
            if controller.running:
                assert controller.stop() == 0


def test_with_the_old_identity_and_another_key_whatever_comes_first(lost: Lost, rebuilt: Rebuilt) -> None:
    rebuilt.arguments = (f"--cluster-id={lost.cluster}", "--resync-seconds=1")
    controller, shop = rebuilt.install(), rebuilt.shop
    controller.start()
    shop.apply(hypervisor("host-a", lost.stage.host.uri))
    shop.kubectl("wait", "--for=condition=Ready", "hypervisor/host-a", "--timeout=30s")
    # The controller works on the machine for some before it hears of the others, which are no less wanted.
    for names in (("newer",), (SHARED[1],), ("adopted", "older", SHARED[0], SHARED[2])):
        shop.apply(*(lost.manifests[name] for name in names))
        rebuilt.check_found(*names)
    rebuilt.check_found(*lost.manifests)
    points = rebuilt.points()
    points.verify()

    shop.delete(SHARED[0], SHARED[2])
    assert lost.chain_now() == lost.chain, "the third owner still wants it"
    del points.kept[SHARED[0]]
    shop.delete(SHARED[1])
    assert {"commit", "pull"} & set(rebuilt.made_or_removed()), "the record of calls says nothing"
    assert len(lost.machine.chain()) == len(lost.chain) - 1
    points.verify()


def test_with_another_identity_and_another_key_that_takes_over(lost: Lost, rebuilt: Rebuilt) -> None:
    controller, shop = rebuilt.install(), rebuilt.shop
    mine = hypervisor("host-a", lost.stage.host.uri)
    shop.apply(mine, *lost.manifests.values())
    controller.start()
    for name in lost.manifests:
        shop.waits_for(name, "ForeignOwner")
    shop.wait_detail(lost.cluster)
    assert lost.chain_now() == lost.chain
    heir = json.loads(mine)
    heir["spec"]["takeOverFrom"] = [lost.cluster]
    shop.apply(json.dumps(heir))  # the key of before is lost: what names and objects bear out is taken over
    rebuilt.check_found(*lost.manifests)
    points = rebuilt.points()
    points.verify()
    points.delete("older")
    assert {"commit", "pull"} & set(rebuilt.made_or_removed()), "the record of calls says nothing"
    points.verify()
