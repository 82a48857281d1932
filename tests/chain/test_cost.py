"""The planner copies as few bytes as the exhaustive search, whatever is to go and whatever the sizes are.

VARVE_COST_CASES=200000 tries so many random cases instead of the default.
"""

from __future__ import annotations

import os
import random
from itertools import product

import pytest

from controller.chain.cost import Range, choices
from controller.chain.desired import Direction
from controller.chain.guards import Why
from controller.chain.journal import OperationKind, Point
from controller.chain.plan import Plan
from tests.chain import builders as b
from tests.chain.loop import Loop
from tests.chain.model import Machine
from tests.chain.optimum import Stack, fewest_bytes

K = OperationKind
CASES = int(os.environ.get("VARVE_COST_CASES", "150"))


def run(stack: Stack) -> tuple[Machine, Plan]:
    """Let the planner remove the boundaries of the stack; the others are managed and wanted."""
    depth = len(stack.sizes)
    machine = Machine.with_layers([b.layer(f"l{n}") for n in range(depth)], stack.sizes)
    points: list[Point] = [b.point(f"l{n}", b.owner(str(n))) for n in range(depth - 1)]
    machine.set_record(b.record(*points))
    machine.elsewhere = {b.key(f"l{n}"): "disk vdb of web-2" for n in range(depth) if stack.fixed[n]}
    wants = [b.want(str(n), gone_since=b.NOW if goes else None) for n, goes in enumerate(stack.boundaries)]
    return machine, Loop(machine, wants).run()


def check(stack: Stack) -> None:
    """Same bytes as the optimum, and every boundary gone that had to go."""
    optimum = fewest_bytes(stack)
    machine, found = run(stack)
    if optimum is None:
        assert any(standing.blocked for standing in found.standings), (
            f"{stack}: nothing is said to be in the way"
        )
        return
    assert len(machine.chain) == 1 + stack.boundaries.count(False), f"{stack}: not all is merged"
    assert machine.copied == optimum, f"{stack}: {machine.copied} bytes by {machine.jobs}, could be {optimum}"


def sizes_of(depth: int, rng: random.Random) -> tuple[int, ...]:
    """Sizes with ties, with empty layers, and over many orders of magnitude."""
    scale = rng.choice([1, 3, 1000])
    return tuple(
        rng.choice([0, scale, rng.randint(0, 9 * scale), 10 ** rng.randint(0, 9)]) for _ in range(depth)
    )


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", ["growing", "shrinking", "peak"])
def test_every_set_of_boundaries(depth: int, shape: str) -> None:
    order = {
        "growing": range(1, depth + 1),
        "shrinking": range(depth, 0, -1),
        "peak": [n if n <= depth // 2 else depth - n for n in range(1, depth + 1)],
    }[shape]
    sizes = tuple(100 * n + 1 for n in order)
    for boundaries in product([False, True], repeat=depth - 1):
        check(Stack(sizes, boundaries, (False,) * depth))


def test_random_chains_of_up_to_six_layers() -> None:
    rng = random.Random(20250102)  # noqa: S311 (a repeatable test, not a secret)
    for _ in range(CASES):
        depth = rng.randint(2, 6)
        goes = rng.choice([0.3, 0.6, 0.9])
        boundaries = tuple(rng.random() < goes for _ in range(depth - 1))
        check(Stack(sizes_of(depth, rng), boundaries, (False,) * depth))


def test_random_chains_with_layers_that_others_use() -> None:
    rng = random.Random(20250103)  # noqa: S311
    for _ in range(CASES):
        depth = rng.randint(2, 6)
        boundaries = tuple(rng.random() < 0.7 for _ in range(depth - 1))
        shared_from = rng.randint(1, depth)  # whoever uses a layer uses all below it
        fixed = tuple(n >= shared_from for n in range(depth))
        check(Stack(sizes_of(depth, rng), boundaries, fixed))


def test_the_search_itself() -> None:
    """Three hand-made answers, so that the yardstick is known to be straight."""
    free = (False,) * 3
    assert fewest_bytes(Stack((5, 1, 9), (True, True), free)) == 6  # commit all into the base
    assert fewest_bytes(Stack((5, 9, 1), (True, True), free)) == 6  # keep the middle, by two jobs
    assert fewest_bytes(Stack((9, 1, 5), (False, True), free)) == 1  # the active layer may not be touched
    assert fewest_bytes(Stack((1, 5, 9), (True, False), free)) == 1
    assert fewest_bytes(Stack((1, 1, 9), (True, True), (False, False, True))) == 10  # only pulls are left
    assert fewest_bytes(Stack((1, 1, 9), (False, True), (False, False, True))) is None


@pytest.mark.parametrize(
    ("span", "direction", "kinds", "copies"),
    [
        (Range(1, 3), Direction.CHEAPEST, [(K.COMMIT,)], [90]),
        (Range(1, 3), Direction.PULL, [(K.COMMIT,)], [90]),  # there is no pull into an intermediate layer
        (Range(0, 1), Direction.CHEAPEST, [(K.ACTIVE_COMMIT,), (K.PULL,)], [20, 70]),
        (Range(0, 1), Direction.COMMIT, [(K.ACTIVE_COMMIT,)], [20]),
        (Range(0, 1), Direction.PULL, [(K.PULL,)], [70]),
        (
            Range(0, 2),
            Direction.CHEAPEST,
            [(K.ACTIVE_COMMIT, K.PULL), (K.ACTIVE_COMMIT,), (K.PULL,)],
            [40, 90, 90],
        ),
    ],
)
def test_ways_to_merge_a_range(
    span: Range, direction: Direction, kinds: list[tuple[OperationKind, ...]], copies: list[int]
) -> None:
    chain = b.disk("l0", "l1", "l2", "l3")
    facts = b.facts(chain, sizes=b.sizes(chain, [20, 70, 20, 30]))
    found = choices(span, facts, chain, direction)
    assert [choice.kinds for choice in found] == kinds
    assert [choice.copies for choice in found] == copies


def test_of_equal_ways_the_one_with_a_single_commit() -> None:
    chain = b.disk("l0", "l1", "l2")
    facts = b.facts(chain, sizes=b.sizes(chain, [10, 10, 10]))
    found = choices(Range(0, 2), facts, chain, Direction.CHEAPEST)
    assert [choice.kinds for choice in found] == [(K.ACTIVE_COMMIT,), (K.PULL,), (K.ACTIVE_COMMIT, K.PULL)]


def test_a_layer_that_was_not_measured_costs_nothing() -> None:
    chain = b.disk("l0", "l1")
    facts = b.facts(chain, sizes={})
    assert [choice.copies for choice in choices(Range(0, 1), facts, chain, Direction.CHEAPEST)] == [0, 0]


def test_a_range_that_cannot_be_merged_says_why() -> None:
    _, found = run(Stack((1, 1, 9), (False, True), (False, False, True)))
    blocked = found.standings[1].blocked
    assert blocked is not None
    assert blocked.why is Why.IMAGE_PROTECTED
