"""Long work in pieces, so that nothing else waits for its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")

PIECE_SECONDS = 0.01
"""So long one piece takes the loop for itself."""

WIDTH = 16
"""As many as the API server is asked at a time."""


async def in_pieces(items: Iterable[T], *, clock: Callable[[], float] = perf_counter) -> AsyncIterator[T]:
    """The items; everybody else has a turn whenever a piece is over."""
    until = clock() + PIECE_SECONDS
    for item in items:
        yield item
        if clock() >= until:
            await asyncio.sleep(0)
            until = clock() + PIECE_SECONDS


async def side_by_side(works: Iterable[Coroutine[Any, Any, None]], *, width: int = WIDTH) -> None:
    """Run them all, so many at a time, and nothing more once one has failed: its error is raised."""
    running: set[asyncio.Task[None]] = set()
    try:
        for work in works:
            running.add(asyncio.create_task(work))
            if len(running) >= width:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                _raise_of(done)
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            _raise_of(done)
    finally:
        for task in running:
            task.cancel()


def _raise_of(done: Iterable[asyncio.Task[None]]) -> None:
    for task in done:
        task.result()
