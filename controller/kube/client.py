"""The port to Kubernetes over HTTP, with plain dictionaries and no model layer."""

import copy
import socket
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from uuid import uuid4

from controller.api import FINALIZER
from controller.kube.credentials import Credentials
from controller.kube.errors import Conflict, ObjectDeleting, ObjectGone, ObjectReplaced, Rejected
from controller.kube.finalizers import Patch, addition, finalizers_of, removal
from controller.kube.kinds import EVENT, NAMESPACE, Kind, Raw, is_deleting, name_of, uid_of
from controller.kube.notes import event_body
from controller.kube.port import FIELD_MANAGER, FINALIZER_MANAGER, EventType, KubeClient
from controller.kube.transport import APPLY_PATCH, JSON, JSON_PATCH, Answer, Body, Transport
from controller.kube.trim import is_whole, kept
from controller.telemetry.metrics import Metrics

__all__ = ["ApiClient", "KubeClient"]

PAGE = 100
"""Objects per page of a list, which is read item by item whatever its size. The API server has each page in
its memory, and a page that breaks is read once more."""

REMEMBERED = 4096
"""Objects whose last status is remembered as one that changes nothing. Beyond that, the oldest is forgotten,
and written once more."""

ATTEMPTS = 5
"""Tries of a guarded write against concurrent writers before Conflict is raised."""


