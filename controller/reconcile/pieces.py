"""Long work in pieces, so that nothing else waits for its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

PIECE_SECONDS = 0.01
"""So long one piece takes the loop for itself."""


async def in_pieces(items: Iterable[T], *, clock: Callable[[], float] = perf_counter) -> AsyncIterator[T]:
    """The items; everybody else has a turn whenever a piece is over."""
    until = clock() + PIECE_SECONDS
    for item in items:
        yield item
        if clock() >= until:
            await asyncio.sleep(0)
            until = clock() + PIECE_SECONDS
