"""What QEMU itself has open, as far as it was asked.

libvirt's view can be wrong: when libvirtd is killed after QEMU has switched to a new top layer and before it
has noted that, the live XML shows the old chain for the rest of QEMU's life, while the guest writes to the
new layer (measured, libvirt 9.0). QEMU is asked in this one case, because nothing else tells the two apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from controller.chain.backing_name import image_of, meant
from controller.chain.disk import Disk, Layer
from controller.chain.naming import is_ours
from controller.chain.source import Source


@dataclass(frozen=True)
class OpenedImage:
    """One image as QEMU describes it."""

    name: str
    """A path, a URI or ``json:{…}``: QEMU's words, as headers have them too."""
    format: str = ""
    capacity: int = 0
    """Virtual size, bytes; 0 when QEMU does not tell."""
    data_file: str = ""
    """The file that its header names for its data, which QEMU has opened as well."""
    flaws: tuple[str, ...] = ()
    """What is in it that no overlay of a machine holds when it is new, as phrases."""


@dataclass(frozen=True)
class Opened:
    """QEMU's answer about one disk."""

    chain: tuple[OpenedImage, ...] = ()
    """What the guest's disk stands on, top to base."""
    files: frozenset[str] = frozenset()
    """Names of everything that this QEMU has open, whoever uses it. The nodes of a layer whose snapshot was
    not finished stay open in QEMU and belong to no disk (measured)."""
    problem: str = ""
    """Why QEMU could not be asked. The rest is then unknown."""

    def writes_to(self, source: Source) -> bool | None:
        """True when the image is part of the disk's chain in QEMU; None when that cannot be told."""
        return None if self.problem else _among((one.name for one in self.chain), source)

    def has_open(self, source: Source) -> bool | None:
        """True when QEMU has the image open in any way; None when that cannot be told."""
        return None if self.problem else _among((*(one.name for one in self.chain), *self.files), source)

    def extra_top(self, shown: Disk) -> Layer | None:
        """The one layer that QEMU has above the chain that libvirt shows, when it is a local image and all
        else is as shown; None otherwise."""
        if self.problem or len(self.chain) != len(shown.layers) + 1:
            return None
        below = zip(self.chain[1:], shown.layers, strict=True)
        if not all(is_same(one.name, layer.source) for one, layer in below):
            return None
        top = self.chain[0]
        return Layer(Source.file(top.name), top.format) if top.name.startswith("/") else None

    def lacks_some(self, shown: Disk) -> bool:
        """True when QEMU surely has not all layers that libvirt shows."""
        if self.problem or not self.chain:
            return False
        return any(self.writes_to(layer.source) is False for layer in shown.layers)

    def differs_from(self, shown: Disk) -> bool:
        """True when QEMU's top layer is surely not the one that libvirt shows."""
        if self.problem or not self.chain or not shown.layers:
            return False
        return is_same(self.chain[0].name, shown.layers[0].source) is False


def is_same(name: str, source: Source) -> bool | None:
    """Whether QEMU's ``name`` means the image ``source``; None when the name is not understood.

    The names of our overlays are unique by the UID in them, so the last component is enough.
    """
    node = _file_node(name)
    if source.path:
        path = name if node is None else node.get("filename", "")
        local = isinstance(path, str) and path.startswith("/")
        return Source.file(path).footprint == source.footprint if local else False
    if is_ours(source.leaf):
        return source.leaf in name
    found = meant(name, source, "") if node is None else image_of(node)
    return None if found is None else found.footprint == source.footprint


def _file_node(name: str) -> dict[str, Any] | None:
    """The innermost node of a ``json:`` name: QEMU says more than the file of an image whose backing image is
    not the one that its header names."""
    if not name.startswith("json:"):
        return None
    try:
        node = json.loads(name.removeprefix("json:"))
    except ValueError:
        return {}
    while isinstance(node, dict) and isinstance(node.get("file"), dict):
        node = node["file"]
    return node if isinstance(node, dict) else {}


def _among(names: Iterable[str], source: Source) -> bool | None:
    verdicts = {is_same(name, source) for name in names}
    if True in verdicts:
        return True
    return None if None in verdicts else False
