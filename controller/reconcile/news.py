"""What of a status is worth a write. Pure.

Sizes and counts change all the time and nobody acts upon them: a guest fills its active layer, file systems
settle their books up to half a minute after the last write, others start and stop machines. They are written
with whatever else is, and on their own only when they have come to mean something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from controller.api.reasons import Reason

Json = Mapping[str, Any]

_SIZES = ("allocatedBytes", "totalBytes", "reclaimableBytes", "bytes")
_SMALL = 16 << 20
"""Bytes. Nobody cares how often something smaller has doubled."""

_MEASURED = frozenset({Reason.INSUFFICIENT_SPACE, Reason.PROGRESSING_WITH_RETRY})
"""Reasons whose message has numbers that are measured anew at each look; the second repeats Ready."""


def is_news(before: Json, after: Json) -> bool:
    """Whether something is different that somebody may act upon: anything but a size; a size that has
    doubled or halved; an image that has come near its capacity."""
    return _differs(before, after)


def _differs(before: Any, after: Any) -> bool:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return _objects_differ(before, after)
    if isinstance(before, list) and isinstance(after, list):
        return len(before) != len(after) or any(map(_differs, before, after))
    return bool(before != after)


def _objects_differ(before: Json, after: Json) -> bool:
    names = {*before, *after}
    sizes = {name for name in names if name in _SIZES and not isinstance(before.get(name), Mapping | list)}
    if any(_is_another(before.get(name) or 0, after.get(name) or 0) for name in sizes):
        return True
    if _is_nearly_full(before) != _is_nearly_full(after):
        return True
    return any(
        _differs(_told(before, name), _told(after, name)) if name in before and name in after else True
        for name in names - sizes
    )


def _is_another(before: int, after: int) -> bool:
    less, more = sorted((before, after))
    return more >= max(_SMALL, 2 * less) and more > less


def _is_nearly_full(image: Json) -> bool:
    capacity, allocated = image.get("capacityBytes") or 0, image.get("allocatedBytes") or 0
    return bool(capacity and allocated * 8 >= capacity * 7)


def _told(node: Json, name: str) -> Any:
    """The value; of a message that is made of measurements the words."""
    value = node[name]
    if name == "message" and node.get("reason") in _MEASURED:
        return re.sub(r"\d+", "#", value)
    return value
