"""The port to Kubernetes in memory, for tests of everything above it; strict where it matters.

Like an API server it gives out UIDs, resourceVersions and generations, keeps an object with finalizers until
the last one is gone, separates status from the rest, and tells watchers. The port's methods behave as
:class:`~controller.kube.client.ApiClient` does (``tests/kube`` runs one suite against both). Not imitated:
schemas, CEL, field managers (a status written by the port replaces the whole status), and label selectors
other than ``key=value`` lists.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

from controller.api import FINALIZER
from controller.kube.errors import Conflict, ObjectDeleting, ObjectGone, ObjectReplaced
from controller.kube.fake_store import Change, Store, clone
from controller.kube.finalizers import addition, finalizers_of, removal
from controller.kube.kinds import EVENT, NAMESPACE, Kind, Raw, is_deleting, name_of, uid_of
from controller.kube.notes import event_body
from controller.kube.port import EventType
from controller.kube.trim import kept

Phase = Literal["before", "after"]
T = TypeVar("T")
Sink = Callable[[Kind, str | None, Raw], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One request that the port made; ``verb`` is get, list, status, finalizer, event, create, replace or
    delete."""

    verb: str
    kind: Kind
    namespace: str | None
    name: str

    @property
    def writes(self) -> bool:
        """Whether the API server counts it as a write."""
        return self.verb not in ("get", "list")


@dataclass(slots=True)
class _Fault:
    verb: str
    countdown: int
    error: BaseException
    phase: Phase


