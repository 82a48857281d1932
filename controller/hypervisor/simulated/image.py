"""Images and the storage they lie on: contents by cluster, and what each header says.

A simulated image maps cluster numbers to small integers. That is enough to tell, byte for byte, whether a
guest or a kept point still reads what it should, and it costs nothing.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from controller.chain.prepared import Examined
from controller.chain.qcow2 import Inside
from controller.chain.source import Host, Source
from controller.hypervisor.driver import Removal
from controller.hypervisor.errors import (
    HypervisorError,
    NoStorageDriver,
    NotExaminable,
    StillOpen,
    StorageUnreachable,
)
from controller.hypervisor.misread import misread
from controller.hypervisor.places import Place, neighbourhood_of, removable_from

CLUSTER_BYTES = 65536
"""qcow2's default cluster; also the unit in which jobs report progress."""
QCOW2_BYTES = 3 * CLUSTER_BYTES
"""About what an empty qcow2 file takes (header, L1, refcounts)."""
ODD_NAME = UnicodeDecodeError("utf-8", b"caf\xe9.iso", 3, 4, "invalid continuation byte")
"""What libvirt-python raises for a file that an old ISO image or a Latin-1 system left behind (measured)."""
Content = dict[int, int]
"""Cluster number to value; a cluster that is absent reads as zero."""


class ImageMissing(LookupError):
    """A chain or a header names an image that is not there."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


@dataclass(frozen=True)
class Backing:
    """The backing image as a qcow2 header names it. ``source`` is what the name means, ``name`` the words."""

    source: Source
    format: str
    name: str

    @property
    def relative(self) -> bool:
        """Whether the name is relative to the image's own directory."""
        return not self.name.startswith("/") and ":" not in self.name.partition("/")[0]


@dataclass(eq=False)
class Image:
    """One image: what it allocates itself, and the header's pointer to what lies below."""

    source: Source
    format: str
    capacity: int
    clusters: Content = field(default_factory=dict)
    backing: Backing | None = None
    version: int = 3
    """Of qcow2; 2 holds no bitmaps."""
    room: int = 0
    """Bytes of the block device that it is on; 0 for more than enough."""

    @property
    def key(self) -> str:
        """Identity; see :attr:`Source.key`."""
        return self.source.key

    @property
    def allocation(self) -> int:
        """Bytes that the image takes on its storage."""
        overhead = QCOW2_BYTES if self.format == "qcow2" else 0
        return overhead + len(self.clusters) * CLUSTER_BYTES


def compose(layers: Iterable[Mapping[int, int]]) -> Content:
    """What reads through ``layers``, the lowest first. Zeros are left out, so equal content is equal."""
    content: Content = {}
    for clusters in layers:
        content.update(clusters)
    return {cluster: value for cluster, value in content.items() if value}


def absolute_name(source: Source) -> str:
    """``source`` as libvirt writes it into a header: the path, or a URI with the name as it spells it."""
    if source.type != "network":
        return source.path
    if source.protocol == "rbd":  # there is no URI for it
        pool, _, image = source.name.partition("/")
        servers = [{"host": host.name, "port": host.port} for host in source.hosts]
        node = {"driver": "rbd", "pool": pool, "image": image, "server": servers}
        return f"json:{json.dumps({'file': node})}"
    return f"{source.protocol}://{','.join(h.address(source.protocol) for h in source.hosts)}/{source.name}"


def relative_name(image: Source, backing: Source) -> str:
    """``backing`` as a path relative to the directory of ``image``."""
    place = image.path or image.name
    return posixpath.relpath(backing.path or backing.name, posixpath.dirname(place) or ".")


