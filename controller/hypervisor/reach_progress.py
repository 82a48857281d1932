"""A guest that gets on proves that the server of its disk lives, when the server itself cannot be asked.

A qemu-nbd with ``--shared=1``, its default, has no room for a question while the machine uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from controller.chain.source import Source
from controller.hypervisor.errors import HypervisorError

_PAUSE = 0.1
"""Seconds between two looks at a guest."""


@dataclass(frozen=True)
class Use:
    """The images of the disks of one running machine, and how to see whether its guest gets on."""

    disks: Mapping[str, tuple[Source, ...]]
    """By target, the active image first."""
    requests: Callable[[], Awaitable[Mapping[str, int]]]
    """How many requests of the guest were completed so far, by target. May raise HypervisorError."""

    async def gets_on(self, targets: Collection[str], *, within: float) -> bool:
        """Whether a request of the guest to one of these disks is completed in the next ``within`` seconds.

        False as well when the machine does not tell: nothing is proved then.
        """
        try:
            async with asyncio.timeout(within):
                before = await self.requests()
                while True:
                    await asyncio.sleep(_PAUSE)  # nothing tells when a request is completed
                    now = await self.requests()
                    if any(now[one] > before[one] for one in targets if one in now and one in before):
                        return True
        except (TimeoutError, HypervisorError):
            return False
