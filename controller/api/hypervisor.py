"""Hypervisor: a libvirt connection, and who may use what through it."""

from typing import Annotated

from pydantic import Field

from controller.api import glob
from controller.api.conditions import Condition
from controller.api.objects import Object
from controller.api.schema import (
    RULES,
    ApiModel,
    ClusterIdentity,
    DomainPattern,
    ImagePattern,
    NamespacePattern,
    SpecModel,
)
from controller.api.uri import URI_LENGTH, uri_rule

LibvirtURI = Annotated[
    str, Field(min_length=1, max_length=URI_LENGTH, json_schema_extra={RULES: [uri_rule()]})
]


LONGEST_IMAGE = 1024
LONGEST_NAME = 256
LONGEST_REASON = 512
LONGEST_TIME = 32
MOST_ORPHANS = 32
"""What the inventory of orphans shows at most; what is longer is cut."""


class AccessRule(SpecModel):
    """Every one of these namespaces may use every one of these domains."""

    namespaces: tuple[NamespacePattern, ...] = Field(
        min_length=1, max_length=64, description="Namespaces: names, or patterns in which only * is special."
    )
    domains: tuple[DomainPattern, ...] = Field(
        min_length=1, max_length=256, description="Domains: names, or patterns in which only * is special."
    )
    overlays: tuple[ImagePattern, ...] | None = Field(
        default=None,
        max_length=64,
        description="Where spec.overlay of their VolumeSnapshots may put layers: paths, URIs, pool:NAME for "
        "a pool; patterns in which only * is special. Absent or empty: nowhere but beside the disk's image, "
        "and where the class says. System directories are never given, and a device only by a pattern that "
        "begins with /dev/.",
    )

    def allows(self, namespace: str, domain: str) -> bool:
        """Say whether this rule gives the domain of this name to the namespace."""
        return glob.matches_any(self.namespaces, namespace) and glob.matches_any(self.domains, domain)


class HypervisorSpec(SpecModel):
    """What to connect to, and for whom."""

    uri: LibvirtURI = Field(
        description="A libvirt URI over a unix socket, TLS or SSH: qemu:///system, "
        "qemu+unix:///system?socket=/path, "
        "qemu+tls://host/system?pkipath=/dir or qemu+ssh://user@host/system?keyfile=/path&known_hosts=/path."
    )
    access: tuple[AccessRule, ...] = Field(
        max_length=64, description="Who may use which domain. Nothing is allowed that is not written here."
    )
    take_over_from: tuple[ClusterIdentity, ...] = Field(
        default=(),
        max_length=16,
        description="Identities of clusters that are gone for good: their points on this hypervisor become "
        "ours.",
    )

    def allows(self, namespace: str, domain: str) -> bool:
        """Say whether any rule gives the domain of this name to the namespace; no rules give nothing."""
        return any(rule.allows(namespace, domain) for rule in self.access)

    def overlays(self, namespace: str, domain: str) -> tuple[str, ...]:
        """Patterns of the places that any rule which gives the domain to the namespace gives for its
        layers."""
        rules = (rule for rule in self.access if rule.allows(namespace, domain))
        return tuple(pattern for rule in rules for pattern in rule.overlays or ())


class DomainCounts(ApiModel):
    """How many domains the hypervisor has."""

    total: int = Field(default=0, ge=0, description="Domains that are defined or running.")
    running: int = Field(default=0, ge=0, description="Domains that are running.")


class MissingCapability(ApiModel):
    """Something that was asked for and is not there."""

    name: str = Field(min_length=1, max_length=64, description="The capability's name.")
    without: str = Field(max_length=256, description="What does not work without it.")
    brought_by: str = Field(max_length=256, description="The package or version that brings it.")


class KnownFault(ApiModel):
    """Something that these versions of libvirt and QEMU do wrong, and what is not done because of it."""

    name: str = Field(min_length=1, max_length=64, description="The fault's name.")
    of: str = Field(
        min_length=1, max_length=64, description="What has it: the product and its version, if that is known."
    )
    fact: str = Field(max_length=512, description="What goes wrong.")
    limit: int | None = Field(
        default=None, ge=1, description="The most that is allowed, whatever any class says, if it is a limit."
    )
    therefore: str = Field(max_length=256, description="What varve does, or leaves, because of it.")


class OrphanImage(ApiModel):
    """An image that left its chain and is still there."""

    image: str = Field(max_length=LONGEST_IMAGE, description="Its path or URI.")
    domain: str = Field(max_length=LONGEST_NAME, description="The domain in whose record it is.")
    disk: str = Field(max_length=LONGEST_NAME, description="The disk whose chain it was in.")
    reason: str = Field(max_length=LONGEST_REASON, description="Why it was not removed.")
    since: str | None = Field(
        default=None,
        max_length=LONGEST_TIME,
        description="When the operation began that took it out of its chain, where that is known.",
    )


class OrphanImages(ApiModel):
    """The inventory of images that no chain uses."""

    count: int = Field(ge=1, description="How many there are.")
    images: tuple[OrphanImage, ...] = Field(
        max_length=MOST_ORPHANS, description="The oldest of them; the journals of the domains have all."
    )


class HypervisorStatus(ApiModel):
    """What the connection is like."""

    conditions: tuple[Condition, ...] = Field(
        default=(), max_length=16, description="Ready (the summary), Reconciling, Stalled."
    )
    observed_generation: int = Field(
        default=-1, ge=-1, description="The metadata.generation that the conditions were made from."
    )
    libvirt_version: str | None = Field(
        default=None, max_length=32, description="The daemon's version, such as 9.0.0."
    )
    qemu_version: str | None = Field(
        default=None, max_length=32, description="QEMU's version, such as 7.2.22."
    )
    domains: DomainCounts | None = Field(default=None, description="How many domains there are.")
    capabilities: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        default=(), max_length=64, description="What was found out by asking, in alphabetical order."
    )
    missing: tuple[MissingCapability, ...] = Field(
        default=(), max_length=16, description="What was asked for and is not there, in alphabetical order."
    )
    known_faults: tuple[KnownFault, ...] = Field(
        default=(),
        max_length=16,
        description="Known faults of these versions; a version that is not told counts as having them all.",
    )
    orphan_images: OrphanImages | None = Field(
        default=None, description="Images that varve left and no chain uses; absent when there are none."
    )


class Hypervisor(Object):
    """A libvirt connection, and who may use what through it. Only administrators should write one."""

    spec: HypervisorSpec = Field(description="What to connect to, and for whom.")
    status: HypervisorStatus = Field(default=HypervisorStatus(), description="What the connection is like.")

    def allows(self, namespace: str, domain: str) -> bool:
        """Say whether the namespace may use the domain of this name."""
        return self.spec.allows(namespace, domain)
