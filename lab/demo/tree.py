"""The backing chain of a disk as a small picture: each layer, and whose point it holds."""

from __future__ import annotations

from collections.abc import Mapping

from lab.machines.chain import Layer
from lab.machines.machine import Machine
from lab.storage.image import ImageSource


def place(source: ImageSource) -> str:
    """The layer's image, short: the last part of its name, behind its protocol when it is not a file."""
    leaf = source.name.rsplit("/", 1)[-1]
    return leaf if source.protocol == "file" else f"{source.protocol}:{leaf}"


def tree(machine: Machine, owners: Mapping[str, str], disk: str = "vda") -> str:
    """The chain, active layer first. `owners`: for the last part of an image's name, whose point it holds."""
    layers = machine.chain(disk)
    lines = [f"{machine.name} {disk}"]
    for number, layer in enumerate(layers):
        branch = "  " if number == 0 else "  " + "   " * (number - 1) + "`- "
        lines.append(f"{branch}{disk}[{layer.index}] {place(layer.source)}{_note(layer, number, owners)}")
    return "\n".join(lines)


def _note(layer: Layer, number: int, owners: Mapping[str, str]) -> str:
    if number == 0:
        return "   <- the machine writes here"
    owner = owners.get(layer.source.name.rsplit("/", 1)[-1])
    return f"   = {owner}" if owner else ""
