"""What all kinds are made of: the two base models, bounded types, and validation rules written in CEL.

Every string is bounded and every list too: an unbounded one would fail the cost estimate of the CEL rules.
Patterns are written in the subset that Go's RE2, pydantic's Rust engine and Python's ``re`` read alike.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

RULES = "x-kubernetes-validations"

JsonObject = dict[str, Any]
"""A JSON object as the API server sends it."""


def rule(cel: str, message: str, *, message_expression: str = "", field_path: str = "") -> JsonObject:
    """One entry of ``x-kubernetes-validations``: where ``cel`` is false, ``message`` is the refusal."""
    entry: JsonObject = {"rule": cel, "message": message}
    if message_expression:
        entry["messageExpression"] = message_expression
    if field_path:
        entry["fieldPath"] = field_path
    return entry


def _alias(name: str) -> str:
    return to_camel(name).replace("Uuid", "UUID")


class ApiModel(BaseModel):
    """A part of an object: frozen, camelCase outside, and tolerant of fields that a later version added."""

    model_config = ConfigDict(frozen=True, alias_generator=_alias, populate_by_name=True, extra="ignore")

    def to_api(self) -> JsonObject:
        """Write it as the API server takes it: camelCase, JSON types only, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class SpecModel(ApiModel):
    """A part of a spec: an unknown field is an error, because it would be a wish that is not heard."""

    model_config = ConfigDict(extra="forbid")


def _utc_seconds(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return moment.astimezone(UTC).replace(microsecond=0)


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[
    datetime, AfterValidator(_utc_seconds), PlainSerializer(_rfc3339, return_type=str, when_used="json")
]
"""A moment in UTC, to the second, as metav1.Time writes it."""

MESSAGE_LENGTH = 1024


def clean_message(text: str) -> str:
    """Make any text fit to be a message: printable, valid Unicode, at most 1024 characters.

    Domain names and libvirt's errors end up here. A terminal's control characters and lone surrogates
    (which JSON cannot carry) become ``?``; white space becomes single blanks; what is cut off is marked by
    ``…``.
    """
    printable = "".join(c if c.isprintable() or c.isspace() else "?" for c in text)
    line = " ".join(printable.split())
    return line if len(line) <= MESSAGE_LENGTH else line[: MESSAGE_LENGTH - 1].rstrip() + "…"


Message = Annotated[str, BeforeValidator(clean_message), Field(max_length=MESSAGE_LENGTH)]

DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
"""The name of a Kubernetes object."""

DomainName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^/\x00-\x1f\x7f]+$")]
"""A domain's name: libvirt's QEMU driver refuses ``/`` and line breaks, XML the other control characters."""

DomainUUID = Annotated[str, Field(max_length=36, pattern=UUID_PATTERN)]
"""A domain's UUID as libvirt prints it, in lower case."""

DiskTarget = Annotated[str, Field(max_length=32, pattern=r"^(fd|hd|sd|vd|xvd|ubd|nvme)[a-zA-Z0-9_]+$")]
"""A disk's target device; the pattern is that of libvirt's own schema (domaincommon.rng, diskTarget)."""

AbsolutePath = Annotated[str, Field(max_length=1024, pattern=r"^/[^\x00-\x1f\x7f]*$")]
"""A path on the hypervisor's file system."""

PoolName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^/\x00-\x1f\x7f]+$")]
"""The name of a libvirt storage pool."""

HostName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")]
"""A host's name or address, IPv6 without brackets."""

Port = Annotated[int, Field(ge=1, le=65535)]
Bytes = Annotated[int, Field(ge=0, le=2**62)]
"""A size in bytes. The API server reads bounds as floats, so this one is exact as a float."""

ImageURI = Annotated[str, Field(max_length=4096)]
"""An image named in full: a path, or protocol://server/name for a network image."""

ImagePattern = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A pattern for images, in which only ``*`` is special."""

NamespacePattern = Annotated[
    str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9*]([-a-z0-9*]*[a-z0-9*])?$")
]
"""A namespace's name or pattern, in which only ``*`` is special."""

DomainPattern = DomainName
"""A domain's name or pattern, in which only ``*`` is special."""

ClusterIdentity = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
]
"""What ``--cluster-id`` says: by default a UUID."""
