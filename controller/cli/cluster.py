"""What the command line reads from a cluster, and the one field that it writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol, TypeVar

from pydantic import ValidationError

from controller.api.hypervisor import Hypervisor
from controller.api.objects import Object, explain
from controller.api.volumechain import VolumeChain
from controller.api.volumesnapshot import VolumeSnapshot
from controller.api.volumesnapshotclass import VolumeSnapshotClass
from controller.cli.approval import to_approve
from controller.cli.errors import CommandError, NotFound
from controller.kube.errors import Conflict, Forbidden, Unavailable
from controller.kube.kinds import (
    HYPERVISOR,
    VOLUME_CHAIN,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CLASS,
    Kind,
    Raw,
)

APPROVAL_MANAGER = "varve-approve"
"""Owner of ``spec.approvedPlan`` when it is set here, in ``managedFields``."""

_MODELS: dict[Kind, type[Object]] = {
    VOLUME_SNAPSHOT: VolumeSnapshot,
    VOLUME_CHAIN: VolumeChain,
    HYPERVISOR: Hypervisor,
    VOLUME_SNAPSHOT_CLASS: VolumeSnapshotClass,
}
_NO_RIGHT = (
    "you may not approve: that needs the verb approve on volumechains.varve.dev in namespace {} (ClusterRole "
    "varve-approve); nothing was written: {}"
)
_ATTEMPTS = 5
_PAUSE = 1.0
"""Seconds before a watch that broke is begun anew."""

Model = TypeVar("Model", bound=Object)


class Client(Protocol):
    """The part of :class:`~controller.kube.client.ApiClient` that is used here."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Raw | None:
        """See ApiClient."""
        ...

    async def listing(self, kind: Kind, *, namespace: str | None = None) -> tuple[Sequence[Raw], str]:
        """See ApiClient."""
        ...

    def watch(self, kind: Kind, version: str, *, namespace: str | None = None) -> AsyncGenerator[Raw]:
        """See ApiClient."""
        ...

    async def apply(self, kind: Kind, body: Raw, *, field_manager: str) -> Raw:
        """See ApiClient."""
        ...


class Cluster:
    """The objects of varve in one cluster, as models."""

    def __init__(self, client: Client) -> None:
        """Nothing is read yet."""
        self._client = client

    async def find(self, model: type[Model], namespace: str | None, name: str) -> Model | None:
        """The object of this name, or None. Raises CommandError for one that cannot be read."""
        kind = _kind(model)
        raw = await self._client.get(kind, namespace if kind.namespaced else None, name)
        return None if raw is None else _parsed(model, raw)

    async def get(self, model: type[Model], namespace: str | None, name: str) -> Model:
        """The object of this name. Raises NotFound."""
        found = await self.find(model, namespace, name)
        if found is None:
            where = f" in namespace {namespace}" if namespace and _kind(model).namespaced else ""
            raise NotFound(f"there is no {model.__name__} {name}{where}")
        return found

    async def all(self, model: type[Model], namespace: str | None) -> list[Model]:
        """All objects of a kind; ``namespace`` None: of all namespaces."""
        found, _ = await self._client.listing(_kind(model), namespace=namespace)
        return [_parsed(model, raw) for raw in found]

    async def classes(self) -> dict[str, VolumeSnapshotClass] | None:
        """The classes by name; None when the user may not read them, as they belong to the whole cluster."""
        try:
            return {each.name: each for each in await self.all(VolumeSnapshotClass, None)}
        except Forbidden:
            return None

    async def approve(self, chain: VolumeChain, plan: str) -> bool:
        """Write ``plan`` to ``spec.approvedPlan`` if it still is the plan of ``chain``, and say whether that
        changed anything.

        The object's version is part of the write, so one that changed after it was read is looked at again.
        Raises CommandError when its plan is another one by then; nothing was written then.
        """
        for _ in range(_ATTEMPTS):
            if chain.spec.approved_plan == plan:
                return False
            meta = {
                "namespace": chain.namespace,
                "name": chain.name,
                "resourceVersion": chain.metadata.resource_version,
            }
            body = {
                "apiVersion": VOLUME_CHAIN.api_version,
                "kind": VOLUME_CHAIN.name,
                "metadata": meta,
                "spec": {"approvedPlan": plan},
            }
            try:
                await self._client.apply(VOLUME_CHAIN, body, field_manager=APPROVAL_MANAGER)
            except Forbidden as error:
                raise CommandError(_NO_RIGHT.format(chain.namespace, error)) from error
            except Conflict:
                uid = chain.uid
                chain = await self.get(VolumeChain, chain.namespace, chain.name)
                if chain.uid != uid:
                    raise CommandError(
                        f"VolumeChain {chain.name} was made anew meanwhile; look again"
                    ) from None
                to_approve(chain, plan)
                continue
            return True
        raise CommandError(f"VolumeChain {chain.name} changes all the time; nothing was approved, try again")

    async def changes(self, namespace: str | None) -> AsyncGenerator[tuple[VolumeChain, bool]]:
        """Each VolumeChain as it is and whenever it changes, with True when it is gone; for ever.

        Raises what a list raises. A watch that breaks or is out of date is begun anew by a list.
        """
        known: dict[str, VolumeChain] = {}
        while True:
            found, version = await self._client.listing(VOLUME_CHAIN, namespace=namespace)
            fresh = {chain.uid: chain for chain in (_parsed(VolumeChain, raw) for raw in found)}
            for uid in known.keys() - fresh.keys():
                yield known.pop(uid), True
            for uid, chain in fresh.items():
                before = known.get(uid)
                known[uid] = chain
                if before is None or before.metadata.resource_version != chain.metadata.resource_version:
                    yield chain, False
            try:
                async with aclosing(self._events(namespace, version)) as events:
                    async for chain, gone in events:
                        if gone:
                            known.pop(chain.uid, None)
                        else:
                            known[chain.uid] = chain
                        yield chain, gone
            except Unavailable:
                await asyncio.sleep(_PAUSE)

    async def _events(self, namespace: str | None, version: str) -> AsyncGenerator[tuple[VolumeChain, bool]]:
        """One watch after the other, until one cannot go on where the last ended."""
        while True:
            async with aclosing(self._client.watch(VOLUME_CHAIN, version, namespace=namespace)) as events:
                async for event in events:
                    if event.get("type") == "ERROR":
                        return
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield _parsed(VolumeChain, event["object"]), event["type"] == "DELETED"


def _kind(model: type[Object]) -> Kind:
    return next(kind for kind, one in _MODELS.items() if one is model)


def _parsed(model: type[Model], raw: Raw) -> Model:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        name = raw.get("metadata", {}).get("name", "?")
        raise CommandError(
            f"{model.__name__} {name} cannot be read by this version of the program: {explain(error)}"
        ) from error
