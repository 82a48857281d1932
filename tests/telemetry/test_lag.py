"""The loop's lag is measured from when a probe was due."""

import asyncio

import pytest

from controller.telemetry.lag import TICK, watch_lag
from controller.telemetry.metrics import Metrics


async def test_what_comes_late_is_observed_as_late() -> None:
    metrics, times = Metrics(), [0.0, TICK, 1.0, 1.0 + 3 * TICK]

    def clock() -> float:
        if not times:
            raise asyncio.CancelledError
        return times.pop(0)

    with pytest.raises(asyncio.CancelledError):
        await watch_lag(metrics, clock=clock)
    shown = dict(line.rsplit(" ", 1) for line in metrics.render().decode().splitlines() if "loop_lag" in line)
    assert float(shown["varve_loop_lag_seconds_count"]) == 2
    assert float(shown["varve_loop_lag_seconds_sum"]) == pytest.approx(2 * TICK)
