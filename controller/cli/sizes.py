"""Sizes, durations and counts for people."""

from collections.abc import Sequence

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: int | None) -> str:
    """``count`` bytes with few digits: ``512 bytes``, ``1.5 MiB``; ``?`` if not known."""
    if count is None:
        return "?"
    value, unit = float(count), 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    digits = 0 if unit == 0 or value >= 99.95 or value == int(value) else 1
    return f"{value:.{digits}f} {_UNITS[unit]}"


def duration(seconds: int) -> str:
    """``45 s``, ``3 min``, ``2 h``."""
    if seconds < 120:
        return f"{seconds} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 layer``, ``3 layers``."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def listed(words: Sequence[str], most: int = 4) -> str:
    """``a, b and c``; what is beyond ``most`` is counted."""
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
