"""Listings of places, one at a time for each: libvirt has one pool for a place, and making it reads it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from controller.hypervisor.places import Place
from controller.hypervisor.storage import Listing


class Listings:
    """Use from one event loop only."""

    def __init__(self, read: Callable[[Place], Awaitable[Listing]]) -> None:
        self._read = read
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._due: dict[str, asyncio.Task[Listing]] = {}
        """Listings that have not begun, by place."""

    def lock(self, place: Place) -> asyncio.Lock:
        """Held by whatever opens a pool on the place."""
        return self._locks[place.key]

    async def of(self, place: Place) -> Listing:
        """What is in ``place``, by a listing that begins after this call: all who wait for one share it. Its
        time grows with the number of images, and many merges end in one directory at once."""
        listing = self._due.get(place.key)
        if listing is None:
            listing = self._due[place.key] = asyncio.get_running_loop().create_task(self._begin(place))
            # A failure when all who waited were cancelled has no reader: mark it as seen.
            listing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(listing)

    async def _begin(self, place: Place) -> Listing:
        async with self.lock(place):
            del self._due[place.key]  # whoever asks from now on needs the next one
            return await self._read(place)
