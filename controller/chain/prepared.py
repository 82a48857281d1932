"""An overlay that was made beforehand: what it must be before a machine may write to it.

libvirt takes whatever parses as qcow2 (measured): with the name of another image below it the machine is
right until its next start and corrupt after it, and with a smaller size the guest's disk shrinks at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.chain.backing_name import meant
from controller.chain.disk import Layer
from controller.chain.source import Source


@dataclass(frozen=True)
class Examined:
    """What was found in an image. ``flaws`` are reasons against it that are in it alone, as phrases."""

    capacity: int
    """Virtual size, bytes."""
    backing: str
    """The words of the header that name the image below; empty when there are none."""
    backing_format: str
    empty: bool
    """No cluster is allocated: everything is read from below."""
    flaws: tuple[str, ...] = ()


def fault(found: Examined, overlay: Source, active: Layer, capacity: int) -> str | None:
    """What is wrong with a prepared overlay for a disk of ``capacity`` bytes, or None; for people."""
    below = meant(found.backing, overlay, found.backing_format)
    is_active = below is not None and _is_part(below, active.source)
    named = f"names {found.backing} below it" if found.backing else "names no image below it"
    form = f"says {found.backing_format}" if found.backing_format else "does not say the format"
    size = found.capacity
    wrong = [
        (not is_active, f"its header {named}, and the active layer is {active.source.uri}"),
        (
            found.backing_format != active.format,
            f"its header {form} of the image below it, which is {active.format} (qemu-img create -F)",
        ),
        (size != capacity, f"its virtual size is {size} bytes and the disk has {capacity}"),
        (not found.empty, "it holds data already, which the guest would read instead of its own"),
    ]
    return next(iter((*found.flaws, *(text for is_wrong, text in wrong if is_wrong))), None)


def _is_part(named: Source, active: Source) -> bool:
    """The same image, by hosts that the active layer is reached by too (a header may leave them out). No way
    is known to name a part of a container, or an image that needs a query."""
    if named.footprint != active.footprint or active.is_part or active.query:
        return False
    if active.type != "network":
        return True
    known = {host.identity(active.protocol) for host in active.hosts}
    return {host.identity(active.protocol) for host in named.hosts} <= known
