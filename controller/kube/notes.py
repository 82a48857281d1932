"""The body of one Event about one object. Pure, apart from the clock."""

from datetime import UTC, datetime

from controller.kube.kinds import EVENT, Raw, name_of, uid_of
from controller.kube.port import REPORTING_CONTROLLER, EventType

NOTE_LIMIT = 1024
"""Bytes of a note that the API server accepts (``noteLengthLimit`` of its event validation)."""

NAME_LIMIT = 253


def event_body(
    regarding: Raw, type_: EventType, reason: str, action: str, note: str, *, instance: str, token: str
) -> Raw:
    """The ``events.k8s.io/v1`` Event. ``token`` makes its name unique; a repeated request has the same one.

    An Event about a cluster-scoped object is kept in the namespace ``kube-system``: kubectl describe looks
    for it everywhere, and it may tell of other namespaces, of which whoever uses ``default`` must not know.
    """
    namespace, name = name_of(regarding)
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.name,
        "metadata": {
            "name": f"{name[: NAME_LIMIT - len(token) - 1]}.{token}",
            "namespace": namespace or "kube-system",
        },
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": REPORTING_CONTROLLER,
        "reportingInstance": instance,
        "type": type_,
        "reason": reason,
        "action": action,
        "note": cut(note, NOTE_LIMIT),
        "regarding": {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "namespace": namespace or "",
            "name": name,
            "uid": uid_of(regarding),
            "resourceVersion": regarding["metadata"].get("resourceVersion", ""),
        },
    }


def cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` bytes of UTF-8, with an ellipsis where something is missing."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - 3].decode(errors="ignore") + "…"
