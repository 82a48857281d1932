"""What is kept is out of the collector's sight, and that is not done for ever and ever."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from controller.telemetry.garbage import STEP, Kept, set_aside


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_growth_is_frozen_by_steps() -> None:
    kept = Kept()
    kept.grown(STEP - 1)
    assert gc.get_freeze_count() == 0
    kept.grown(STEP)
    frozen = gc.get_freeze_count()
    assert frozen > 0
    more = [[number] for number in range(1000)]
    kept.grown(2 * STEP - 1)
    assert gc.get_freeze_count() <= frozen
    kept.grown(2 * STEP)
    assert gc.get_freeze_count() >= frozen + len(more) // 2


def test_what_shrinks_and_grows_again_is_frozen_once() -> None:
    kept = Kept()
    kept.grown(3 * STEP)
    gc.unfreeze()
    for count in (0, STEP, 3 * STEP):
        kept.grown(count)
    assert gc.get_freeze_count() == 0


def test_what_is_there_at_the_beginning_is_frozen() -> None:
    set_aside()
    assert gc.get_freeze_count() > 0