class FakeKube:
    """A :class:`~controller.kube.port.KubeClient`, a store of Leases, and the user's side of both."""

    def __init__(
        self,
        *,
        defaults: Callable[[Kind, Raw], None] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``defaults`` edits each new object in place, as a CRD's schema does; ``now`` dates what is created.

        A default status such as ``{observedGeneration: -1}`` is set there, too.
        """
        self._store = Store(now)
        self._defaults = defaults
        self._faults: list[_Fault] = []
        self._sinks: list[Sink] = []
        self.calls: list[Call] = []
        self.events: list[Raw] = []
        self.hook: Callable[[Call, Phase], None] | None = None
        """Called before and after each request; may raise anything, a BaseException to play a kill."""
        self.create_object(NAMESPACE, {"metadata": {"name": "kube-system"}})

    # What tests ask about the port's use.

    @property
    def writes(self) -> Counter[str]:
        """How many writes there were of each verb, those that failed included."""
        return Counter(call.verb for call in self.calls if call.writes)

    def forget_calls(self) -> None:
        """Start counting calls, writes and events anew."""
        self.calls.clear()
        self.events.clear()

    def fail(self, verb: str, error: BaseException, *, nth: int = 1, phase: Phase = "before") -> None:
        """Let the ``nth`` request with ``verb`` (or ``*``) from now raise, without effect or after it."""
        self._faults.append(_Fault(verb, nth, error, phase))

    def subscribe(self, sink: Sink, *, replay: bool = True) -> Callable[[], None]:
        """Tell ``sink`` of every change, after a listing (type None) of what is there. Returns an undo."""
        if replay:
            for kind, raw in self._store.everything():
                sink(kind, None, kept(kind, raw))
        self._sinks.append(sink)
        return lambda: self._sinks.remove(sink)

    # The user's side: takes effect at once, is never counted and never fails on purpose.

    def create_object(self, kind: Kind, raw: Raw) -> Raw:
        """Create an object as a user does: without the status in ``raw``. Raises Conflict when it exists."""
        body = clone(raw)
        body |= {"apiVersion": kind.api_version, "kind": kind.name}
        body.pop("status", None)
        if self._defaults:
            self._defaults(kind, body)
        return self._publish(self._store.create(kind, body))

    def edit(self, kind: Kind, namespace: str | None, name: str, change: Callable[[Raw], None]) -> Raw:
        """Change anything but status in place. Raises ObjectGone."""

        def keep_status(raw: Raw) -> None:
            status = raw.pop("status", None)
            change(raw)
            raw.pop("status", None)
            if status is not None:
                raw["status"] = status

        return self._publish(self._store.change(kind, namespace, name, keep_status))

    def edit_status(self, kind: Kind, namespace: str | None, name: str, status: Raw) -> Raw:
        """Overwrite status, as another controller or a curious user may. Raises ObjectGone."""

        def change(raw: Raw) -> None:
            raw["status"] = clone(status)

        return self._publish(self._store.change(kind, namespace, name, change))

    def delete(self, kind: Kind, namespace: str | None, name: str, *, force: bool = False) -> None:
        """Ask for deletion: done at once without finalizers, or with ``force`` (finalizers stripped first).

        Raises ObjectGone.
        """
        if force:
            self.edit(kind, namespace, name, lambda raw: raw["metadata"].pop("finalizers", None))
        self._publish(self._store.delete(kind, namespace, name))

    def object(self, kind: Kind, namespace: str | None, name: str) -> Raw | None:
        """Look at an object without a request."""
        return self._store.get(kind, namespace, name)

    # The port.

    async def get(self, kind: Kind, namespace: str | None, name: str, *, retry: bool = True) -> Raw | None:
        """See :class:`~controller.kube.port.KubeClient`."""
        del retry  # nothing here fails by chance
        call = Call("get", kind, namespace, name)
        found = await self._request(call, lambda: self._store.get(kind, namespace, name))
        return None if found is None else kept(kind, found)

    async def list(self, kind: Kind, label_selector: str | None = None) -> list[Raw]:
        """See :class:`~controller.kube.port.KubeClient`."""
        wanted = dict(pair.split("=", 1) for pair in (label_selector or "").split(",") if pair)

        def matching() -> list[Raw]:
            labels = ((raw, raw["metadata"].get("labels") or {}) for raw in self._store.list(kind))
            return [kept(kind, raw) for raw, has in labels if wanted.items() <= has.items()]

        return await self._request(Call("list", kind, None, ""), matching)

    async def apply_status(self, kind: Kind, current: Raw, status: Raw) -> Raw:
        """See :class:`~controller.kube.port.KubeClient`."""
        namespace, name = name_of(current)

        def apply(raw: Raw) -> None:
            if uid_of(raw) != uid_of(current):
                raise ObjectReplaced(f"{kind} {name} was deleted and made anew; the new one was not touched")
            raw["status"] = clone(status)

        written = await self._request(
            Call("status", kind, namespace, name),
            lambda: self._publish(self._store.change(kind, namespace, name, apply)),
        )
        return kept(kind, written)

    async def add_finalizer(self, kind: Kind, current: Raw) -> Raw | None:
        """See :class:`~controller.kube.port.KubeClient`."""
        if addition(current, FINALIZER) is None:
            return clone(current)
        return await self._edit_finalizers(kind, current, self._add)

    async def remove_finalizer(self, kind: Kind, current: Raw) -> Raw | None:
        """See :class:`~controller.kube.port.KubeClient`."""
        if removal(current, FINALIZER) is None:
            return clone(current)
        return await self._edit_finalizers(kind, current, self._remove)

    async def create_event(
        self, regarding: Raw, type_: EventType, reason: str, action: str, note: str
    ) -> None:
        """See :class:`~controller.kube.port.KubeClient`. The Event is kept in :attr:`events`."""
        body = event_body(regarding, type_, reason, action, note, instance="fake", token=self._store.token())
        await self._request(Call("event", EVENT, *name_of(regarding)), lambda: self.events.append(body))

    async def namespace_uid(self, name: str) -> str:
        """See :class:`~controller.kube.port.KubeClient`."""
        found = await self.get(NAMESPACE, None, name)
        if found is None:
            raise ObjectGone(f"there is no namespace {name}")
        return uid_of(found)

    # What Leases need besides.

    async def create(self, kind: Kind, namespace: str | None, body: Raw, *, retry: bool = True) -> Raw:
        """See :class:`~controller.kube.client.ApiClient`."""
        del retry
        raw = clone(body)
        if namespace:
            raw["metadata"]["namespace"] = namespace
        call = Call("create", kind, namespace, body["metadata"]["name"])
        return await self._request(call, lambda: self._publish(self._store.create(kind, raw)))

    async def remove(self, kind: Kind, current: Raw) -> None:
        """See :class:`~controller.kube.port.KubeClient`."""
        namespace, name = name_of(current)

        def effect() -> None:
            found = self._store.get(kind, namespace, name)
            if found is None:
                return
            if found["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"]:
                raise Conflict(f"removing {kind} {name}: it was changed meanwhile")
            self._publish(self._store.delete(kind, namespace, name))

        await self._request(Call("delete", kind, namespace, name), effect)

    async def replace(self, kind: Kind, body: Raw, *, retry: bool = True) -> Raw:
        """See :class:`~controller.kube.client.ApiClient`."""
        del retry
        namespace, name = name_of(body)

        def swap(raw: Raw) -> None:
            if raw["metadata"]["resourceVersion"] != body["metadata"].get("resourceVersion"):
                raise Conflict(f"replacing {kind} {name}: it was changed meanwhile")
            raw |= {part: clone(body[part]) for part in ("spec", "data") if part in body}

        def effect() -> Raw:
            try:
                return self._publish(self._store.change(kind, namespace, name, swap))
            except ObjectGone as error:
                raise Conflict(f"replacing {kind} {name}: {error}") from error

        return await self._request(Call("replace", kind, namespace, name), effect)

    async def _edit_finalizers(self, kind: Kind, current: Raw, change: Callable[[Raw], None]) -> Raw | None:
        namespace, name = name_of(current)

        def only_this(raw: Raw) -> None:
            if uid_of(raw) != uid_of(current):
                raise ObjectReplaced(f"{kind} {name} was deleted and made anew")
            change(raw)

        try:
            written = await self._request(
                Call("finalizer", kind, namespace, name),
                lambda: self._publish(self._store.change(kind, namespace, name, only_this)),
            )
        except ObjectGone:
            return None
        return kept(kind, written)

    @staticmethod
    def _add(raw: Raw) -> None:
        if FINALIZER in finalizers_of(raw):
            return
        if is_deleting(raw):
            raise ObjectDeleting(f"{name_of(raw)[1]} is being deleted and can get no finalizer")
        raw["metadata"]["finalizers"] = [*finalizers_of(raw), FINALIZER]

    @staticmethod
    def _remove(raw: Raw) -> None:
        raw["metadata"]["finalizers"] = [other for other in finalizers_of(raw) if other != FINALIZER]

    async def _request(self, call: Call, effect: Callable[[], T]) -> T:
        """Let others run, as any I/O does; then fail, take effect, or both, as the test arranged."""
        await asyncio.sleep(0)
        self.calls.append(call)
        self._disturb(call, "before")
        result = effect()
        self._disturb(call, "after")
        return result

    def _disturb(self, call: Call, phase: Phase) -> None:
        if self.hook:
            self.hook(call, phase)
        due = None
        for fault in self._faults:
            if fault.phase == phase and fault.verb in (call.verb, "*"):
                fault.countdown -= 1
                due = fault if fault.countdown <= 0 else due
        if due:
            self._faults.remove(due)
            raise due.error

    def _publish(self, change: Change) -> Raw:
        """Tell the watchers of a change, if it is one, and return the object as it is now (or last was)."""
        if change.type:
            for sink in tuple(self._sinks):
                sink(change.kind, change.type, kept(change.kind, clone(change.raw)))
        return change.raw
