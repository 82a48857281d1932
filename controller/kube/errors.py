"""What can go wrong between the controller and the API server. Every message is written for an operator."""


class KubeError(Exception):
    """Base of all errors of :mod:`controller.kube`."""


class Unavailable(KubeError):
    """No answer, or none that decides: connection failed, timed out, 429 or 5xx, also after the retries.

    A write may have happened or not. All writes of this package can be repeated.
    """


class Forbidden(KubeError):
    """The API server refuses: RBAC, an admission policy, or (as :class:`Unauthorized`) the credentials."""


class Unauthorized(Forbidden):
    """The credentials are refused, also after they were read anew."""


class Rejected(KubeError):
    """The request is wrong in itself (400, 405, 413, 422 …): sent again unchanged, it fails again."""


class Conflict(KubeError):
    """Someone else changed the object at the same time, again and again; read it and decide anew."""


class ObjectGone(KubeError):
    """The object that was meant does not exist any more."""


class ObjectReplaced(ObjectGone):
    """The object that was meant is gone; another one, with another UID, has its name and was not touched."""


class ObjectDeleting(KubeError):
    """The object's deletion was asked for, so it can get no new finalizer."""
