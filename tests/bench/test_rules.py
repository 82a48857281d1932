"""The table of fixed rules: each rule does as it is said to, and the docs show what the command prints."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.rules import Case, Chain, Planned, libvirt, measure, nova, one_by_one, proxmox, random_case, table

PERFORMANCE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
# Active first: 2 clusters, 3 (one of them again), 1, and a base of 4 (one of them again).
LAYERS = (0b11, 0b1101, 0b10000, 0b11110000)


def held(chain: Chain) -> list[int]:
    """What is read through each layer that is left."""
    return [_through(chain.layers[at:]) for at in range(len(chain.layers))]


def _through(layers: list[int] | tuple[int, ...]) -> int:
    found = 0
    for layer in layers:
        found |= layer
    return found


@pytest.mark.parametrize(
    ("rule", "goes", "copied"),
    [
        (libvirt, (0,), 2),  # the active layer down
        (libvirt, (1,), 3),
        (libvirt, (2,), 1),
        (libvirt, (2, 1, 0), 1 + 3 + 2),
        (libvirt, (0, 1, 2), 2 + 4 + 5),  # what was merged is copied again
        (nova, (0,), 2),  # up into the active one, but for the cluster that it hides
        (nova, (1,), 3),
        (nova, (2, 1, 0), 1 + 3 + 7 - 1),
        (proxmox, (0,), 2),
        (proxmox, (1,), 1),  # into an intermediate layer
        (proxmox, (2,), 1),  # the oldest: down
        (proxmox, (0, 1, 2), 2 + 1 + 5),
    ],
)
def test_a_rule_copies_what_it_says(
    rule: Callable[[Chain, int], None], goes: tuple[int, ...], copied: int
) -> None:
    chain = one_by_one(rule)(Case(LAYERS, goes))
    assert (chain.copied, chain.jobs) == (copied, len(goes))
    assert held(chain) == [_through(LAYERS[at:]) for at in range(4) if at - 1 not in goes]


@pytest.mark.parametrize(
    ("goes", "pulls_last", "copied", "jobs", "foreseen"),
    [
        ((0,), True, 2, 1, 2),
        ((0, 1, 2), True, 5, 1, 6),  # all into the base, the shared cluster once
        ((0, 2), True, 2 + 1, 2, 3),
        ((2, 1), True, 4, 1, 4),
    ],
)
def test_varve_copies_what_it_plans(
    goes: tuple[int, ...], pulls_last: bool, copied: int, jobs: int, foreseen: int
) -> None:
    planned = Planned(Case(LAYERS, goes), pulls_last)
    chain = planned.run()
    assert (chain.copied, chain.jobs, planned.foreseen) == (copied, jobs, foreseen)
    assert held(chain) == [_through(LAYERS[at:]) for at in range(4) if at - 1 not in goes]


def test_the_same_cases_every_time() -> None:
    drawn = [random_case(random.Random(7)) for _ in range(2)]  # noqa: S311 (repeatable cases, not a secret)
    assert drawn[0] == drawn[1]


def test_the_docs_show_what_the_command_prints() -> None:
    text = PERFORMANCE.read_text(encoding="utf-8")
    shown = re.search(r"<!-- python -m bench.rules -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert shown is not None
    assert shown[1] == table(measure())
