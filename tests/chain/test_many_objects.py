"""What a plan costs grows as the number of objects does, and not with its square: who has many of them must
not make others wait. Counted in calls, which are the same on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from controller.chain.circumstances import Circumstances
from controller.chain.desired import Want
from controller.chain.forecast import forecast
from controller.chain.journal import Attempt, DiskJournal, OperationKind, Removal
from controller.chain.planner import plan
from tests.chain import builders as b

Scene = Callable[[int], tuple[DiskJournal, list[Want]]]
LAYERS = ("l2", "l1", "l0")


def names(count: int) -> list[str]:
    return [f"n-{number:04}" for number in range(count)]


def pending(count: int) -> tuple[DiskJournal, list[Want]]:
    attempts = tuple(Attempt(f"uid-{name}", 2) for name in names(count))
    return b.record(attempts=attempts), [b.want(name) for name in names(count)]


def held(count: int) -> tuple[DiskJournal, list[Want]]:
    owners = [b.owner(name) for name in names(count)]
    return b.record(b.point("l2", *owners)), [b.want(one) for one in owners]


def leaving(count: int) -> tuple[DiskJournal, list[Want]]:
    record, wants = held(count)
    return record, [replace(one, deleted_at=b.NOW) for one in wants]


def half_leaving(count: int) -> tuple[DiskJournal, list[Want]]:
    record, wants = held(count)
    return record, [replace(one, deleted_at=b.NOW) if at % 2 else one for at, one in enumerate(wants)]


def retained(count: int) -> tuple[DiskJournal, list[Want]]:
    record, wants = leaving(count)
    return record, [replace(one, merge=False) for one in wants]


def named_anew(count: int) -> tuple[DiskJournal, list[Want]]:
    """A rebuilt cluster: the same names with other UIDs."""
    record, _ = held(count)
    return record, [b.want(b.owner(name, f"new-{name}")) for name in names(count)]


def taking(count: int) -> tuple[DiskJournal, list[Want]]:
    owners = tuple(b.owner(name) for name in names(count))
    begun = b.operation(OperationKind.TAKE, "l2", "l1", owners=owners)
    return b.record(operation=begun), [b.want(one) for one in owners]


def merging(count: int) -> tuple[DiskJournal, list[Want]]:
    record, wants = leaving(count)
    owners = tuple(one.owner for one in wants)
    return replace(record, operation=b.operation(OperationKind.COMMIT, "l0", "l1", owners=owners)), wants


def removing(count: int) -> tuple[DiskJournal, list[Want]]:
    owners = tuple(b.owner(name) for name in names(count))
    wants = [b.want(one, gone_since=b.NOW) for one in owners]
    return b.record(removals=(Removal(b.layer("gone"), owners=owners),)), wants


def adopting(count: int) -> tuple[DiskJournal, list[Want]]:
    return b.record(), [b.want(name, adopt="/images/l1") for name in names(count)]


SCENES = [
    pending,
    held,
    leaving,
    half_leaving,
    retained,
    named_anew,
    taking,
    merging,
    removing,
]


def calls(work: Callable[[], object]) -> int:
    """How many calls, of Python and of C, it takes."""
    count = 0

    def counted(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def cost(scene: Scene, count: int, of: Callable[..., object]) -> int:
    record, wants = scene(count)
    seen = b.observation(b.facts(b.disk(*LAYERS)), records=[record])
    return calls(lambda: of(seen, wants, Circumstances(now=b.NOW)))


@pytest.mark.parametrize("of", [plan, forecast])
@pytest.mark.parametrize("scene", SCENES)
def test_twice_as_many_objects_cost_twice_as_much(scene: Scene, of: Callable[..., object]) -> None:
    few, many = cost(scene, 100, of), cost(scene, 400, of)
    assert many < 4.4 * few
