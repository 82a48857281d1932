"""Every kind of storage: points are taken and merged away in every order while the guest writes."""

from __future__ import annotations

import pytest

from tests.e2e.matrix import KINDS, every_way, on
from tests.e2e.stage import AT_ONCE, Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]


@pytest.mark.parametrize("kind", KINDS)
def test_every_way(stage: Stage, kind: str) -> None:
    matrix = on(stage, kind, "every")
    base = matrix.machine.chain()[0].source
    every_way(matrix)
    (left,) = matrix.machine.chain()
    assert left.source == base, "commits end on the image that the disk began with"


@pytest.mark.parametrize("kind", KINDS)
def test_pulled_up_when_the_class_says_so(stage: Stage, kind: str) -> None:
    stage.shop.apply(other_class("upwards", merge={**AT_ONCE, "direction": "Pull"}))
    matrix = on(stage, kind, "pull", image_format="raw", volumeSnapshotClassName="upwards")
    matrix.take("1", "2")
    top = matrix.machine.chain()[0].source
    matrix.delete("2")
    matrix.delete("1")
    (left,) = matrix.machine.chain()
    assert left.source == top, "pulls end on the newest layer"
    matrix.stop_and_start()
