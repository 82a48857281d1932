"""What the kill tests do to a machine, and what must be equal in the end, whatever was killed and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lxml import etree

from controller.chain.journal import Journal
from controller.chain.journal_codec import decode
from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.source import Source
from controller.hypervisor.simulated import SimulatedHost
from tests.reconcile.world import World, base_image


@dataclass
class Scene:
    """A machine with some points, and what the scenario does to it."""

    world: World
    host: SimulatedHost
    uuid: str


Act = Callable[[World], None]


@dataclass(frozen=True)
class Scenario:
    """``points`` are there first, with so many clusters written before each; then ``act`` is done, which
    makes these ``jobs``. Pulls are chosen wherever they are cheapest, as production does not (ADR 6)."""

    points: tuple[tuple[str, int], ...]
    top: int
    act: Act
    kept: tuple[str, ...]
    jobs: tuple[str, ...] = ()


SPARE = "/dev/spare"
"""A block device that was made beforehand."""

SCENARIOS = {
    "take": Scenario((("a", 2),), 1, lambda world: world.snapshot("b"), ("a", "b")),
    "commit": Scenario(
        (("a", 2), ("b", 2), ("c", 2)), 2, lambda world: world.delete("b"), ("a", "c"), ("commit",)
    ),
    "commit of a range": Scenario(
        (("a", 2), ("b", 1), ("c", 1), ("d", 1)),
        2,
        lambda world: (world.delete("b"), world.delete("c")),
        ("a", "d"),
        ("commit",),
    ),
    "active commit": Scenario(
        (("a", 3), ("b", 4)), 1, lambda world: world.delete("b"), ("a",), ("commit", "pivot")
    ),
    "pull": Scenario((("a", 3), ("b", 1)), 5, lambda world: world.delete("b"), ("a",), ("pull", "flush")),
    "pull of everything": Scenario(
        (("a", 1), ("b", 1)), 9, lambda world: (world.delete("a"), world.delete("b")), (), ("pull", "flush")
    ),
    "commit and pull": Scenario(
        (("a", 2), ("b", 2), ("c", 9)),
        1,
        lambda world: (world.delete("b"), world.delete("c")),
        ("a",),
        ("commit", "pivot", "pull", "flush"),
    ),
    "retain": Scenario((("a", 2), ("b", 2)), 1, lambda world: world.delete("b"), ("a",)),
    "take into a lent place": Scenario(
        (("a", 2),), 1, lambda world: world.snapshot("b", overlay={"source": {"path": SPARE}}), ("a", "b")
    ),
    "adopt": Scenario(
        (("a", 2),), 1, lambda world: world.snapshot("b", adopt={"layer": "/images/web-1.qcow2"}), ("a", "b")
    ),
}


async def prepare(scenario: Scenario, *, retain: bool) -> Scene:
    world = World(pulls_last=False)
    host = world.host()
    world.policy(deletionPolicy="Retain" if retain else "Delete")
    uuid = host.add_domain("web-1", {"vda": base_image("web-1")})
    spare = Source.from_element("block", etree.Element("source", dev=SPARE))
    host.storage.create(spare, capacity=2 << 20, format="raw")
    await world.start()
    cluster = 0
    for name, clusters in scenario.points:
        for _ in range(clusters):
            cluster += 1
            host.guest_write(uuid, "vda", cluster, cluster)
        world.snapshot(name)
        await world.ready(name)
    for number in range(scenario.top):
        host.guest_write(uuid, "vda", 100 + number, 7)
    await world.settled()
    host.faults.forget()
    world.kube.forget_calls()
    return Scene(world, host, uuid)


@dataclass(frozen=True)
class End:
    """What must be equal however often the controller was killed."""

    objects: tuple[tuple[str, bool], ...]
    layers: int
    images: int
    guest: tuple[tuple[int, int], ...]
    points: tuple[tuple[tuple[int, int], ...], ...]
    owned: int
    pending: bool


async def finish(scene: Scene, scenario: Scenario) -> End:
    world, host = scene.world, scene.host
    names = {name for name, _ in scenario.points} | set(scenario.kept)
    await world.until(lambda: all((world.object(n) is not None) == (n in scenario.kept) for n in names), 15)
    await world.ready(*scenario.kept)
    await world.settled()
    record = journal_of(scene).disk("vda")
    points = []
    for name in scenario.kept:
        status = world.object(name)["status"]
        content = host.point(scene.uuid, "vda", "file:" + status["layer"]["source"])
        points.append(tuple(sorted(content.items())))
    return End(
        objects=tuple((name, world.object(name)["status"]["readyToUse"]) for name in scenario.kept),
        layers=len(world.chain(host, scene.uuid)),
        images=len(host.storage.images),
        guest=tuple(sorted(host.visible(scene.uuid, "vda").items())),
        points=tuple(points),
        owned=len(record.points),
        pending=bool(record.operation or any(not removal.left for removal in record.removals)),
    )


def jobs_of(scene: Scene) -> tuple[str, ...]:
    """The calls that merged something, each once, in the order of the first."""
    names = [call.name for call in scene.host.faults.changes]
    return tuple(dict.fromkeys(name for name in names if name in {"commit", "pivot", "pull", "flush"}))


def journal_of(scene: Scene) -> Journal:
    return decode(scene.host.machine(scene.uuid).live_metadata.get(JOURNAL_NAMESPACE))
