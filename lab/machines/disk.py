"""Disks that a machine is to be made with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.storage.image import ImageSource

if TYPE_CHECKING:
    from lab.storage.gluster import GlusterVolume
    from lab.storage.nbd import NbdExport

MEBIBYTE = 1 << 20
_SIZE = 16 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk: where its image is (None: a file of the machine's own), its format, its size in bytes for the
    guest.

    `cache` is libvirt's; None: the fastest that loses no finished write when a QEMU is killed
    (`Host.safe_cache`).

    `backing`: the image below it and that one's format, for a fresh image.

    `fresh`: make the image; False: use what is there (it must be a disk of the same machine's writer).
    """

    source: ImageSource | None
    image_format: str = "qcow2"
    size: int = _SIZE
    cache: str | None = None
    fresh: bool = True
    backing: tuple[ImageSource, str] | None = None

    @classmethod
    def file(cls, *, size: int = _SIZE, image_format: str = "qcow2", path: Path | None = None) -> Disk:
        """A file, by default in the host's image directory, named after the machine and the disk."""
        return cls(ImageSource.file(path) if path else None, image_format, size)

    @classmethod
    def nbd(cls, export: NbdExport, *, size: int = _SIZE, image_format: str = "qcow2") -> Disk:
        """An NBD export; it is formatted. For qcow2 the export must be somewhat larger than `size`."""
        return cls(export.source, image_format, size)

    @classmethod
    def gluster(
        cls, volume: GlusterVolume, name: str, *, size: int = _SIZE, image_format: str = "qcow2"
    ) -> Disk:
        """An image `name` on a gluster volume, reached through libgfapi."""
        return cls(volume.source(name), image_format, size)
