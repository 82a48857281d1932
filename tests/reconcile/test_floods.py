"""One namespace has more objects of a machine than are acted on: its neighbours notice nothing of it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api import FINALIZER
from controller.chain.journal import Owner
from controller.kube.kinds import VOLUME_CHAIN, VOLUME_SNAPSHOT, Kind, Raw
from controller.reconcile import engine
from controller.reconcile.shares import Limits
from tests.reconcile.scenes import web
from tests.reconcile.world import World

FLOOD = "flood"
LIMITS = Limits(disk=3, domain=5)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that is easily used up."""
    monkeypatch.setattr(engine, "snapshot_limits", lambda layers: LIMITS)
    monkeypatch.setattr(engine, "CHAINS", LIMITS)


def put(world: World, name: str, kind: Kind = VOLUME_SNAPSHOT, disk: str = "vda", **more: Any) -> Raw:
    """An object of the one who floods."""
    meta = {"name": name, "namespace": FLOOD, **more.pop("metadata", {})}
    source = {"domain": "web-1", "disk": disk}
    return world.kube.create_object(kind, {"metadata": meta, "spec": {"source": source, **more}})


def reasons(world: World, kind: Kind = VOLUME_SNAPSHOT) -> dict[str, str]:
    """By name, the reason of Ready."""
    found = {}
    for of, raw in world.kube._store.everything():
        if of == kind and raw["metadata"]["namespace"] == FLOOD:
            ready = [one for one in raw["status"].get("conditions", []) if one["type"] == "Ready"]
            found[raw["metadata"]["name"]] = ready[0]["reason"] if ready else ""
    return found


async def flooded(world: World, count: int = 9, **more: Any) -> tuple[Any, str]:
    host = world.host()
    world.policy()
    uuid = web(host)
    for number in range(count):
        put(world, f"f-{number}", **more)
    await world.start()
    await world.until(lambda: all(reasons(world).values()), 60)
    await world.settled()
    return host, uuid


async def test_what_is_too_much_waits_and_says_so(world: World) -> None:
    await flooded(world)
    found = reasons(world)
    assert sorted(found.values()) == ["InSync"] * 3 + ["QuotaExceeded"] * 6
    assert [found[f"f-{n}"] for n in range(3)] == ["InSync"] * 3, "the oldest have their turn"
    raw = world.kube.object(VOLUME_SNAPSHOT, FLOOD, "f-8")
    assert raw is not None
    conditions = {one["type"]: one for one in raw["status"]["conditions"]}
    assert "delete those that are not needed" in conditions["Ready"]["message"]
    assert (conditions["Stalled"]["status"], conditions["Reconciling"]["status"]) == ("False", "True")
    assert "finalizers" not in raw["metadata"], "it can go at once"


async def test_a_neighbour_takes_and_deletes_as_if_nobody_else_was_there(world: World) -> None:
    await flooded(world)
    world.snapshot("a")
    await world.ready("a")
    world.delete("a")
    await world.gone("a")


async def test_whoever_waits_has_its_turn_when_others_go(world: World) -> None:
    await flooded(world)
    for name in ("f-0", "f-1", "f-2"):
        world.kube.delete(VOLUME_SNAPSHOT, FLOOD, name)
    await world.until(lambda: [reasons(world)[f"f-{n}"] for n in range(3, 6)] == ["InSync"] * 3)
    assert list(reasons(world).values()).count("QuotaExceeded") == 3
    for number in range(3, 9):
        world.kube.delete(VOLUME_SNAPSHOT, FLOOD, f"f-{number}")
    await world.until(lambda: not reasons(world))


async def test_more_disks_are_no_way_around_it(world: World) -> None:
    host = world.host()
    world.policy()
    web(host)
    for number in range(12):
        put(world, f"f-{number:02}", disk=f"vd{chr(97 + number)}")
    await world.start()
    await world.until(lambda: all(reasons(world).values()), 60)
    await world.settled()
    assert list(reasons(world).values()).count("QuotaExceeded") == 7
    world.snapshot("a")
    await world.ready("a")


async def test_points_that_are_held_stay_so_after_a_restart(world: World) -> None:
    """Whatever comes first then: nothing that is held may have to wait behind something that is not."""
    await flooded(world, 3)
    await world.crash()
    for number in range(6):
        put(world, f"a-{number}")  # sorts before those that hold points
    await world.start()
    await world.until(lambda: all(reasons(world).values()), 60)
    await world.settled()
    found = reasons(world)
    assert [found[f"f-{n}"] for n in range(3)] == ["InSync"] * 3
    assert {found[f"a-{n}"] for n in range(6)} == {"QuotaExceeded"}
    for number in range(3):
        world.kube.delete(VOLUME_SNAPSHOT, FLOOD, f"f-{number}")
    await world.until(lambda: [*reasons(world)] == [f"a-{n}" for n in range(6)])
    await world.until(lambda: list(reasons(world).values()).count("InSync") == 3)


async def test_finalizers_set_by_hand_are_no_way_around_it(world: World) -> None:
    """Not for wishes, and not for deletions, which all end."""
    await flooded(world, metadata={"finalizers": [FINALIZER]})
    assert list(reasons(world).values()).count("QuotaExceeded") == 6
    for name in reasons(world):
        world.kube.delete(VOLUME_SNAPSHOT, FLOOD, name)
    await world.until(lambda: not reasons(world))


async def test_so_are_volume_chains(world: World) -> None:
    host = world.host()
    world.policy()
    uuid = web(host)
    for number in range(9):
        put(world, f"f-{number}", VOLUME_CHAIN)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    await world.until(lambda: all(reasons(world, VOLUME_CHAIN).values()), 60)
    assert list(reasons(world, VOLUME_CHAIN).values()).count("QuotaExceeded") == 6
    world.delete("a")
    await world.gone("a")
    assert len(world.chain(host, uuid)) == 1


async def test_a_wish_to_be_asked_is_heard_whatever_the_share_is(world: World) -> None:
    host = world.host()
    world.policy()
    uuid = web(host)
    for number in range(9):
        put(world, f"f-{number}", VOLUME_CHAIN, **({"approval": "Manual"} if number == 8 else {}))
    put(world, "mine")
    await world.start()
    await world.until(lambda: reasons(world) == {"mine": "InSync"})
    world.kube.delete(VOLUME_SNAPSHOT, FLOOD, "mine")
    await world.until(lambda: reasons(world) == {"mine": "AwaitingApproval"})
    assert len(world.chain(host, uuid)) == 2


async def test_the_record_has_no_more_owners_than_the_share(world: World) -> None:
    host, uuid = await flooded(world)
    owners: list[Owner] = []
    driver = host.by_hand()
    from controller.hypervisor.observe import observe

    found = await observe(driver, uuid, identities=frozenset({world.cluster}))
    owners += [owner for point in found.journal.disk("vda").points for owner in point.owners]
    assert len(owners) == LIMITS.disk
