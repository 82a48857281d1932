"""JSON patches that change one finalizer of one very object and nothing else. Pure."""

from typing import Any

from controller.kube.kinds import Raw, uid_of

Patch = list[dict[str, Any]]


def finalizers_of(raw: Raw) -> list[str]:
    """The object's finalizers in their order; empty when there are none."""
    return list(raw["metadata"].get("finalizers") or [])


def addition(raw: Raw, finalizer: str) -> Patch | None:
    """The patch that appends ``finalizer`` to the object as read; None when it is there already."""
    present = finalizers_of(raw)
    if finalizer in present:
        return None
    if present:
        return [*_guards(raw), {"op": "add", "path": "/metadata/finalizers/-", "value": finalizer}]
    return [*_guards(raw), {"op": "add", "path": "/metadata/finalizers", "value": [finalizer]}]


def removal(raw: Raw, finalizer: str) -> Patch | None:
    """The patch that removes ``finalizer`` from the object as read; None when it is not there."""
    present = finalizers_of(raw)
    if finalizer not in present:
        return None
    return [*_guards(raw), {"op": "remove", "path": f"/metadata/finalizers/{present.index(finalizer)}"}]


def _guards(raw: Raw) -> Patch:
    """Tests that fail the whole patch on another object, or when the finalizers are not those that were read.

    A missing list cannot be tested for (RFC 6902 section 4.6 wants the path to exist); then the
    resourceVersion is.
    """
    present = finalizers_of(raw)
    version = raw["metadata"]["resourceVersion"]
    return [
        {"op": "test", "path": "/metadata/uid", "value": uid_of(raw)},
        {"op": "test", "path": "/metadata/finalizers", "value": present}
        if present
        else {"op": "test", "path": "/metadata/resourceVersion", "value": version},
    ]
