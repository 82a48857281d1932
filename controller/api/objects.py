"""What every object has: metadata, and the way to read one and to say why one cannot be read."""

from pydantic import Field, ValidationError

from controller.api import DEFAULT_CLASS_ANNOTATION, FINALIZER
from controller.api.schema import ApiModel, Time, clean_message


class Metadata(ApiModel):
    """The part of an object's metadata that the controller reads. It is never written back as a whole."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    finalizers: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Object(ApiModel):
    """An object of the API group."""

    metadata: Metadata

    @property
    def name(self) -> str:
        """The object's name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The object's namespace; empty for a cluster-scoped kind."""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """The UID that the API server gave this object, and no other of the same name."""
        return self.metadata.uid

    @property
    def generation(self) -> int:
        """The number of the spec's version."""
        return self.metadata.generation

    @property
    def deleting(self) -> bool:
        """Whether someone asked for its deletion."""
        return self.metadata.deletion_timestamp is not None

    @property
    def protected(self) -> bool:
        """Whether our finalizer holds it."""
        return FINALIZER in self.metadata.finalizers

    @property
    def marked_default(self) -> bool:
        """Whether the annotation marks it as the default of its kind."""
        return self.metadata.annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"


def explain(error: ValidationError) -> str:
    """Say in one line what is wrong with an object that could not be read: each field and its fault.

    The values themselves are left out: they may be long, and messages are seen by more people than specs.
    """
    faults = (
        f"{'.'.join(map(str, fault['loc'])) or 'object'}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    )
    return clean_message("; ".join(faults))


def not_understood(fault: str) -> str:
    """What to say of an object that could not be read; ``fault`` is what :func:`explain` said."""
    return (
        f"this controller does not understand the object: {fault}. It is older than the CRD, or somebody "
        f"wrote past the CRD: upgrade the controller, or take the field away. Until then nothing is done"
    )
