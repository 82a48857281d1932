"""What the domain XML says of one disk: its layers from the active one down, and what runs on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from controller.chain.source import Source


class ChainEnd(StrEnum):
    """Whether the last listed layer is really the base."""

    KNOWN = "Known"
    """``<backingStore/>``: libvirt knows that nothing is below."""
    UNKNOWN = "Unknown"
    """No ``<backingStore>`` element: libvirt did not look. Something may be below (measured after a restart
    of machines with NBD, iSCSI and RBD disks)."""


@dataclass(frozen=True)
class Layer:
    """One image of the chain. ``index`` is QEMU's number for it: valid for the life of one QEMU process,
    never reused, not in chain order, absent in inactive XML (measured, libvirt 9.0). Never store it."""

    source: Source
    format: str
    index: int | None = None

    @property
    def key(self) -> str:
        """Identity of the image; see :attr:`Source.key`."""
        return self.source.key

    @property
    def lasting(self) -> Layer:
        """The layer without its index, as it may be stored."""
        return self if self.index is None else replace(self, index=None)


@dataclass(frozen=True)
class Mirror:
    """A job that copies to a second image (``<mirror>``): an active commit or a blockcopy."""

    job: str
    ready: bool
    source_key: str
    switching: bool = False
    """libvirt is in the middle of the pivot (``ready='pivot'``). It stays so for ever when libvirtd died
    there after QEMU had switched (measured, libvirt 9.0)."""
    footprint: str = ""
    """What the second image may share bytes with; see :attr:`Source.footprint`."""


@dataclass(frozen=True)
class Boundary:
    """The line between a frozen layer and the layer above it; one point in time."""

    frozen: Layer
    overlay: Layer


@dataclass(frozen=True)
class Disk:
    """One ``<disk>`` of a domain. ``layers`` runs from the active layer (first) to the base (last); it is
    empty for a drive without a medium."""

    target: str
    device: str
    layers: tuple[Layer, ...]
    end: ChainEnd
    bus: str = ""
    readonly: bool = False
    shareable: bool = False
    transient: bool = False
    mirror: Mirror | None = None

    @property
    def active(self) -> Layer | None:
        """The layer that the guest writes to."""
        return self.layers[0] if self.layers else None

    @property
    def keys(self) -> tuple[str, ...]:
        """Identities of the layers, active first."""
        return tuple(layer.key for layer in self.layers)

    @property
    def footprints(self) -> frozenset[str]:
        """What the layers, their data files and the target of a mirror may share bytes with; see
        :attr:`Source.footprint`."""
        mirrored = {self.mirror.footprint} if self.mirror and self.mirror.footprint else set()
        return frozenset(name for layer in self.layers for name in layer.source.footprints) | mirrored

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """All boundaries from the newest (below the active layer) to the oldest (above the base)."""
        return tuple(
            Boundary(frozen=below, overlay=above)
            for above, below in zip(self.layers, self.layers[1:], strict=False)
        )

    def position(self, key: str) -> int | None:
        """Distance of the image from the active layer (0), or None when it is not in this chain."""
        return next((i for i, layer in enumerate(self.layers) if layer.key == key), None)


@dataclass(frozen=True)
class DomainDefinition:
    """One domain XML document: live or inactive."""

    uuid: str
    name: str
    disks: tuple[Disk, ...]
    journal_xml: str | None = None
    """varve's own element of ``<metadata>``, serialised, or None."""
    run: str = ""
    """The domain's id while it runs, otherwise empty. It lasts as long as the QEMU process, also when
    libvirtd is started anew, and is another one in every later run that follows without a restart of
    libvirtd. After such a restart numbers may come again: another id proves another QEMU, the same id proves
    nothing."""
    machine: str = ""
    """The type of the machine (``pc-q35-10.0``), or empty."""

    def disk(self, target: str) -> Disk | None:
        """The disk with this target device, or None."""
        return next((disk for disk in self.disks if disk.target == target), None)

    def image_keys(self) -> Iterator[str]:
        """Identities of all images that this definition names."""
        for disk in self.disks:
            yield from disk.keys
            if disk.mirror:
                yield disk.mirror.source_key
