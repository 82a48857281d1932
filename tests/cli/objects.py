"""Fixed objects as the API server gives them, and a cluster that holds them in memory."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable
from typing import Any

from controller.api.hypervisor import Hypervisor
from controller.api.volumechain import VolumeChain
from controller.api.volumesnapshot import VolumeSnapshot
from controller.kube.errors import Conflict, KubeError
from controller.kube.kinds import Kind, Raw

MIB = 1 << 20
DIRECTORY = "/var/lib/libvirt/images"
BASE = f"{DIRECTORY}/db-1.qcow2"
HASH = "3f9ac0d1e2b34a5c"


def overlay(name: str) -> str:
    """The image that varve made for a VolumeSnapshot."""
    return f"{DIRECTORY}/db-1.vda.varve-{name}.qcow2"


def condition(kind: str, status: str, reason: str, message: str = "") -> Raw:
    """A condition as in a status."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": "2026-03-01T12:00:00Z",
    }


def ready(status: str, reason: str, message: str = "", *, stalled: bool = False) -> list[Raw]:
    """The conditions of an object in this state."""
    return [
        condition("Ready", status, reason, message),
        condition("Reconciling", "False", reason),
        condition("Stalled", str(stalled), reason),
    ]


def layer(source: str, mib: int, index: int, *, origin: str = "Varve", **boundary: Any) -> Raw:
    """One image of VolumeChain.status; ``boundary`` is the point that it holds."""
    made: Raw = {
        "source": source,
        "format": "qcow2",
        "index": index,
        "origin": origin,
        "capacityBytes": 1024 * MIB,
        "allocatedBytes": mib * MIB,
    }
    return made | ({"boundary": boundary} if boundary else {})


def owned(*names: str, state: str = "Held") -> Raw:
    """A point that VolumeSnapshots of the namespace shop hold."""
    return {"state": state, "owners": [{"namespace": "shop", "name": name} for name in names]}


LAYERS = [
    layer(overlay("c"), 12, 5),
    layer(overlay("b"), 64, 4, **owned("db-1-wednesday")),
    layer(overlay("a"), 96, 3, **owned("db-1-tuesday", state="Leaving")),
    layer(BASE, 700, 2, origin="Other", **owned("db-1-monday", "db-1-also-monday")),
    layer(f"{DIRECTORY}/golden.qcow2", 300, 1, origin="Other", state="Unmanaged"),
]
LAYERS[-1]["boundary"] = {"state": "Unmanaged"}
LAYERS.append(
    layer(f"{DIRECTORY}/golden-base.raw", 900, 0, origin="Other") | {"boundary": {"state": "Unmanaged"}}
)

PLAN: Raw = {
    "hash": HASH,
    "steps": [
        {
            "kind": "Commit",
            "from": [overlay("b")],
            "into": overlay("a"),
            "bytes": 64 * MIB,
            "jobs": 1,
            "blocked": {"reason": "AwaitingApproval", "message": "the merge waits for approval"},
        },
        {"kind": "Remove", "from": [overlay("b")]},
    ],
}


def raw_chain(**changes: Any) -> Raw:
    """A chain that waits for approval; ``changes`` are to its status, ``spec`` is its policy."""
    spec = {"source": {"domain": "db-1", "disk": "vda"}, "approval": "Manual"} | changes.pop("spec", {})
    status = {
        "observedGeneration": 1,
        "conditions": ready("False", "AwaitingApproval", "the merge waits for approval"),
        "resolved": {
            "hypervisor": "host-a",
            "domainName": "db-1",
            "domainUUID": "6d1f3f5e-9d3c-4b6a-9a44-0d8f1f3d9b11",
            "disk": "vda",
        },
        "depth": len(LAYERS),
        "totalBytes": sum(each["allocatedBytes"] for each in LAYERS),
        "reclaimableBytes": 64 * MIB,
        "layers": copy.deepcopy(LAYERS),
        "plan": copy.deepcopy(PLAN),
        "blockedBy": {"reason": "AwaitingApproval", "message": "the merge waits for approval"},
    } | changes
    return {
        "apiVersion": "varve.dev/v1alpha1",
        "kind": "VolumeChain",
        "metadata": {
            "name": "db-1-vda",
            "namespace": "shop",
            "uid": "chain",
            "generation": 1,
            "resourceVersion": "100",
        },
        "spec": spec,
        "status": {key: value for key, value in status.items() if value is not None},
    }


