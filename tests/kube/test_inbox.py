"""Events of the watches reach the engine a little at a time, each namespace in its turn."""

import asyncio
import threading

import pytest

from controller.kube.inbox import PIECE_SECONDS, Inbox
from controller.kube.kinds import HYPERVISOR, VOLUME_SNAPSHOT, Kind, Raw

from .conftest import until


def event(name: str, namespace: str = "shop", version: int = 1) -> Raw:
    return {"metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}/{name}", "v": version}}


class Taker:
    """Takes half a piece of time for each event."""

    def __init__(self) -> None:
        self.now = 0.0
        self.taken: list[tuple[str, str | None]] = []
        self.versions: list[int] = []

    def take(self, kind: Kind, type_: str | None, raw: Raw) -> None:
        self.now += PIECE_SECONDS / 2
        self.taken.append((raw["metadata"]["uid"], type_))
        self.versions.append(raw["metadata"]["v"])
        if raw["metadata"]["name"] == "bad":
            raise ValueError


async def test_others_have_a_turn_between_pieces() -> None:
    taker = Taker()
    inbox = Inbox(taker.take, clock=lambda: taker.now)
    for number in range(20):
        inbox.put(VOLUME_SNAPSHOT, "ADDED", event(str(number)))
    turns = []
    while len(taker.taken) < 20:
        await asyncio.sleep(0)
        turns.append(len(taker.taken))
    assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) <= 3
    assert [uid for uid, _ in taker.taken] == [f"shop/{number}" for number in range(20)]


async def test_a_namespace_with_many_does_not_hold_up_one_with_few() -> None:
    taker = Taker()
    inbox = Inbox(taker.take, clock=lambda: taker.now)
    for number in range(100):
        inbox.put(VOLUME_SNAPSHOT, "ADDED", event(str(number), "flood"))
    inbox.put(VOLUME_SNAPSHOT, "ADDED", event("a", "shop"))
    inbox.put(HYPERVISOR, "ADDED", {"metadata": {"name": "h", "uid": "h", "v": 1}})
    await until(lambda: {("h", "ADDED"), ("shop/a", "ADDED")} <= set(taker.taken))
    assert len(taker.taken) <= 4


async def test_only_the_newest_of_an_object_is_taken() -> None:
    taker = Taker()
    inbox = Inbox(taker.take)
    for version in range(1000):
        inbox.put(VOLUME_SNAPSHOT, "MODIFIED", event("a", version=version))
    inbox.put(VOLUME_SNAPSHOT, "DELETED", event("b"))
    await asyncio.sleep(0)
    assert taker.taken == [("shop/a", "MODIFIED"), ("shop/b", "DELETED")]
    assert taker.versions[0] == 999


async def test_a_defect_with_one_event_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    taker = Taker()
    inbox = Inbox(taker.take)
    for name in ("bad", "good"):
        inbox.put(VOLUME_SNAPSHOT, None, event(name))
    await asyncio.sleep(0)
    assert taker.taken == [("shop/bad", None), ("shop/good", None)]
    assert "not understood" in caplog.text


async def test_nothing_is_lost_between_two_threads() -> None:
    taker = Taker()
    inbox = Inbox(taker.take)
    names = [str(number) for number in range(5000)]

    def bring() -> None:
        for name in names:
            inbox.put(VOLUME_SNAPSHOT, "ADDED", event(name))

    thread = threading.Thread(target=bring)
    thread.start()
    async with asyncio.timeout(30):
        await until(lambda: len(taker.taken) >= len(names))
    thread.join()
    assert {uid for uid, _ in taker.taken} == {f"shop/{name}" for name in names}
