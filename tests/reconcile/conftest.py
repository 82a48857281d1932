"""Fixtures of the reconciler's tests: a world in memory, whose clock skips what nobody would wait for."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from tests.reconcile.skipping_loop import SkippingLoop
from tests.reconcile.world import World


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """All tests of this directory run in a loop that skips idle time."""
    return {"skipping": SkippingLoop}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """An empty world; whatever was written to Kubernetes in it must have kept to the conventions."""
    world = World()
    yield world
    await world.stop()
    world.check_writes()