class Storage:
    """All images that a host can reach, and the libvirt storage drivers that can look at them."""

    def __init__(self, drivers: Iterable[str] = ("dir", "gluster", "rbd")) -> None:
        self.images: dict[str, Image] = {}
        self.drivers = frozenset(drivers)
        self.volumes: dict[str, Source] = {}
        """The images that ``type='volume'`` sources stand for, by the key of the source."""
        self.held: set[str] = set()
        """Identities of images that a client has open, or that have RBD snapshots: they cannot be removed."""
        self.unlistable: dict[str, Exception] = {}
        """What listing the images of a place answers, by the beginning of the keys of its images: a directory
        that libvirt may not read, or one with a name that is not UTF-8 (:data:`ODD_NAME`)."""
        self.kept: dict[str, HypervisorError] = {}
        """What removing an image answers, for as long as its key is here: one that is immutable or on
        storage that is read-only (NotRemovable), or open for ever (StillOpen)."""
        self.pooled: set[str] = set()
        """Identities of block devices that a storage pool of an administrator has."""
        self.written: dict[str, datetime] = {}
        """When images were written to last, by identity, as a test says."""
        self._refusals: list[tuple[str, HypervisorError]] = []
        self.silent: set[str] = set()
        """Servers that do not answer, as the beginning of the keys of their images (``nbd://127.0.0.1:1/``)."""

    def create(
        self,
        source: Source,
        *,
        capacity: int,
        format: str = "qcow2",  # noqa: A002 - the word of the domain XML
        content: Mapping[int, int] | None = None,
        backing: Image | None = None,
        relative: bool = False,
        spelled: Source | None = None,
    ) -> Image:
        """Make an image (or format an existing export again), with an absolute backing name by default
        (``spelled``: of another spelling of the same image).

        Raises what :meth:`refuse` was told for this place.
        """
        for prefix, error in self._refusals:
            if source.key.startswith(prefix):
                raise error
        named = None
        if backing is not None:
            words = relative_name(source, backing.source)
            if not relative:
                words = absolute_name(spelled or backing.source)
            named = Backing(backing.source, backing.format, words)
        image = Image(source, format, capacity, dict(content or {}), named)
        self.images[image.key] = image
        return image

    def refuse(self, prefix: str, error: HypervisorError) -> None:
        """From now on, creating an image whose key starts with ``prefix`` fails with ``error``."""
        self._refusals.append((prefix, error))

    def require_servers(self, sources: Iterable[Source]) -> None:
        """Raise StorageUnreachable when one of these images is on a server that does not answer."""
        for source in sources:
            if source.key.startswith(tuple(self.silent)):
                raise StorageUnreachable(f"the server of {source.uri} does not answer")

    def open(self, key: str) -> Image:
        """The image, or :class:`ImageMissing`."""
        volume = self.volumes.get(key)
        try:
            return self.images[key if volume is None else volume.key]
        except KeyError:
            raise ImageMissing(key) from None

    def accessible(self, source: Source) -> bool:
        """Whether libvirt itself (not QEMU) can read the header of an image there."""
        return source.type in {"file", "block"} or source.protocol in self.drivers - {"rbd"}

    def below(self, image: Image) -> list[Image]:
        """What the headers say lies below ``image``, nearest first. Raises ImageMissing."""
        found: list[Image] = []
        current = image
        while current.backing is not None:
            if len(found) > len(self.images):
                raise ImageMissing(f"headers form a loop at {current.key}")
            current = self.open(current.backing.source.key)
            found.append(current)
        return found

    def content_of(self, key: str) -> Content:
        """What an offline reader of the image sees: only what is on disk, through headers only.

        Raises :class:`ImageMissing` when the chain of headers is broken.
        """
        image = self.open(key)
        return compose(i.clusters for i in reversed([image, *self.below(image)]))

    def examine(self, source: Source) -> Examined:
        """What is in an image. Raises NotExaminable for one that is missing or no qcow2."""
        image = self.images.get(source.key)
        if image is None:
            raise NotExaminable(f"there is no {source.uri}")
        if image.format != "qcow2":
            raise NotExaminable("it is no qcow2 image")
        words, form = (image.backing.name, image.backing.format) if image.backing else ("", "")
        return Examined(image.capacity, words, form, empty=not image.clusters)

    def inside(self, source: Source) -> Inside | None:
        """What the header says, where libvirt can look: on a device also what is in use."""
        image = self.images.get(source.key)
        if image is None or image.format != "qcow2":
            return None
        if source.type == "block":  # libvirt reads it if an administrator's pool has it
            return (
                Inside(image.version, CLUSTER_BYTES, image.allocation) if source.key in self.pooled else None
            )
        return Inside(image.version) if self.accessible(source) else None

    def referrers(self, source: Source) -> tuple[str, ...]:
        """Names of the images in the same place whose header points at ``source``. Raises NotListable."""
        if (found := neighbourhood_of(source)) is None:
            return ()
        self._list(source, found)
        place = _place(source)
        return tuple(
            image.source.path or image.source.name
            for image in self.images.values()
            if image.backing and image.backing.source.key == source.key and _place(image.source) == place
        )

    def present(self, source: Source) -> bool | None:
        """Whether there is such an image; None where libvirt has no notion of a place, or cannot list it."""
        place = source.type == "file" or source.protocol in self.drivers
        hidden = source.key.startswith(tuple(self.unlistable))
        return source.key in self.images if place and not hidden else None

    def remove(self, source: Source) -> Removal:
        """Unlink through the storage API. Running processes keep what they hold open; nothing else does."""
        self._list(source, removable_from(source))
        if source.protocol == "rbd" and source.key in self.held:
            raise StillOpen("Ceph does not let it go: a client has it open", code=38)
        if source.key in self.kept and source.key in self.images:
            raise self.kept[source.key]
        return Removal.ABSENT if self.images.pop(source.key, None) is None else Removal.REMOVED

    def _list(self, source: Source, place: Place) -> None:
        """Raise what listing the place of ``source`` answers, if that is an error."""
        if (source.protocol or "dir") not in self.drivers:
            raise NoStorageDriver(
                f"{place.key} cannot be listed: no storage driver (package {place.package})"
            )
        for beginning, error in self.unlistable.items():
            if source.key.startswith(beginning):
                if isinstance(error, HypervisorError):
                    raise error
                raise misread(error, f"listing {place.key}", changing=False)


def _place(source: Source) -> tuple[str, str, tuple[Host, ...]]:
    return source.protocol, posixpath.dirname(source.path or source.name), source.hosts


def probed(image: Image) -> Source:
    """The backing image of ``image`` as libvirt spells it after reading the header: no auth, default port
    written out, and for a relative name on gluster the ``./`` of the measured ``gv0/./base.raw``."""
    backing = image.backing
    if backing is None:
        raise ValueError(f"{image.key} has no backing image")
    source = backing.source
    if source.type != "network":
        return source
    name = source.name
    if source.protocol == "gluster" and backing.relative:
        volume, _, inside = image.source.name.partition("/")
        name = f"{volume}/{posixpath.dirname(inside) or '.'}/{backing.name}"
    hosts = [
        Host(h.name, h.address(source.protocol).rpartition(":")[2], h.transport, h.socket)
        if h.transport == "tcp"
        else h
        for h in source.hosts
    ]
    return Source.network(source.protocol, name, hosts)
