"""The store of what the watches told: late, doubled and old news change nothing."""

from __future__ import annotations

from typing import Any

from controller.api import DEFAULT_CLASS_ANNOTATION, FINALIZER
from controller.api.volumesnapshot import VolumeSnapshot
from controller.reconcile.class_store import ClassFault
from controller.reconcile.store import DomainKey, ObjectKey, Store

KEY = ObjectKey("shop", "a")
HERE, THERE = DomainKey("h1", "u1"), DomainKey("h2", "u1")


def raw(version: int, uid: str = "u", *, ready: bool = False, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "a",
            "namespace": "shop",
            "uid": uid,
            "resourceVersion": str(version),
            "generation": 1,
            **metadata,
        },
        "spec": {"source": {"domain": "web", "disk": "vda"}},
        "status": {"readyToUse": ready},
    }


def test_an_echo_of_our_own_write_is_no_news() -> None:
    store = Store()
    assert store.put_snapshot(raw(1)) == KEY
    assert store.put_snapshot(raw(3, ready=True)) == KEY  # what our write returned
    assert store.put_snapshot(raw(3, ready=True)) is None  # its echo in the watch
    assert store.put_snapshot(raw(2)) is None  # an event from before it
    assert store.snapshots[KEY].parsed.status.ready_to_use is True


def test_versions_are_compared_as_numbers() -> None:
    store = Store()
    store.put_snapshot(raw(9))
    assert store.put_snapshot(raw(10)) == KEY


def test_an_object_that_took_the_name_replaces_the_old_one() -> None:
    store = Store()
    store.put_snapshot(raw(5, "old"))
    assert store.put_snapshot(raw(7, "new")) == KEY
    assert store.snapshots[KEY].parsed.uid == "new"
    store.drop_snapshot(raw(6, "old"))
    assert store.snapshots[KEY].parsed.uid == "new"
    assert store.put_snapshot(raw(6, "old")) is None
    assert store.snapshots[KEY].parsed.uid == "new"


def test_the_last_answer_about_a_gone_object_does_not_bring_it_back() -> None:
    store = Store()
    store.put_snapshot(raw(1, finalizers=[FINALIZER]))
    store.drop_snapshot(raw(3))
    store.put_snapshot(raw(3, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert KEY not in store.snapshots


def test_an_event_from_before_the_end_does_not_bring_an_object_back() -> None:
    """Our own write let it go, and events wait their turn: its end would be told twice."""
    store = Store()
    store.put_snapshot(raw(1, finalizers=[FINALIZER]))
    store.put_snapshot(raw(4, deletionTimestamp="2026-01-01T00:00:00Z"))  # what our write returned
    assert not store.snapshots
    assert store.put_snapshot(raw(2, finalizers=[FINALIZER])) is None
    going = raw(3, finalizers=[FINALIZER], deletionTimestamp="2026-01-01T00:00:00Z")
    assert store.put_snapshot(going) is None
    assert not store.snapshots
    assert store.put_snapshot(raw(5, "new")) == KEY


def test_an_object_that_goes_with_another_finalizer_stays() -> None:
    store = Store()
    store.put_snapshot(raw(3, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["other/one"]))
    assert KEY in store.snapshots


def test_an_object_that_cannot_be_read_is_set_apart() -> None:
    store = Store()
    store.put_snapshot(raw(1))
    broken = raw(2)
    broken["spec"]["source"]["disk"] = "nonsense"
    store.put_snapshot(broken)
    assert KEY not in store.snapshots
    assert "spec.source.disk" in store.unreadable[KEY].fault
    store.put_snapshot(raw(3))
    assert KEY in store.snapshots
    assert not store.unreadable


def test_members_follow_the_binding() -> None:
    store = Store()
    store.put_snapshot(raw(1))
    store.bind(KEY, HERE)
    assert [one.key for one in store.members(HERE)] == [KEY]
    store.bind(KEY, THERE)
    assert store.members(HERE) == []
    assert store.domains() == [THERE]
    store.drop_snapshot(raw(1))
    assert store.members(THERE) == []
    store.bind(KEY, None)
    assert store.domains() == []
    assert store.bound(KEY) is None


def policy(name: str, *, default: bool = False) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "annotations": {DEFAULT_CLASS_ANNOTATION: "true"} if default else {},
        },
        "spec": {"maxLayers": 7},
    }


def wish(**spec: Any) -> VolumeSnapshot:
    body = raw(1)
    body["spec"].update(spec)
    return VolumeSnapshot.model_validate(body)


def test_which_class_applies() -> None:
    store = Store()
    built_in = store.classes.policy(wish())
    assert not isinstance(built_in, ClassFault)
    assert built_in.max_layers == 64
    store.classes.put(policy("standard", default=True))
    store.classes.put(policy("other"))
    for found in (store.classes.policy(wish()), store.classes.policy(wish(volumeSnapshotClassName="other"))):
        assert not isinstance(found, ClassFault)
        assert found.max_layers == 7
    missing = store.classes.policy(wish(volumeSnapshotClassName="gold"))
    assert isinstance(missing, ClassFault)
    assert "gold" in missing.message
    store.classes.put(policy("other", default=True))
    both = store.classes.policy(wish())
    assert isinstance(both, ClassFault)
    assert "other, standard" in both.message


def test_an_older_hypervisor_does_not_replace_a_newer_one() -> None:
    def hypervisor(version: int, uri: str) -> dict[str, Any]:
        return {
            "metadata": {"name": "h", "uid": "u", "resourceVersion": str(version)},
            "spec": {"uri": uri, "access": []},
        }

    store = Store()
    store.put_hypervisor(hypervisor(2, "qemu:///system"))
    store.put_hypervisor(hypervisor(1, "qemu:///session"))
    [parsed] = store.valid_hypervisors()
    assert parsed.spec.uri == "qemu:///system"
    store.put_hypervisor({"metadata": {"name": "h", "uid": "u", "resourceVersion": "3"}, "spec": {}})
    assert list(store.valid_hypervisors()) == []
