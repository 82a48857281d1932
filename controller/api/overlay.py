"""Where a new layer goes: beside the active one unless one of these says otherwise."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from controller.api.schema import RULES, AbsolutePath, HostName, PoolName, Port, SpecModel, rule

_DOTS_MESSAGE = "write the path without . and .. in it"


def _no_dots(path: str) -> str:
    if {".", ".."} & set(path.split("/")):
        raise ValueError(_DOTS_MESSAGE)
    return path


PlainPath = Annotated[
    AbsolutePath,
    AfterValidator(_no_dots),
    Field(json_schema_extra={RULES: [rule("!self.matches('/[.]{1,2}(/|$)')", _DOTS_MESSAGE)]}),
]
"""An absolute path that names one place only."""


class Protocol(StrEnum):
    """How an image on the network is reached."""

    NBD = "nbd"
    RBD = "rbd"
    ISCSI = "iscsi"
    GLUSTER = "gluster"


class Content(StrEnum):
    """What to do with what is in an image that exists already."""

    FORMAT = "Format"
    PREPARED = "Prepared"


class SourceHost(SpecModel):
    """One server of a network image."""

    name: HostName = Field(description="The server's name or address.")
    port: Port | None = Field(default=None, description="The server's port; absent: the protocol's own.")


class OverlaySource(SpecModel):
    """An image that exists already, named in full."""

    protocol: Protocol | None = Field(default=None, description="Absent for a local path.")
    path: PlainPath | None = Field(default=None, description="A file or block device of the hypervisor.")
    name: str | None = Field(
        default=None, min_length=1, max_length=1024, description="The image's name at its servers."
    )
    hosts: tuple[SourceHost, ...] = Field(default=(), max_length=16, description="The servers.")
    content: Content = Field(
        default=Content.FORMAT,
        description="Format: libvirt writes a new qcow2 into it, and what is there is lost. "
        "Prepared: it holds an overlay made beforehand, which is verified before use.",
    )


_DIRECTORY = "A directory of the hypervisor's own file system, whatever the disk below is."
_POOL = "A libvirt storage pool of the hypervisor."


class Overlay(SpecModel):
    """Where the new layer of one VolumeSnapshot goes. At most one of the three."""

    directory: PlainPath | None = Field(default=None, description=_DIRECTORY)
    pool: PoolName | None = Field(default=None, description=_POOL)
    source: OverlaySource | None = Field(
        default=None, description="An image that exists already, named in full. Not in this version yet."
    )


class ClassOverlay(SpecModel):
    """Where new layers go unless the VolumeSnapshot says. At most one of the two."""

    directory: PlainPath | None = Field(default=None, description=_DIRECTORY)
    pool: PoolName | None = Field(default=None, description=_POOL)


def chosen(overlay: Overlay | ClassOverlay) -> tuple[str, ...]:
    """The names of the places that are set, for the rule that at most one is."""
    return tuple(name for name in type(overlay).model_fields if getattr(overlay, name) is not None)
