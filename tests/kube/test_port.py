"""What every KubeClient does, the one in memory and the one over HTTP."""

import asyncio
from uuid import uuid4

import pytest

from controller.api import FINALIZER
from controller.kube.errors import Conflict, ObjectDeleting, ObjectGone, ObjectReplaced
from controller.kube.kinds import LEASE, VOLUME_CHAIN, VOLUME_SNAPSHOT, Raw, uid_of

from .conftest import NAMESPACE, Bench

OTHER = "example.com/other"
ADD_OTHER = [{"op": "add", "path": "/metadata/finalizers", "value": [OTHER]}]
SUSPEND = [{"op": "add", "path": "/spec/suspend", "value": True}]


def status(generation: int, reason: str = "InSync") -> Raw:
    return {
        "observedGeneration": generation,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": reason,
                "message": "",
                "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }


async def current(bench: Bench) -> Raw | None:
    found: Raw | None = await bench.client.get(VOLUME_SNAPSHOT, NAMESPACE, bench.name)
    return found


async def remade(bench: Bench) -> Raw:
    """Create, delete and create again; return the first one's copy."""
    old: Raw = await bench.create(bench.name)
    await bench.delete(bench.name)
    await bench.create(bench.name)
    return old


async def test_reads_what_is_there_and_none_for_what_is_not(bench: Bench) -> None:
    assert await current(bench) is None
    made = await bench.create(bench.name)
    found = await current(bench)
    assert found is not None
    assert uid_of(found) == uid_of(made)
    assert found["status"] == {"observedGeneration": -1}
    assert bench.name in [item["metadata"]["name"] for item in await bench.client.list(VOLUME_SNAPSHOT)]
    assert await bench.client.list(VOLUME_SNAPSHOT, "varve.dev/site=nowhere") == []


async def test_status_is_written_and_does_not_touch_the_rest(bench: Bench) -> None:
    made = await bench.create(bench.name)
    written = await bench.client.apply_status(VOLUME_SNAPSHOT, made, status(1) | {"consistency": "Frozen"})
    assert written["status"]["observedGeneration"] == 1
    assert written["spec"] == made["spec"]
    assert written["metadata"]["generation"] == 1
    assert written["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    again = await bench.client.apply_status(VOLUME_SNAPSHOT, written, status(1))
    assert "consistency" not in again["status"]


async def test_an_equal_status_is_no_new_version(bench: Bench) -> None:
    made = await bench.create(bench.name)
    first = await bench.client.apply_status(VOLUME_SNAPSHOT, made, status(1))
    second = await bench.client.apply_status(VOLUME_SNAPSHOT, first, status(1))
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_status_is_written_though_others_wrote_meanwhile(bench: Bench) -> None:
    made = await bench.create(bench.name)
    await bench.edit(bench.name, ADD_OTHER)
    written = await bench.client.apply_status(VOLUME_SNAPSHOT, made, status(2))
    assert written["status"]["observedGeneration"] == 2
    assert written["metadata"]["finalizers"] == [OTHER]
    await bench.edit(bench.name, [{"op": "replace", "path": "/metadata/finalizers", "value": []}])


async def test_status_of_a_gone_object_is_refused(bench: Bench) -> None:
    made = await bench.create(bench.name)
    await bench.delete(bench.name)
    with pytest.raises(ObjectGone) as caught:
        await bench.client.apply_status(VOLUME_SNAPSHOT, made, status(1))
    assert not isinstance(caught.value, ObjectReplaced)


async def test_status_never_reaches_another_object_of_the_same_name(bench: Bench) -> None:
    old = await remade(bench)
    with pytest.raises(ObjectReplaced):
        await bench.client.apply_status(VOLUME_SNAPSHOT, old, status(1))
    found = await current(bench)
    assert found is not None
    assert found["status"] == {"observedGeneration": -1}


async def test_finalizer_comes_and_goes_alone(bench: Bench) -> None:
    made = await bench.create(bench.name)
    with_ours = await bench.client.add_finalizer(VOLUME_SNAPSHOT, made)
    assert with_ours["metadata"]["finalizers"] == [FINALIZER]
    edited = await bench.edit(
        bench.name, [{"op": "add", "path": "/metadata/finalizers", "value": [OTHER, FINALIZER]}]
    )
    without = await bench.client.remove_finalizer(VOLUME_SNAPSHOT, edited)
    assert without["metadata"]["finalizers"] == [OTHER]
    both = await bench.client.add_finalizer(VOLUME_SNAPSHOT, without)
    assert both["metadata"]["finalizers"] == [OTHER, FINALIZER]
    await bench.edit(bench.name, [{"op": "replace", "path": "/metadata/finalizers", "value": []}])


@pytest.mark.parametrize("before", [[], ADD_OTHER])
async def test_finalizer_is_added_from_a_stale_copy(bench: Bench, before: list[Raw]) -> None:
    made = await bench.create(bench.name)
    await bench.client.apply_status(VOLUME_SNAPSHOT, made, status(1))
    if before:
        await bench.edit(bench.name, before)
    added = await bench.client.add_finalizer(VOLUME_SNAPSHOT, made)
    assert added["metadata"]["finalizers"] == ([OTHER] if before else []) + [FINALIZER]
    assert added["status"]["observedGeneration"] == 1
    await bench.edit(bench.name, [{"op": "replace", "path": "/metadata/finalizers", "value": []}])


async def test_finalizer_is_removed_from_a_stale_copy(bench: Bench) -> None:
    made = await bench.create(bench.name)
    ours = await bench.client.add_finalizer(VOLUME_SNAPSHOT, made)
    await bench.edit(bench.name, [{"op": "add", "path": "/metadata/finalizers", "value": [OTHER, FINALIZER]}])
    left = await bench.client.remove_finalizer(VOLUME_SNAPSHOT, ours)
    assert left["metadata"]["finalizers"] == [OTHER]
    await bench.edit(bench.name, [{"op": "replace", "path": "/metadata/finalizers", "value": []}])


async def test_finalizer_keeps_an_object_until_it_is_removed(bench: Bench) -> None:
    made = await bench.create(bench.name)
    ours = await bench.client.add_finalizer(VOLUME_SNAPSHOT, made)
    await bench.delete(bench.name)
    kept = await current(bench)
    assert kept is not None
    assert kept["metadata"]["deletionTimestamp"]
    written = await bench.client.apply_status(VOLUME_SNAPSHOT, ours, status(2, "Deleting"))
    assert written["status"]["conditions"][0]["reason"] == "Deleting"
    assert (
        await bench.client.add_finalizer(VOLUME_SNAPSHOT, written) is not None
    )  # is there: nothing to refuse
    last = await bench.client.remove_finalizer(VOLUME_SNAPSHOT, written)
    assert not last["metadata"].get("finalizers")
    assert await current(bench) is None
    assert await bench.client.remove_finalizer(VOLUME_SNAPSHOT, written) is None  # said twice is no error


async def test_no_finalizer_for_an_object_that_is_being_deleted(bench: Bench) -> None:
    made = await bench.create(bench.name)
    await bench.edit(bench.name, ADD_OTHER)
    await bench.delete(bench.name)
    with pytest.raises(ObjectDeleting):
        await bench.client.add_finalizer(VOLUME_SNAPSHOT, made)
    await bench.edit(bench.name, [{"op": "replace", "path": "/metadata/finalizers", "value": []}])


async def test_finalizers_of_another_object_of_the_same_name_are_left_alone(bench: Bench) -> None:
    old = await bench.create(bench.name)
    old_with_ours = await bench.client.add_finalizer(VOLUME_SNAPSHOT, old)
    await bench.delete(bench.name)
    await bench.client.remove_finalizer(VOLUME_SNAPSHOT, old_with_ours)
    new = await bench.create(bench.name)
    assert await bench.client.add_finalizer(VOLUME_SNAPSHOT, old) is None
    new = await bench.client.add_finalizer(VOLUME_SNAPSHOT, new)
    assert await bench.client.remove_finalizer(VOLUME_SNAPSHOT, old_with_ours) is None
    found = await current(bench)
    assert found is not None
    assert found["metadata"]["finalizers"] == [FINALIZER]
    await bench.client.remove_finalizer(VOLUME_SNAPSHOT, new)


async def test_concurrent_writers_all_succeed(bench: Bench) -> None:
    made = await bench.create(bench.name)
    results = await asyncio.gather(
        bench.client.add_finalizer(VOLUME_SNAPSHOT, made),
        bench.client.apply_status(VOLUME_SNAPSHOT, made, status(1)),
        bench.client.add_finalizer(VOLUME_SNAPSHOT, made),
    )
    assert all(results)
    found = await current(bench)
    assert found is not None
    assert found["metadata"]["finalizers"] == [FINALIZER]
    assert found["status"]["observedGeneration"] == 1
    await bench.client.remove_finalizer(VOLUME_SNAPSHOT, found)


async def test_generation_counts_specs_and_not_status(bench: Bench) -> None:
    made = await bench.create(bench.name)
    edited = await bench.edit(bench.name, SUSPEND)
    assert edited["metadata"]["generation"] == made["metadata"]["generation"] + 1
    assert edited["status"] == {"observedGeneration": -1}


async def test_event_says_what_and_about_whom(bench: Bench) -> None:
    made = await bench.create(bench.name)
    await bench.client.create_event(made, "Warning", "ChainDiverged", "Observe", "ü" * 2000)
    (event,) = await bench.events(bench.name)
    assert event["regarding"]["uid"] == uid_of(made)
    assert (event["type"], event["reason"], event["action"]) == ("Warning", "ChainDiverged", "Observe")
    assert event["reportingController"] == "varve.dev/controller"
    assert event["note"].endswith("ü…")
    assert len(event["note"].encode()) <= 1024


async def test_event_about_the_longest_name(bench: Bench) -> None:
    name = "x" * 253
    regarding = {
        "apiVersion": VOLUME_SNAPSHOT.api_version,
        "kind": VOLUME_SNAPSHOT.name,
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": str(uuid4())},
    }
    await bench.client.create_event(regarding, "Normal", "Taken", "Take", "note")
    (event,) = await bench.events(name)
    assert event["regarding"]["name"] == name


async def test_identity_of_the_cluster_stays(bench: Bench) -> None:
    assert await bench.client.namespace_uid("kube-system") == await bench.client.namespace_uid("kube-system")
    with pytest.raises(ObjectGone):
        await bench.client.namespace_uid("there-is-none")


async def test_a_lease_is_replaced_only_as_it_was_read(bench: Bench) -> None:
    body = {"apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": {"name": bench.name}}
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 15}
    made = await bench.client.create(LEASE, NAMESPACE, body | {"spec": spec})
    with pytest.raises(Conflict):
        await bench.client.create(LEASE, NAMESPACE, body | {"spec": spec})
    await bench.client.replace(LEASE, made | {"spec": spec | {"holderIdentity": "b"}})
    with pytest.raises(Conflict):
        await bench.client.replace(LEASE, made | {"spec": spec | {"holderIdentity": "c"}})
    found = await bench.client.get(LEASE, NAMESPACE, bench.name)
    assert found["spec"]["holderIdentity"] == "b"
    with pytest.raises(Conflict):
        await bench.client.replace(LEASE, made | {"metadata": made["metadata"] | {"name": "nothing-here"}})


async def test_an_object_is_made_and_removed_only_as_it_was_read(bench: Bench) -> None:
    source = {"domain": "web-1", "disk": "vda"}
    labels = {"app.kubernetes.io/managed-by": "varve"}
    body = {
        "apiVersion": VOLUME_CHAIN.api_version,
        "kind": VOLUME_CHAIN.name,
        "metadata": {"name": bench.name, "namespace": NAMESPACE, "labels": labels},
        "spec": {"source": source},
    }
    made = await bench.client.create(VOLUME_CHAIN, NAMESPACE, body)
    assert made["metadata"]["generation"] == 1
    assert {entry["manager"] for entry in made["metadata"].get("managedFields", [])} <= {"varve"}
    with pytest.raises(Conflict):
        await bench.client.create(VOLUME_CHAIN, NAMESPACE, body)
    written = await bench.client.apply_status(VOLUME_CHAIN, made, status(1))
    assert {entry["manager"] for entry in written["metadata"].get("managedFields", [])} <= {"varve"}
    with pytest.raises(Conflict):
        await bench.client.remove(VOLUME_CHAIN, made)
    assert await bench.client.get(VOLUME_CHAIN, NAMESPACE, bench.name) is not None
    await bench.client.remove(VOLUME_CHAIN, written)
    assert await bench.client.get(VOLUME_CHAIN, NAMESPACE, bench.name) is None
    await bench.client.remove(VOLUME_CHAIN, written)