class ApiClient:
    """A :class:`KubeClient` over one :class:`Transport`. Also keeps Leases (``create``, ``replace``)."""

    def __init__(self, credentials: Credentials, metrics: Metrics, *, timeout: float = 10.0) -> None:
        """``timeout`` is in seconds for each attempt of a request; nothing is sent yet."""
        self._transport = Transport(credentials, metrics, timeout=timeout)
        self._metrics = metrics
        self._instance = socket.gethostname()[:128]
        self._vain: OrderedDict[str, tuple[str, Raw]] = OrderedDict()
        """Status that was sent and changed nothing, with the object's resourceVersion, by UID."""

    async def close(self) -> None:
        """End all connections."""
        await self._transport.close()

    async def get(self, kind: Kind, namespace: str | None, name: str, *, retry: bool = True) -> Raw | None:
        """See :meth:`KubeClient.get`. Without ``retry``, one attempt."""
        found = await self._whole(kind, namespace, name, retry=retry)
        return None if found is None else kept(kind, found)

    async def _whole(self, kind: Kind, namespace: str | None, name: str, *, retry: bool = True) -> Raw | None:
        answer = await self._transport.request("GET", kind.path(namespace, name), retry=retry)
        return None if answer.status == 404 else _expect(answer, f"reading {kind} {name}")

    async def list(
        self, kind: Kind, label_selector: str | None = None, *, namespace: str | None = None
    ) -> list[Raw]:
        """See :meth:`KubeClient.list`; of one namespace if one is given."""
        return [*(await self.listing(kind, label_selector, namespace=namespace))[0]]

    async def listing(
        self, kind: Kind, label_selector: str | None = None, *, namespace: str | None = None
    ) -> tuple[Sequence[Raw], str]:
        """The objects, and the version of the collection from which a watch goes on.

        Reads in pages; all again when the server forgot the place.
        """
        items: list[Raw] = []
        token = ""
        while True:
            query = {"limit": str(PAGE)}
            if label_selector:
                query["labelSelector"] = label_selector
            if token:
                query["continue"] = token
            answer = await self._transport.request(
                "GET", kind.path(namespace), query=query, keep=partial(kept, kind)
            )
            if answer.status == 410 and token:
                items, token = [], ""
                continue
            page = _expect(answer, f"listing {kind}")
            items += page["items"]
            token = page["metadata"].get("continue") or ""
            if not token:
                return items, page["metadata"].get("resourceVersion") or ""

    def watch(self, kind: Kind, version: str, *, namespace: str | None = None) -> AsyncGenerator[Raw]:
        """The events (``type``, ``object``) after ``version``, until the API server ends the watch.

        One of type ERROR is the last: list again. Raises Unavailable or Forbidden.
        """
        return self._transport.watch(kind.path(namespace), {"resourceVersion": version})

    async def apply(self, kind: Kind, body: Raw, *, field_manager: str) -> Raw:
        """Server-side apply with force: ``body`` is all that ``field_manager`` says of the object.

        Raises Conflict when ``metadata.resourceVersion`` is in it and old, ObjectGone.
        """
        query = {"fieldManager": field_manager, "force": "true"}
        path = kind.path(*name_of(body))
        answer = await self._write(
            kind, "apply", "PATCH", path, query=query, body=body, content_type=APPLY_PATCH
        )
        return kept(kind, self._object(answer, f"writing {kind} {name_of(body)[1]}"))

    async def apply_status(self, kind: Kind, current: Raw, status: Raw) -> Raw:
        """See :meth:`KubeClient.apply_status`.

        The API server ignores ``metadata.uid`` in an apply to /status of a custom resource (seen with 1.36: a
        wrong one is answered 200), but not ``metadata.resourceVersion``, which no two objects ever share. So
        that is the guard, and the UID is compared when it turns out old.

        Fields of other managers stay, so an object can differ from what is sent for ever. What changed
        nothing is therefore remembered, and not sent again for the same resourceVersion.
        """
        namespace, name = name_of(current)
        if self._vain.get(uid_of(current)) == (current["metadata"]["resourceVersion"], status):
            return copy.deepcopy(current)
        body: Raw = {"apiVersion": kind.api_version, "kind": kind.name, "status": status}
        for _ in range(ATTEMPTS):
            body["metadata"] = {"name": name, "resourceVersion": current["metadata"]["resourceVersion"]}
            answer = await self._write(
                kind,
                "status",
                "PATCH",
                kind.path(namespace, name, "status"),
                query={"fieldManager": FIELD_MANAGER, "force": "true"},
                body=body,
                content_type=APPLY_PATCH,
            )
            if answer.status == 404:
                raise ObjectGone(f"{kind} {name} is gone")
            if answer.status != 409:
                written = kept(kind, _expect(answer, f"writing the status of {kind} {name}"))
                self._note_vain(current, written, status)
                return written
            current = await self._same(kind, current)
        raise Conflict(f"the status of {kind} {name} could not be written: {answer.message}")

    def _note_vain(self, sent: Raw, written: Raw, status: Raw) -> None:
        version = sent["metadata"]["resourceVersion"]
        if written.get("metadata", {}).get("resourceVersion") != version:
            return
        self._vain[uid_of(sent)] = (version, copy.deepcopy(status))
        self._vain.move_to_end(uid_of(sent))
        if len(self._vain) > REMEMBERED:
            self._vain.popitem(last=False)

    async def add_finalizer(self, kind: Kind, current: Raw) -> Raw | None:
        """See :meth:`KubeClient.add_finalizer`."""

        def patch(raw: Raw) -> Patch | None:
            if is_deleting(raw) and FINALIZER not in finalizers_of(raw):
                raise ObjectDeleting(f"{kind} {name_of(raw)[1]} is being deleted and can get no finalizer")
            return addition(raw, FINALIZER)

        return await self._edit_finalizers(kind, current, patch)

    async def remove_finalizer(self, kind: Kind, current: Raw) -> Raw | None:
        """See :meth:`KubeClient.remove_finalizer`."""
        return await self._edit_finalizers(kind, current, lambda raw: removal(raw, FINALIZER))

    async def create_event(
        self, regarding: Raw, type_: EventType, reason: str, action: str, note: str
    ) -> None:
        """See :meth:`KubeClient.create_event`. A repetition of the request finds the first one's Event."""
        body = event_body(
            regarding, type_, reason, action, note, instance=self._instance, token=uuid4().hex[:16]
        )
        path = EVENT.path(body["metadata"]["namespace"])
        answer = await self._write(EVENT, "event", "POST", path, body=body)
        if answer.status != 409:
            _expect(answer, f"writing an event about {name_of(regarding)[1]}")

    async def namespace_uid(self, name: str) -> str:
        """See :meth:`KubeClient.namespace_uid`."""
        found = await self.get(NAMESPACE, None, name)
        if found is None:
            raise ObjectGone(f"there is no namespace {name}")
        return uid_of(found)

    async def create(self, kind: Kind, namespace: str | None, body: Raw, *, retry: bool = True) -> Raw:
        """Create an object. Raises Conflict when the name is taken, ObjectGone without the namespace."""
        answer = await self._write(
            kind,
            "create",
            "POST",
            kind.path(namespace),
            query={"fieldManager": FIELD_MANAGER},
            body=body,
            retry=retry,
        )
        return kept(kind, self._object(answer, f"creating {kind} {body['metadata']['name']}"))

    async def remove(self, kind: Kind, current: Raw) -> None:
        """See :meth:`KubeClient.remove`."""
        meta = current["metadata"]
        body: Raw = {"preconditions": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}}
        what = f"removing {kind} {meta['name']}"
        answer = await self._write(kind, "delete", "DELETE", kind.path(*name_of(current)), body=body)
        if answer.status == 409:
            raise Conflict(f"{what}: {answer.message}")
        if answer.status != 404:
            _expect(answer, what)

    async def replace(self, kind: Kind, body: Raw, *, retry: bool = True) -> Raw:
        """Replace an object if it is still as ``body`` was read. Raises Conflict, also when it is gone."""
        path = kind.path(*name_of(body))
        answer = await self._write(kind, "replace", "PUT", path, body=body, retry=retry)
        return self._object(answer, f"replacing {kind} {body['metadata']['name']}")

    async def missing(self, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        """Those of ``kinds``, all of one group and version, that the API server does not serve (no CRD)."""
        answer = await self._transport.request("GET", f"/apis/{kinds[0].api_version}")
        if answer.status == 404:
            return kinds
        served = {resource["name"] for resource in _expect(answer, "asking what is served")["resources"]}
        return tuple(kind for kind in kinds if kind.plural not in served)

    async def _edit_finalizers(
        self, kind: Kind, current: Raw, patch: Callable[[Raw], Patch | None]
    ) -> Raw | None:
        """Patch the finalizers as read; when that reading turns out old, read again and think again. One that
        was not kept whole is read first."""
        namespace, name = name_of(current)
        path = kind.path(namespace, name)
        for attempt in range(ATTEMPTS):
            if attempt or not is_whole(current):
                try:
                    current = await self._same(kind, current)
                except ObjectGone:
                    return None
            operations = patch(current)
            if operations is None:
                return kept(kind, current)
            answer = await self._write(
                kind,
                "finalizer",
                "PATCH",
                path,
                query={"fieldManager": FINALIZER_MANAGER},
                body=operations,
                content_type=JSON_PATCH,
            )
            if answer.status == 404:
                return None
            if answer.ok:
                return kept(kind, answer.body)
            # 422: a test of the patch failed (or the finalizer is refused for good); 409: a concurrent write
            if answer.status not in (409, 422):
                _expect(answer, f"changing the finalizers of {kind} {name}")
        raise Conflict(f"the finalizers of {kind} {name} could not be changed: {answer.message}")

    async def _write(
        self,
        kind: Kind,
        call: str,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Body,
        content_type: str = JSON,
        retry: bool = True,
    ) -> Answer:
        """Send a write and count it, whatever comes of it."""
        self._metrics.api_writes.labels(kind.plural, call).inc()
        return await self._transport.request(
            method, path, query=query, body=body, content_type=content_type, retry=retry
        )

    async def _same(self, kind: Kind, stale: Raw) -> Raw:
        """The object that ``stale`` is a copy of, read anew. Raises ObjectGone, ObjectReplaced."""
        namespace, name = name_of(stale)
        fresh = await self._whole(kind, namespace, name)
        if fresh is None:
            raise ObjectGone(f"{kind} {name} is gone")
        if uid_of(fresh) != uid_of(stale):
            raise ObjectReplaced(f"{kind} {name} was deleted and made anew; the new one was not touched")
        return fresh

    @staticmethod
    def _object(answer: Answer, what: str) -> Raw:
        if answer.status == 409:
            raise Conflict(f"{what}: {answer.message}")
        if answer.status == 404:
            raise ObjectGone(f"{what}: {answer.message}")
        return _expect(answer, what)


def _expect(answer: Answer, what: str) -> Raw:
    """The answer's body if the request was carried out. Raises Rejected."""
    if not answer.ok:
        raise Rejected(f"{what} was refused with HTTP {answer.status}: {answer.message}")
    return answer.body
