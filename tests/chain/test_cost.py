"""What the ways to merge a range cost, and that the whole loop takes the best of them.

:mod:`tests.chain.test_optimum` holds the choice of the next job against an exhaustive search in many more
cases; here machines are taken through whole chains of jobs, with their journal and their guest.
"""

from __future__ import annotations

import random
from itertools import product

import pytest

from controller.chain.blocked import Why
from controller.chain.cost import Range, choices
from controller.chain.desired import Direction
from controller.chain.journal import OperationKind, Point
from controller.chain.plan import Plan, State
from tests.chain import builders as b
from tests.chain.loop import Loop
from tests.chain.model import Machine
from tests.chain.optimum import Best, Case, Kind, best

K = OperationKind
FREE, FIXED, SHARED = Kind.FREE, Kind.FIXED, Kind.SHARED
CASES = 100


def run(case: Case) -> tuple[Machine, Plan]:
    """Let the planner remove the boundaries of the case; the others are managed and wanted."""
    depth = len(case.sizes)
    machine = Machine.with_layers([b.layer(f"l{n}") for n in range(depth)], case.sizes)
    points: list[Point] = [b.point(f"l{n}", b.owner(str(n))) for n in range(depth - 1)]
    machine.set_record(b.record(*points))
    shared = [f"l{n}" for n in range(depth) if case.kinds[n] is SHARED]
    machine.elsewhere = b.uses(**dict.fromkeys(shared, "disk vdb of web-2"))
    wants = [b.want(str(n), gone_since=b.NOW if goes else None) for n, goes in enumerate(case.goes)]
    return machine, Loop(machine, wants).run()


def check(case: Case) -> None:
    """Same bytes as the optimum, and every boundary gone that could go."""
    optimum = best(case)
    machine, found = run(case)
    left = 1 + case.goes.count(False) + optimum.left
    assert len(machine.chain) == left, f"{case}: {len(machine.chain) - 1} boundaries are left"
    assert machine.copied == optimum.copied, (
        f"{case}: {machine.copied} bytes by {machine.jobs}, could be {optimum}"
    )
    waiting = [one for one in found.standings if one.state is State.LEAVING]
    assert len(waiting) == optimum.left
    assert all(one.blocked for one in waiting), f"{case}: nothing is said to be in the way"


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("shape", ["growing", "shrinking", "peak"])
def test_every_set_of_boundaries(depth: int, shape: str) -> None:
    order = {
        "growing": range(1, depth + 1),
        "shrinking": range(depth, 0, -1),
        "peak": [n if n <= depth // 2 else depth - n for n in range(1, depth + 1)],
    }[shape]
    sizes = tuple(100 * n + 1 for n in order)
    for boundaries in product([False, True], repeat=depth - 1):
        check(Case.plain(sizes, boundaries))


def test_random_chains_with_layers_that_others_use() -> None:
    rng = random.Random(20250103)  # noqa: S311 (a repeatable test, not a secret)
    for _ in range(CASES):
        depth = rng.randint(2, 6)
        boundaries = tuple(rng.random() < 0.7 for _ in range(depth - 1))
        own = rng.randint(1, depth)  # whoever uses a layer uses all below it
        sizes = tuple(rng.choice((0, 1, rng.randint(0, 9), 10 ** rng.randint(0, 9))) for _ in range(depth))
        check(Case(sizes, boundaries, (*(FREE,) * own, *(SHARED,) * (depth - own))))


def test_the_search_itself() -> None:
    """Hand-made answers, so that the yardstick is known to be straight."""
    plain = Case.plain
    assert best(plain((5, 1, 9), (True, True))) == Best(0, pulls=False, copied=6)  # all into the base
    assert best(plain((5, 9, 1), (True, True))) == Best(0, pulls=True, copied=6)  # keep the middle: two jobs
    careful = Case((5, 9, 1), (True, True), (FREE,) * 3, pulls_last=True)
    assert best(careful) == Best(0, pulls=False, copied=14)
    assert best(plain((9, 1, 5), (False, True))) == Best(
        0, pulls=False, copied=1
    )  # the guest's is left alone
    assert best(plain((1, 5, 9), (True, False))) == Best(0, pulls=False, copied=1)
    assert best(plain((1, 5, 9), (False, False))) == Best(0, pulls=False, copied=0)
    base_is_shared = (FREE, FREE, SHARED)
    assert best(Case((1, 1, 9), (True, True), base_is_shared)) == Best(0, pulls=True, copied=10)
    assert best(Case((1, 1, 9), (False, True), base_is_shared)) == Best(1, pulls=False, copied=0)
    commits = Case((1, 2, 4, 9), (True, True, True), (FREE, FREE, FREE, FIXED), Direction.COMMIT)
    assert best(commits) == Best(1, pulls=False, copied=3)
    pulls = Case((1, 2, 9), (True, True), (FREE, FREE, FREE), Direction.PULL, end_known=False)
    assert best(pulls) == Best(1, pulls=True, copied=2)


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
    _, found = run(Case((1, 1, 9), (False, True), (FREE, FREE, SHARED)))
    blocked = found.standings[1].blocked
    assert blocked is not None
    assert blocked.why is Why.IMAGE_PROTECTED
