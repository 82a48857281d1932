"""Nobody's failure is another's: what fails for one namespace waits and is told there alone."""

from __future__ import annotations

from typing import Any

import pytest

from controller.chain.source import Source
from controller.hypervisor.errors import OperationFailed
from controller.hypervisor.simulated import SimulatedHost
from controller.kube.kinds import VOLUME_SNAPSHOT, Raw
from tests.reconcile.scenes import EVERYBODY, web
from tests.reconcile.world import World

PLACES = [{**EVERYBODY[0], "overlays": ["*"]}]
THEIRS = "a-tenant"
"""Sorted before the others: it comes first wherever order decides."""
PLACE = "/fast/secret-of-x"


def by(world: World, namespace: str, name: str, **spec: Any) -> Raw:
    """A VolumeSnapshot of disk vda of web-1, in any namespace."""
    source = spec.pop("source", {"domain": "web-1", "disk": "vda"})
    meta = {"name": name, "namespace": namespace}
    return world.kube.create_object(VOLUME_SNAPSHOT, {"metadata": meta, "spec": {"source": source, **spec}})


def ready(world: World, namespace: str, name: str) -> tuple[str, str, str]:
    raw = world.kube.object(VOLUME_SNAPSHOT, namespace, name) or {}
    for found in raw.get("status", {}).get("conditions", []):
        if found["type"] == "Ready":
            return found["status"], found["reason"], found["message"]
    return "", "", ""


def there(path: str, **changes: Any) -> dict[str, Any]:
    return {"source": {"path": path, **changes}}


async def scene(world: World) -> tuple[SimulatedHost, str]:
    host = world.host(access=PLACES)
    world.policy()
    uuid = web(host)
    await world.start()
    return host, uuid


async def failing(world: World, *names: str) -> None:
    """The attacker's objects: nothing can be made where they say."""
    for name in names:
        by(world, THEIRS, name, overlay={"directory": f"{PLACE}-{name}"})
    await world.until(lambda: all(ready(world, THEIRS, name)[1] == "Failed" for name in names))


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every snapshot whose overlay lies in the attacker's place fails, as where a file is in the way."""
    from controller.hypervisor.simulated.driver import SimulatedDriver

    genuine = SimulatedDriver.create_snapshot

    async def create(self: SimulatedDriver, uuid: str, xml: str, *, reuse: bool = False) -> None:
        if PLACE in xml:
            raise OperationFailed(
                f"external snapshot file for disk vda already exists and is not a block device: {PLACE}"
            )
        await genuine(self, uuid, xml, reuse=reuse)

    monkeypatch.setattr(SimulatedDriver, "create_snapshot", create)


@pytest.mark.usefixtures("refused")
async def test_a_take_that_fails_for_one_holds_up_no_take_of_another(world: World) -> None:
    host, uuid = await scene(world)
    await failing(world, "bad")
    assert PLACE in ready(world, THEIRS, "bad")[2]
    before = world.now()
    world.snapshot("good")
    await world.ready("good")
    assert (world.now() - before).total_seconds() < 1, "it waits for no failure"
    assert len(world.chain(host, uuid)) == 2


@pytest.mark.usefixtures("refused")
async def test_a_take_that_fails_for_one_holds_up_no_deletion_of_another(world: World) -> None:
    host, uuid = await scene(world)
    world.snapshot("good")
    await world.ready("good")
    await failing(world, "bad")
    before = world.now()
    world.delete("good")
    await world.gone("good")
    assert (world.now() - before).total_seconds() < 1
    assert len(world.chain(host, uuid)) == 1
    assert not [
        event
        for event in world.kube.events
        if event["regarding"]["namespace"] == "shop" and PLACE in event["note"]
    ]


