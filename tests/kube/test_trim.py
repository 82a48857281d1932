"""What is kept of an object is bounded, and is all that anybody reads of it."""

import json

from controller.api import DEFAULT_CLASS_ANNOTATION, FINALIZER
from controller.api.volumechain import CONTROLLER_LABELS
from controller.kube.finalizers import finalizers_of
from controller.kube.kinds import LEASE, VOLUME_CHAIN, VOLUME_SNAPSHOT, Raw
from controller.kube.trim import MOST_FINALIZERS, bare, is_whole, kept, trimmed


def flooded(**metadata: object) -> Raw:
    """An object that its author has made as large as the API server takes it."""
    return {
        "apiVersion": "varve.dev/v1alpha1",
        "kind": "VolumeSnapshot",
        "metadata": {
            "name": "a",
            "namespace": "shop",
            "uid": "u",
            "resourceVersion": "7",
            "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"note": "x" * 255_000, DEFAULT_CLASS_ANNOTATION: "true"},
            "labels": {**{f"example.com/{n}": "x" * 63 for n in range(5000)}, **CONTROLLER_LABELS},
            "ownerReferences": [{"uid": str(n), "name": "x" * 200} for n in range(1000)],
            "finalizers": [f"example.com/{n}" for n in range(5000)],
            "managedFields": [{"manager": "x" * 128, "fieldsV1": {f"f:{n}": {}}} for n in range(5000)],
            "generateName": "x" * 200,
            "selfLink": "x" * 100_000,
            **metadata,
        },
        "spec": {"source": {"domain": "web-1", "disk": "vda"}},
        "status": {"observedGeneration": 1},
        "data": "x" * 100_000,
    }


def test_nothing_that_its_author_can_make_long_is_kept() -> None:
    assert len(json.dumps(trimmed(flooded()))) < 1000


def test_not_even_under_a_name_that_is_read() -> None:
    annotations = {DEFAULT_CLASS_ANNOTATION: "x" * 250_000}
    assert len(json.dumps(trimmed(flooded(annotations=annotations)))) < 1000


def test_what_is_read_is_kept() -> None:
    small = trimmed(flooded())
    meta = small["metadata"]
    assert (small["spec"], small["status"]) == (flooded()["spec"], flooded()["status"])
    assert meta["annotations"] == {DEFAULT_CLASS_ANNOTATION: "true"}
    assert meta["labels"] == CONTROLLER_LABELS
    plain = ("name", "namespace", "uid", "resourceVersion", "generation", "deletionTimestamp")
    assert {name: meta[name] for name in plain} == {name: flooded()["metadata"][name] for name in plain}


def test_other_finalizers_are_known_to_be_there() -> None:
    """One that is being deleted is not gone while anything holds it."""
    assert finalizers_of(trimmed(flooded()))
    assert FINALIZER not in finalizers_of(trimmed(flooded()))
    many = [f"example.com/{n}" for n in range(5000)] + [FINALIZER]
    assert FINALIZER in finalizers_of(trimmed(flooded(finalizers=many)))
    assert not is_whole(trimmed(flooded(finalizers=many)))
    few = many[-MOST_FINALIZERS:]
    assert finalizers_of(trimmed(flooded(finalizers=few))) == few
    assert is_whole(trimmed(flooded(finalizers=few)))
    assert "finalizers" not in trimmed(flooded(finalizers=[]))["metadata"]


def test_whether_somebody_else_has_written_is_known() -> None:
    ours, other = {"manager": "varve"}, {"manager": "kubectl", "fieldsV1": {}}
    assert trimmed(flooded(managedFields=[ours, ours]))["metadata"]["managedFields"] == [ours]
    found = trimmed(flooded(managedFields=[ours, ours, other, other]))["metadata"]["managedFields"]
    assert found == [ours, {"manager": "kubectl"}]


def test_trimming_again_changes_nothing() -> None:
    once = trimmed(flooded())
    assert trimmed(once) == once
    assert trimmed(json.loads(json.dumps(once))) == once


def test_only_our_kinds_are_trimmed() -> None:
    """A Lease is written back as a whole, with the labels of whoever made it."""
    assert kept(LEASE, flooded()) == flooded()
    assert kept(VOLUME_SNAPSHOT, flooded()) == kept(VOLUME_CHAIN, flooded()) == trimmed(flooded())


def test_a_bare_object_has_what_writes_need() -> None:
    assert bare(trimmed(flooded())).keys() == {"apiVersion", "kind", "metadata"}
