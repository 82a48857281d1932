"""Patterns in which only ``*`` is special: it stands for any characters, none included, ``/`` too."""


def matches(pattern: str, text: str) -> bool:
    """Say whether the whole ``text`` fits ``pattern``; case matters, and ``?`` and ``[`` mean themselves.

    Takes time linear in the text for each literal part, so no pattern can make it slow.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    last = rest.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for literal in rest:
        found = text.find(literal, position, end)
        if found < 0:
            return False
        position = found + len(literal)
    return True


def matches_any(patterns: tuple[str, ...], text: str) -> bool:
    """Say whether ``text`` fits one of ``patterns``; no pattern at all fits nothing."""
    return any(matches(pattern, text) for pattern in patterns)
