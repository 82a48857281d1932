"""How late the event loop comes to what is due. Everything in the process waits so long at least."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controller.telemetry.metrics import Metrics

TICK = 0.1
"""Seconds between two probes. A wake-up costs some 20 us."""


async def watch_lag(metrics: Metrics, *, clock: Callable[[], float] | None = None) -> None:
    """Observe it until cancelled; ``clock`` is the loop's, in seconds."""
    now = clock or asyncio.get_running_loop().time
    while True:
        due = now() + TICK
        await asyncio.sleep(TICK)
        metrics.loop_lag.observe(max(0.0, now() - due))
