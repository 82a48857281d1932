"""Where a new layer goes: beside the active one unless one of these says otherwise."""

import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

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


HOST_MESSAGE = "write name (and port), or socket alone, for each of hosts"
PATH_OR_PROTOCOL_MESSAGE = (
    "write either path, for a block device or file of the hypervisor, or protocol with name and hosts"
)
HOSTS_MESSAGE = "write hosts: only protocol: rbd goes without, by the hypervisor's own Ceph configuration"
SOCKET_MESSAGE = "a socket is a host of protocol: nbd, and the only one: write name and port"
IMAGE_PATH_MESSAGE = "write the name as rbd pool/image, gluster volume/path, or iscsi target/LUN number"

ImageName = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""What an image is called at its servers; an NBD export may be called anything."""

_NAMES = {
    "rbd": r"^[^/@?]+/([^/@?]+/)?[^/@?]+$",
    "gluster": r"^[^/?]+(/[^/?]+)+$",
    "iscsi": r"^[^/]+/[0-9]+$",
}
"""How names look where they have parts. A snapshot (``@``) or a query is no place to write to."""


class SourceHost(SpecModel):
    """One server of a network image: name (and port), or socket."""

    model_config = ConfigDict(
        json_schema_extra={
            RULES: [
                rule(
                    "has(self.name) != has(self.socket) && (!has(self.port) || has(self.name))", HOST_MESSAGE
                )
            ]
        }
    )

    name: HostName | None = Field(default=None, description="The server's name or address.")
    port: Port | None = Field(default=None, description="The server's port; absent: the protocol's own.")
    socket: PlainPath | None = Field(
        default=None, description="Instead of a name, for NBD: a unix socket of the hypervisor."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.name is None) == (self.socket is None) or (self.port is not None and self.name is None):
            raise ValueError(HOST_MESSAGE)
        return self


class OverlaySource(SpecModel):
    """A place for the layer that was made beforehand, named in full. It is given back, never deleted."""

    model_config = ConfigDict(
        json_schema_extra={
            RULES: [
                rule(
                    "has(self.path) ? !has(self.protocol) && !has(self.name) && !has(self.hosts)"
                    " : has(self.protocol) && has(self.name)",
                    PATH_OR_PROTOCOL_MESSAGE,
                ),
                rule(
                    "!has(self.protocol) || self.protocol == 'rbd'"
                    " || (has(self.hosts) && self.hosts.size() > 0)",
                    HOSTS_MESSAGE,
                ),
                rule(
                    "!has(self.hosts) || !self.hosts.exists(host, has(host.socket))"
                    " || (has(self.protocol) && self.protocol == 'nbd' && self.hosts.size() == 1)",
                    SOCKET_MESSAGE,
                ),
                rule(
                    "!has(self.protocol) || !has(self.name) || self.protocol == 'nbd'"
                    + "".join(
                        f" || self.protocol == '{protocol}' && self.name.matches('{pattern}')"
                        for protocol, pattern in _NAMES.items()
                    ),
                    IMAGE_PATH_MESSAGE,
                ),
            ]
        }
    )

    protocol: Protocol | None = Field(default=None, description="Absent for a local path.")
    path: PlainPath | None = Field(
        default=None, description="A block device (below /dev/) or a file of the hypervisor."
    )
    name: ImageName | None = Field(
        default=None,
        description="The image's name at its servers: an NBD export, rbd pool/image, gluster volume/path, "
        "iscsi target/LUN number.",
    )
    hosts: tuple[SourceHost, ...] | None = Field(
        default=None,
        max_length=16,
        description="The servers. Absent with rbd: those of the disk, or of the hypervisor's Ceph "
        "configuration.",
    )
    content: Content = Field(
        default=Content.FORMAT,
        description="Format: libvirt writes a new qcow2 into it, and what is there is lost (an export, a LUN "
        "or a block device). Prepared: it holds an empty overlay made beforehand, which is verified.",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        fault = self._fault()
        if fault is not None:
            raise ValueError(fault)
        return self

    def _fault(self) -> str | None:
        """What the rules above say."""
        hosts = self.hosts or ()
        if self.path is not None:
            local = self.protocol is None and self.name is None and self.hosts is None
            return None if local else PATH_OR_PROTOCOL_MESSAGE
        if self.protocol is None or self.name is None:
            return PATH_OR_PROTOCOL_MESSAGE
        if not hosts and self.protocol is not Protocol.RBD:
            return HOSTS_MESSAGE
        if any(host.socket for host in hosts) and (self.protocol is not Protocol.NBD or len(hosts) > 1):
            return SOCKET_MESSAGE
        pattern = _NAMES.get(self.protocol.value)
        if pattern is not None and re.search(pattern, self.name) is None:
            return IMAGE_PATH_MESSAGE
        return None


_DIRECTORY = "A directory of the hypervisor's own file system, whatever the disk below is."
_POOL = "A libvirt storage pool of the hypervisor."


class Overlay(SpecModel):
    """Where the new layer of one VolumeSnapshot goes. At most one of the three."""

    directory: PlainPath | None = Field(default=None, description=_DIRECTORY)
    pool: PoolName | None = Field(default=None, description=_POOL)
    source: OverlaySource | None = Field(
        default=None,
        description="A place that was made beforehand (an NBD export, a LUN, a block device …), named in "
        "full. It is given back when the layer is merged away, never deleted.",
    )


class ClassOverlay(SpecModel):
    """Where new layers go unless the VolumeSnapshot says. At most one of the two."""

    directory: PlainPath | None = Field(default=None, description=_DIRECTORY)
    pool: PoolName | None = Field(default=None, description=_POOL)


def chosen(overlay: Overlay | ClassOverlay) -> tuple[str, ...]:
    """The names of the places that are set, for the rule that at most one is."""
    return tuple(name for name in type(overlay).model_fields if getattr(overlay, name) is not None)
