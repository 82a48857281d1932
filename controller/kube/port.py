"""The port to Kubernetes: everything the reconciler may ask of the API server, and nothing more."""

from typing import Literal, Protocol

from controller.kube.kinds import Kind, Raw

EventType = Literal["Normal", "Warning"]

FIELD_MANAGER = "varve"
"""Owner of all status fields (server-side apply). Flux would take over from a name in ``kubectl…``."""

FINALIZER_MANAGER = "varve-finalizer"
"""Field manager of finalizer changes, so that ``managedFields`` tells them from status."""

REPORTING_CONTROLLER = "varve.dev/controller"


class KubeClient(Protocol):
    """Reads and writes of Kubernetes objects as plain dictionaries.

    Every method may raise :class:`~controller.kube.errors.Unavailable` (after bounded retries),
    :class:`~controller.kube.errors.Forbidden` and :class:`~controller.kube.errors.Rejected`.
    Every write can be repeated: its effect is the same, or a typed error. Returned objects are the caller's.
    """

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Raw | None:
        """Read one object, from the API server and not from a cache; None when there is none."""
        ...

    async def list(self, kind: Kind, label_selector: str | None = None) -> list[Raw]:
        """Read all objects of a kind, of all namespaces."""
        ...

    async def apply_status(self, kind: Kind, current: Raw, status: Raw) -> Raw:
        """Make ``status`` the status of the very object that ``current`` is a (maybe stale) copy of.

        Server-side apply with force: fields sent before and not sent now are removed, conditions of other
        controllers stay. Returns the new object. Raises ObjectGone, ObjectReplaced (another UID has the name;
        it was not touched), or Conflict.
        """
        ...

    async def add_finalizer(self, kind: Kind, current: Raw) -> Raw | None:
        """Put the controller's finalizer on the very object that ``current`` is a (maybe stale) copy of.

        Returns the object with it, or None when the object is gone or replaced. No write when it is there
        already. Raises ObjectDeleting when deletion was asked for before it was there, or Conflict.
        """
        ...

    async def remove_finalizer(self, kind: Kind, current: Raw) -> Raw | None:
        """Take the controller's finalizer, and only that, off the object that ``current`` is a copy of.

        Returns the object without it (which may vanish right then), or None when it was gone or replaced.
        No write when it is not there. Raises Conflict.
        """
        ...

    async def create(self, kind: Kind, namespace: str | None, body: Raw) -> Raw:
        """Create an object. Returns it as stored. Raises Conflict when the name is taken, ObjectGone without
        the namespace."""
        ...

    async def remove(self, kind: Kind, current: Raw) -> None:
        """Delete the very object that ``current`` is a copy of, unless somebody has written to it since: then
        Conflict is raised. No effect when it is gone."""
        ...

    async def create_event(
        self, regarding: Raw, type_: EventType, reason: str, action: str, note: str
    ) -> None:
        """Write one ``events.k8s.io/v1`` Event about ``regarding``. ``note`` is cut at 1,024 bytes.

        For use by :class:`~controller.kube.events.EventRecorder`, which never makes a pass wait.
        """
        ...

    async def namespace_uid(self, name: str) -> str:
        """The UID of a namespace; that of ``kube-system`` identifies a cluster. Raises ObjectGone."""
        ...
