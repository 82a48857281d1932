"""B5: a merge that takes the bitmaps of checkpoints along goes on; one that loses them says what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.chain.blocked import Why
from controller.chain.cost import Choice, Range
from controller.chain.desired import Policy
from controller.chain.disk import Disk, Layer
from controller.chain.journal import OperationKind
from controller.chain.marks import Mark, MarkKind
from controller.chain.merge_guards import MergeCase, bitmap_guard
from controller.chain.qcow2 import Inside
from tests.chain import builders as b
from tests.chain.verdicts import says

K = OperationKind
CHAIN = b.disk("top", "o2", "o1", "base")
BASE = CHAIN.layers[3]
FULL = Mark(MarkKind.CHECKPOINT, "full one", {"vda": frozenset({b.layer("o1").source.footprint})})
GONE = replace(FULL, images={"vda": frozenset({"file:/images/merged-away"})})
DOWN = Choice(Range(1, 3), 3, 0, (K.COMMIT,))
ACTIVE = Choice(Range(0, 3), 3, 0, (K.ACTIVE_COMMIT,))
UP = Choice(Range(0, 3), 0, 0, (K.PULL,))


def case(
    way: Choice,
    mark: Mark = FULL,
    *,
    chain: Disk = CHAIN,
    version: int | None = 3,
    ours: tuple[str, ...] = ("top", "o2", "o1"),
) -> MergeCase:
    facts = b.facts(chain)
    inside = {} if version is None else {BASE.key: Inside(version)}
    seen = b.observation(facts, records=[b.record(images=ours)], marks=(mark,), inside=inside)
    return MergeCase(seen, facts, chain, way, Policy())


RAW = replace(CHAIN, layers=(*CHAIN.layers[:3], Layer(BASE.source, "raw", BASE.index)))


@pytest.mark.parametrize("way", [DOWN, ACTIVE, UP])
@pytest.mark.parametrize("mark", [FULL, GONE])
def test_an_image_that_holds_bitmaps_takes_them_over(way: Choice, mark: Mark) -> None:
    assert bitmap_guard(case(way, mark)) is None


@pytest.mark.parametrize("way", [DOWN, ACTIVE])
@pytest.mark.parametrize("mark", [FULL, GONE])
@pytest.mark.parametrize(
    ("chain", "version", "words"),
    [(RAW, None, "raw"), (CHAIN, 2, "compat=0.10"), (CHAIN, None, "cannot be told")],
    ids=["raw", "old", "unknown"],
)
def test_one_that_holds_none_is_not_written_to(
    way: Choice, mark: Mark, chain: Disk, version: int | None, words: str
) -> None:
    found = bitmap_guard(case(way, mark, chain=chain, version=version))
    delete = "virsh checkpoint-delete web-1 'full one'"
    says(found, Why.UNSUPPORTED_TOPOLOGY, words, "/images/base", "incremental backup", delete, "full one")


@pytest.mark.parametrize("chain", [RAW, CHAIN])
def test_a_pull_leaves_them_where_they_are(chain: Disk) -> None:
    assert bitmap_guard(case(UP, chain=chain, version=None)) is None


def test_what_lies_below_all_bitmaps_is_merged_as_ever() -> None:
    newer = replace(FULL, images={"vda": frozenset({b.layer("top").source.footprint})})
    assert bitmap_guard(case(DOWN, newer, chain=RAW)) is None
    assert bitmap_guard(case(ACTIVE, newer, chain=RAW)) is not None


def test_an_image_that_was_active_since_holds_them_already() -> None:
    """Whoever made it: libvirt has put one there."""
    into = Choice(Range(1, 2), 2, 0, (K.COMMIT,))
    assert bitmap_guard(case(into, version=None, ours=())) is None
    assert bitmap_guard(case(into, GONE, version=None, ours=())) is not None
    assert bitmap_guard(case(into, GONE, version=None, ours=("o1",))) is None


def test_a_checkpoint_of_another_disk_and_a_snapshot_are_not_its_business() -> None:
    assert bitmap_guard(case(DOWN, replace(FULL, images={"vdb": frozenset()}), chain=RAW)) is None
    assert bitmap_guard(case(DOWN, replace(FULL, kind=MarkKind.SNAPSHOT), chain=RAW)) is None
