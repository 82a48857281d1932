"""What is kept of an object as it comes in: what is read, and nothing that its author can make as large as he
likes. Pure.

The API server takes some 1.5 MiB for one object, 256 KiB of it annotations, the rest labels, owner
references, finalizers and ``managedFields``; none of that is read here but a handful. Spec and status are
bounded by the CRDs' schemas and kept as they are.
"""

from __future__ import annotations

from controller.api import DEFAULT_CLASS_ANNOTATION, FINALIZER, GROUP
from controller.kube.kinds import Kind, Raw

PLAIN = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
)
"""Fields of the metadata that are short by their nature."""

ANNOTATIONS = (DEFAULT_CLASS_ANNOTATION,)
LABELS = ("app.kubernetes.io/managed-by",)

MOST_FINALIZERS = 16
"""So many are kept as they are. Of a longer list it is kept that there are others, and whether ours is there:
who patches it must read it again."""

_OTHERS = f"{GROUP}/others"
_LONGEST = 64


def trimmed(raw: Raw) -> Raw:
    """A new object of our kinds with what is read of it; what it shares with ``raw`` is not changed."""
    rest: Raw = {name: raw[name] for name in ("apiVersion", "kind", "spec", "status") if name in raw}
    return {**rest, "metadata": _metadata(raw.get("metadata") or {})}


def bare(raw: Raw) -> Raw:
    """What writes need of an object that is kept parsed as well."""
    return {name: raw[name] for name in ("apiVersion", "kind", "metadata") if name in raw}


def kept(kind: Kind, raw: Raw) -> Raw:
    """What is kept of an object that came in; all of one of a kind that is not ours, which is written back as
    a whole."""
    return trimmed(raw) if kind.group == GROUP else raw


def is_whole(raw: Raw) -> bool:
    """False when finalizers were left out, so that no patch of them can be made from it."""
    return _OTHERS not in (raw["metadata"].get("finalizers") or ())


def _metadata(meta: Raw) -> Raw:
    short = {name: meta[name] for name in PLAIN if name in meta}
    for field, names in (("annotations", ANNOTATIONS), ("labels", LABELS)):
        found = meta.get(field) or {}
        some = {name: found[name] for name in names if name in found and len(str(found[name])) <= _LONGEST}
        if some:
            short[field] = some
    if finalizers := meta.get("finalizers"):
        short["finalizers"] = _finalizers(finalizers)
    if managers := _managers(meta.get("managedFields") or []):
        short["managedFields"] = managers
    return short


def _finalizers(found: list[str]) -> list[str]:
    if len(found) <= MOST_FINALIZERS:
        return list(found)
    return [_OTHERS, FINALIZER] if FINALIZER in found else [_OTHERS]


def _managers(fields: list[Raw]) -> list[Raw]:
    """The first two managers: whether anybody but us has written is all that is asked."""
    found: list[Raw] = []
    for entry in fields:
        manager = {"manager": str(entry.get("manager"))[:_LONGEST]}
        if manager not in found:
            found.append(manager)
        if len(found) == 2:
            break
    return found