@pytest.mark.parametrize("many", [8, 9])
async def test_many_that_fail_before_the_call_are_no_failure_of_the_next(world: World, many: int) -> None:
    """A pass gives up what comes to nothing again and again; that is counted for each by itself."""
    await scene(world)
    names = [f"bad-{number}" for number in range(many)]
    for name in names:
        by(world, THEIRS, name, overlay=there(f"{PLACE}-{name}", content="Prepared"))
    world.snapshot("good")
    world.snapshot("own-place", overlay={"directory": "/fast/mine"})
    before = world.now()
    await world.ready("good", "own-place")
    assert (world.now() - before).total_seconds() < 0.9, "neither is put off"
    await world.until(lambda: all(ready(world, THEIRS, n)[1] == "OverlayUnusable" for n in names))
    texts = {ready(world, THEIRS, name)[2] for name in names}
    assert len(texts) == len(names), "each says what is the matter with its own place"


@pytest.mark.usefixtures("refused")
async def test_another_disk_is_held_up_by_no_shared_transaction(world: World) -> None:
    """Takes of several disks are one call: whoever has failed is called for alone from then on."""
    host = world.host(access=PLACES)
    world.policy()
    disks = {"vda": Source.file("/images/a"), "vdb": Source.file("/images/b")}
    uuid = host.add_domain("web-1", disks)
    await world.start()
    await failing(world, "bad")
    for number in range(3):
        world.snapshot(f"good-{number}", disk="vdb")
        by(world, "shop", f"other-{number}")
        before = world.now()
        await world.ready(f"good-{number}", f"other-{number}")
        assert (world.now() - before).total_seconds() < 1
    await world.until(lambda: (world.now() - before).total_seconds() > 70, 100)
    assert ready(world, THEIRS, "bad")[1] == "Failed", "it is tried again all the while"
    calls = [call for call in host.faults.calls if call.name == "create_snapshot"]
    assert len(calls) < 30
    assert len(world.chain(host, uuid, "vdb")) == 4


@pytest.mark.usefixtures("refused")
async def test_the_same_place_named_by_two_concerns_both_and_nobody_else(world: World) -> None:
    host, uuid = await scene(world)
    for namespace in (THEIRS, "shop"):
        by(world, namespace, "same", overlay={"directory": PLACE})
    await world.until(lambda: ready(world, "shop", "same")[1] == "Failed")
    await world.until(lambda: ready(world, THEIRS, "same")[1] == "Failed")
    world.snapshot("good")
    await world.ready("good")
    assert len(world.chain(host, uuid)) == 2


async def test_a_merge_that_fails_holds_up_no_take_and_no_other_range(world: World) -> None:
    host, uuid = await scene(world)
    for name in ("a", "b", "c", "d"):
        world.snapshot(name)
        await world.ready(name)
    from controller.hypervisor.simulated.driver import SimulatedDriver

    genuine = SimulatedDriver.commit
    bottom = host.machine(uuid).process.disks["vda"].nodes[-1].source.leaf  # type: ignore[union-attr]
    tried = []

    async def commit(self: SimulatedDriver, uuid: str, target: str, *, base: str, **rest: Any) -> None:
        disk = host.machine(uuid).process.disks["vda"]  # type: ignore[union-attr]
        del disk
        tried.append(base)
        if len(tried) == 1:
            raise OperationFailed("the storage of the lowest layer is full")
        await genuine(self, uuid, target, base=base, **rest)

    SimulatedDriver.commit = commit  # type: ignore[method-assign]
    try:
        world.delete("a")
        await world.until(lambda: ready(world, "shop", "a")[1] == "Failed")
        before = world.now()
        world.delete("c")
        by(world, THEIRS, "new")
        await world.gone("c")
        await world.until(lambda: ready(world, THEIRS, "new")[0] == "True")
        assert (world.now() - before).total_seconds() < 0.9, "neither waits for the merge that failed"
        await world.gone("a")
        assert bottom in world.chain(host, uuid)
    finally:
        SimulatedDriver.commit = genuine  # type: ignore[method-assign]
