"""``varve adopt``: VolumeSnapshots for the points of a chain that nobody owns, to be put into Git."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from controller.api import GROUP, VERSION
from controller.api.schema import JsonObject
from controller.api.volumechain import BoundaryState, ChainLayer, VolumeChain
from controller.api.volumesnapshot import DeletionPolicy
from controller.cli.errors import CommandError

_ADOPTABLE = (BoundaryState.UNMANAGED, BoundaryState.OWNER_MISSING)
_LONGEST = 200
"""Characters of a name, which may have 253: some are left for a suffix."""


def manifests(
    chain: VolumeChain, taken: Iterable[str], policy: DeletionPolicy | None = None
) -> list[JsonObject]:
    """One VolumeSnapshot for each point of ``chain`` that nobody owns, oldest first. ``taken`` are the names
    of the VolumeSnapshots that the namespace has already.

    Names depend on the images alone, so a second run gives the same. Raises CommandError when the chain has
    not been looked at, or has no such point.
    """
    name = f"{chain.namespace}/{chain.name}"
    if chain.status.depth is None:
        raise CommandError(f"{name} has not been looked at yet: varve explain vvc/{chain.name} says why")
    found = [layer for layer in reversed(chain.status.layers) if _adoptable(layer)]
    if not found:
        raise CommandError(f"{name} has no point that nobody owns")
    used = set(taken)
    made = []
    for layer in found:
        made.append(_manifest(chain, layer, _name(chain, layer, used), policy))
        used.add(made[-1]["metadata"]["name"])
    return made


def _adoptable(layer: ChainLayer) -> bool:
    return layer.boundary is not None and layer.boundary.state in _ADOPTABLE


def _manifest(chain: VolumeChain, layer: ChainLayer, name: str, policy: DeletionPolicy | None) -> JsonObject:
    spec: dict[str, Any] = {"source": chain.spec.source.to_api(), "adopt": {"layer": layer.source}}
    if policy is not None:
        spec["deletionPolicy"] = str(policy)
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": chain.namespace},
        "spec": spec,
    }


def _name(chain: VolumeChain, layer: ChainLayer, used: set[str]) -> str:
    """From the image's own name; where that is taken, with a digest of all of it."""
    leaf = re.sub(r"[^a-z0-9]+", "-", layer.source.rstrip("/").rpartition("/")[2].lower()).strip("-")
    name = f"{chain.name}-{leaf}"[:_LONGEST].rstrip("-.") if leaf else chain.name
    return name if name not in used else f"{name}-{hashlib.sha256(layer.source.encode()).hexdigest()[:8]}"


def as_yaml(objects: Sequence[JsonObject]) -> str:
    """Documents for ``kubectl apply -f -`` or a file in Git."""
    return yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=False, explicit_start=len(objects) > 1)


def as_json(objects: Sequence[JsonObject]) -> str:
    """The same as one List, which ``kubectl apply -f -`` takes as well."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}, indent=2) + "\n"
