"""Every kind of storage: points are taken and merged away in every order while the guest writes."""

from __future__ import annotations

import pytest

from tests.e2e.matrix import KINDS, SIZE, Matrix, every_way, need, place
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]


@pytest.mark.parametrize("kind", KINDS)
def test_every_way(stage: Stage, kind: str) -> None:
    need(stage, kind)
    name = f"every-{kind}"
    machine = stage.machine(stage.lab.disk(kind, name, size=SIZE), name=name)
    base = machine.chain()[0].source
    matrix = Matrix(stage, stage.points(machine), place(stage, kind))
    every_way(matrix)
    (left,) = machine.chain()
    assert left.source == base, "commits end on the image that the disk began with"
