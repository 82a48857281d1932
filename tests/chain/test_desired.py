"""Protected patterns, and who decides about a shared point."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controller.chain.desired import Policy
from controller.chain.source import Source
from controller.chain.upkeep import upkeep
from tests.chain import builders as b


@pytest.mark.parametrize(
    ("pattern", "path", "protected"),
    [
        ("/golden/*", "/golden/a/b.qcow2", True),
        ("/golden/*", "/goldena", False),
        ("*.qcow2", "/x/a.qcow2", True),
        ("*", "/anything", True),
        ("/a*b*c", "/a-b-c", True),
        ("/a*b*c", "/a-c-b", False),
        ("/ab*ba", "/aba", False),
        ("/x[1].qcow2", "/x1.qcow2", False),
        ("/x[1].qcow2", "/x[1].qcow2", True),
        ("/x?.qcow2", "/x1.qcow2", False),
        ("/exact", "/exact", True),
        ("/exact", "/exact2", False),
    ],
)
def test_only_the_star_is_special(pattern: str, path: str, protected: bool) -> None:
    assert (Policy(protected=(pattern,)).protects(Source.file(path)) == pattern) is protected


def test_one_who_retains_is_enough_for_a_shared_layer_to_stay() -> None:
    gone = b.NOW - timedelta(hours=1)
    record = b.record(b.point("a", b.owner("keeper"), b.owner("merger")))
    wants = [b.want("keeper", gone_since=gone, merge=False), b.want("merger", gone_since=gone)]
    kept = upkeep(record, wants, b.disk("a", "base"))
    assert kept.points == (), "nobody owns the boundary any more, and it is not ours to merge"
    assert kept.images == record.images
