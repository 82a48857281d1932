"""What only the fake has: faults on order, kills, watchers, and counting."""

import pytest

from controller.kube.errors import ObjectGone, Unavailable
from controller.kube.fake import Call, FakeKube, Phase
from controller.kube.kinds import HYPERVISOR, VOLUME_SNAPSHOT, Kind, Raw

from .conftest import NAMESPACE, snapshot

DOWN = Unavailable("down")


class Killed(BaseException):
    """What ends a process."""


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def made(kube: FakeKube) -> Raw:
    return kube.create_object(VOLUME_SNAPSHOT, snapshot("a"))


def status_of(kube: FakeKube) -> Raw | None:
    found = kube.object(VOLUME_SNAPSHOT, NAMESPACE, "a")
    assert found is not None
    return found.get("status")


async def test_a_fault_before_has_no_effect_and_one_after_has(kube: FakeKube, made: Raw) -> None:
    kube.fail("status", DOWN)
    with pytest.raises(Unavailable):
        await kube.apply_status(VOLUME_SNAPSHOT, made, {"a": 1})
    assert status_of(kube) is None
    kube.fail("status", DOWN, phase="after")
    with pytest.raises(Unavailable):
        await kube.apply_status(VOLUME_SNAPSHOT, made, {"a": 1})
    assert status_of(kube) == {"a": 1}
    await kube.apply_status(VOLUME_SNAPSHOT, made, {"a": 2})
    assert status_of(kube) == {"a": 2}


async def test_the_nth_request_fails(kube: FakeKube, made: Raw) -> None:
    kube.fail("*", DOWN, nth=3)
    await kube.get(VOLUME_SNAPSHOT, NAMESPACE, "a")
    await kube.apply_status(VOLUME_SNAPSHOT, made, {})
    with pytest.raises(Unavailable):
        await kube.list(VOLUME_SNAPSHOT)
    await kube.list(VOLUME_SNAPSHOT)


@pytest.mark.parametrize(("phase", "left"), [("before", None), ("after", {"a": 1})])
async def test_a_kill_passes_every_handler_of_errors(
    kube: FakeKube, made: Raw, phase: Phase, left: Raw | None
) -> None:
    def kill(call: Call, at: Phase) -> None:
        if call.writes and at == phase:
            raise Killed

    kube.hook = kill
    with pytest.raises(Killed):
        await kube.apply_status(VOLUME_SNAPSHOT, made, {"a": 1})
    assert status_of(kube) == left


async def test_writes_are_counted_and_reads_are_not(kube: FakeKube, made: Raw) -> None:
    with_ours = await kube.add_finalizer(VOLUME_SNAPSHOT, made)
    assert with_ours is not None
    await kube.add_finalizer(VOLUME_SNAPSHOT, with_ours)  # there already
    await kube.apply_status(VOLUME_SNAPSHOT, with_ours, {})
    await kube.get(VOLUME_SNAPSHOT, NAMESPACE, "a")
    await kube.create_event(made, "Normal", "Taken", "Take", "note")
    assert kube.writes == {"finalizer": 1, "status": 1, "event": 1}
    assert [call.verb for call in kube.calls] == ["finalizer", "status", "get", "event"]
    kube.forget_calls()
    assert not kube.writes


async def test_watchers_see_each_change_once(kube: FakeKube, made: Raw) -> None:
    seen: list[tuple[str, str | None]] = []

    def sink(kind: Kind, event_type: str | None, raw: Raw) -> None:
        if kind == VOLUME_SNAPSHOT:
            seen.append((raw["metadata"]["name"], event_type))

    undo = kube.subscribe(sink)
    kube.create_object(VOLUME_SNAPSHOT, snapshot("b"))
    ours = await kube.add_finalizer(VOLUME_SNAPSHOT, made)
    assert ours is not None
    await kube.apply_status(VOLUME_SNAPSHOT, ours, {"a": 1})
    await kube.apply_status(VOLUME_SNAPSHOT, ours, {"a": 1})  # equal: no event
    kube.delete(VOLUME_SNAPSHOT, NAMESPACE, "a")
    kube.delete(VOLUME_SNAPSHOT, NAMESPACE, "a")  # asked for already: no event
    await kube.remove_finalizer(VOLUME_SNAPSHOT, ours)
    undo()
    kube.delete(VOLUME_SNAPSHOT, NAMESPACE, "b")
    assert seen == [
        ("a", None),
        ("b", "ADDED"),
        ("a", "MODIFIED"),
        ("a", "MODIFIED"),
        ("a", "MODIFIED"),
        ("a", "DELETED"),
    ]


def test_forced_deletion_strips_finalizers(kube: FakeKube, made: Raw) -> None:
    kube.edit(VOLUME_SNAPSHOT, NAMESPACE, "a", lambda raw: raw["metadata"].update(finalizers=["x"]))
    kube.delete(VOLUME_SNAPSHOT, NAMESPACE, "a", force=True)
    assert kube.object(VOLUME_SNAPSHOT, NAMESPACE, "a") is None
    with pytest.raises(ObjectGone):
        kube.delete(VOLUME_SNAPSHOT, NAMESPACE, "a")


async def test_copies_are_the_callers_own(kube: FakeKube, made: Raw) -> None:
    made["spec"]["source"]["disk"] = "changed"
    found = await kube.get(VOLUME_SNAPSHOT, NAMESPACE, "a")
    assert found is not None
    assert found["spec"]["source"]["disk"] == "vda"


async def test_lists_by_label(kube: FakeKube) -> None:
    for name, labels in (("a", {"site": "x"}), ("b", {"site": "y"}), ("c", {})):
        kube.create_object(HYPERVISOR, {"metadata": {"name": name, "labels": labels}})
    assert [raw["metadata"]["name"] for raw in await kube.list(HYPERVISOR, "site=x")] == ["a"]


def test_users_cannot_write_status_by_the_way(kube: FakeKube, made: Raw) -> None:
    kube.edit(VOLUME_SNAPSHOT, NAMESPACE, "a", lambda raw: raw.update(status={"faked": True}))
    assert status_of(kube) is None
