"""The planner leaves as few boundaries as may be and copies as few bytes as any sequence of legal jobs,
whatever is to go, whatever the sizes are and whatever must not be written to.

VARVE_COST_CASES sets how many random chains are tried; ``make test`` tries 200,000.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from itertools import cycle, permutations, product

import pytest

from controller.chain.desired import Direction
from tests.chain.optimum import Case, Kind, best
from tests.chain.walk import Walk

CASES = int(os.environ.get("VARVE_COST_CASES", "20000"))
FREE, FIXED, SHARED = Kind.FREE, Kind.FIXED, Kind.SHARED


def check(case: Case) -> None:
    """The planner does as well as the exhaustive search; what it leaves, it explains."""
    walk = Walk(case)
    found, optimum = walk.run(), best(case)
    same = (found.left, found.copied) == (optimum.left, optimum.copied)
    assert same, f"{case}: {found} by {walk.jobs}, could be {optimum}"
    if case.pulls_last:
        assert found.pulls == optimum.pulls, f"{case}: a pull for nothing: {walk.jobs}"
    if found.left:
        assert len(walk.blocked()) == found.left, f"{case}: not every boundary that stays says why"


def situations() -> list[tuple[Direction, bool, bool]]:
    """Direction, whether the end of the chain is known, whether pulls come last, where it matters."""
    cheapest = product([Direction.CHEAPEST], [True, False], [True, False])
    return [
        *cheapest,
        (Direction.PULL, True, False),
        (Direction.PULL, False, False),
        (Direction.COMMIT, True, False),
    ]


def every_case(depth: int) -> Iterator[Case]:
    """Every set of boundaries and of fixed layers, with the layers from any one down used by others. Sizes
    change from case to case: all orders of ``depth`` different ones come in turn."""
    orders = cycle([tuple(3**n for n in order) for order in permutations(range(depth))])
    for goes in product([False, True], repeat=depth - 1):
        if not any(goes):
            continue
        for kinds in every_kind(depth):
            for direction, end_known, pulls_last in situations():
                yield Case(next(orders), goes, kinds, direction, end_known, pulls_last)


def every_kind(depth: int) -> Iterator[tuple[Kind, ...]]:
    """Whoever uses a layer uses all below it."""
    for own in range(1, depth + 1):
        for fixed in product([FREE, FIXED], repeat=own - 1):
            yield (FREE, *fixed, *(SHARED,) * (depth - own))


def random_case(rng: random.Random) -> Case:
    """Sizes with ties, with empty layers, and over many orders of magnitude; any layer may be special."""
    depth = rng.randint(2, 8)
    scale = rng.choice((1, 3, 1000))
    sizes = [rng.choice((0, scale, rng.randrange(9 * scale), 10 ** rng.randrange(10))) for _ in range(depth)]
    likely = rng.choice((0.3, 0.6, 0.9))
    special = rng.choice((0.0, 0.1, 0.4))
    kinds = [FIXED if rng.random() < special else FREE for _ in range(depth)]
    own = rng.randint(0, depth) if rng.random() < special else depth
    kinds[own:] = [SHARED] * (depth - own)
    return Case(
        tuple(sizes),
        tuple(rng.random() < likely for _ in range(depth - 1)),
        tuple(kinds),
        rng.choice((Direction.CHEAPEST, Direction.CHEAPEST, Direction.COMMIT, Direction.PULL)),
        end_known=rng.random() < 0.8,
        pulls_last=rng.random() < 0.5,
    )


@pytest.mark.parametrize("depth", [2, 3, 4, 5, 6])
def test_every_chain(depth: int) -> None:
    for case in every_case(depth):
        check(case)


def test_random_chains_of_up_to_eight_layers() -> None:
    rng = random.Random(20250102)  # noqa: S311 (a repeatable test, not a secret)
    for _ in range(CASES):
        check(random_case(rng))