def chain(**changes: Any) -> VolumeChain:
    """The same as a model."""
    return VolumeChain.model_validate(raw_chain(**changes))


def idle_chain(**changes: Any) -> VolumeChain:
    """A chain with nothing to do."""
    calm = {"conditions": ready("True", "InSync"), "plan": None, "blockedBy": None, "reclaimableBytes": None}
    return chain(**calm | changes)


def raw_snapshot(name: str = "db-1-tuesday", *, deleting: bool = False, **changes: Any) -> Raw:
    """A VolumeSnapshot that is ready; ``changes`` are to its status, ``spec`` is added."""
    spec = {"source": {"domain": "db-1", "disk": "vda"}} | changes.pop("spec", {})
    meta = {
        "name": name,
        "namespace": "shop",
        "uid": name,
        "generation": 1,
        "finalizers": ["varve.dev/chain-protection"],
    }
    if deleting:
        meta["deletionTimestamp"] = "2026-03-02T12:00:00Z"
    return {
        "apiVersion": "varve.dev/v1alpha1",
        "kind": "VolumeSnapshot",
        "metadata": meta,
        "spec": spec,
        "status": {"observedGeneration": 1, "conditions": ready("True", "InSync")} | changes,
    }


def snapshot(name: str = "db-1-tuesday", **changes: Any) -> VolumeSnapshot:
    """The same as a model."""
    return VolumeSnapshot.model_validate(raw_snapshot(name, **changes))


def hypervisor(**changes: Any) -> Hypervisor:
    """A Hypervisor that cannot be reached."""
    gone = ready("False", "HypervisorUnreachable", "connection refused")
    return Hypervisor.model_validate(
        {
            "metadata": {"name": "host-a", "generation": 1},
            "spec": {"uri": "qemu:///system", "access": [{"namespaces": ["*"], "domains": ["*"]}]},
            "status": {"observedGeneration": 1, "conditions": gone} | changes,
        }
    )


class FakeClient:
    """The API server in memory. ``events`` are what watches give, ``before_apply`` is another's write."""

    def __init__(self, *objects: Raw) -> None:
        self.objects = list(objects)
        self.applied: list[tuple[Raw, str]] = []
        self.watches: list[list[Raw] | KubeError] = []
        self.watched: list[str] = []
        self.listed = 0
        self.before_apply: list[Callable[[], None]] = []
        self.forbidden: dict[str, KubeError] = {}

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Raw | None:
        """One object."""
        self._check(kind)
        for raw in self.objects:
            meta = raw["metadata"]
            if (raw["kind"], meta.get("namespace"), meta["name"]) == (kind.name, namespace, name):
                return copy.deepcopy(raw)
        return None

    async def listing(self, kind: Kind, *, namespace: str | None = None) -> tuple[list[Raw], str]:
        """All objects of a kind."""
        self._check(kind)
        self.listed += 1
        found = [raw for raw in self.objects if raw["kind"] == kind.name]
        if namespace:
            found = [raw for raw in found if raw["metadata"].get("namespace") == namespace]
        return copy.deepcopy(found), "500"

    async def watch(self, kind: Kind, version: str, *, namespace: str | None = None) -> AsyncGenerator[Raw]:
        """The next prepared watch; after the last one, silence."""
        self.watched.append(version)
        if not self.watches:
            await asyncio.Event().wait()
        events = self.watches.pop(0)
        if isinstance(events, KubeError):
            raise events
        for event in events:
            yield event

    async def apply(self, kind: Kind, body: Raw, *, field_manager: str) -> Raw:
        """Server-side apply with an optimistic lock, after whatever others do meanwhile."""
        if self.before_apply:
            self.before_apply.pop(0)()
        stored = next(raw for raw in self.objects if raw["metadata"]["name"] == body["metadata"]["name"])
        if stored["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")
        self.applied.append((body, field_manager))
        stored["spec"] |= body["spec"]
        return stored

    def _check(self, kind: Kind) -> None:
        if kind.name in self.forbidden:
            raise self.forbidden[kind.name]


def event(kind: str, raw: Raw, version: int) -> Raw:
    """An event of a watch."""
    raw = copy.deepcopy(raw)
    raw["metadata"]["resourceVersion"] = str(version)
    return {"type": kind, "object": raw}
