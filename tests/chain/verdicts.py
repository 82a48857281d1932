"""What a guard said."""

from __future__ import annotations

from controller.chain.blocked import Blocked, Why


def says(found: Blocked | None, why: Why, *words: str) -> None:
    """The verdict has this reason, and its message names the thing and what to do."""
    assert found is not None
    assert found.why is why
    for word in words:
        assert word in found.whole, f"{word!r} is not in {found.message!r}"
