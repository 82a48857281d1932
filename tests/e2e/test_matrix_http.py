"""Bases on a web server: read through, never written to."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.matrix import SIZE, Matrix, every_way
from tests.e2e.stage import AT_ONCE, Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]

KINDS = ("http", "https")


def over_http(stage: Stage, kind: str, title: str, **spec: Any) -> Matrix:
    """A machine whose disk is a file over a base on a web server."""
    name = f"{title}-{kind}"
    machine = stage.machine(stage.lab.disk(kind, name, size=SIZE), name=name)
    points = stage.points(machine)
    points.below = 1
    return Matrix(stage, points, spec)


@pytest.mark.parametrize("kind", KINDS)
def test_every_way(stage: Stage, kind: str) -> None:
    matrix = over_http(stage, kind, "every")
    before = [layer.source for layer in matrix.machine.chain()]
    assert [source.protocol for source in before] == ["file", kind]
    every_way(matrix)
    assert [layer.source for layer in matrix.machine.chain()] == before


@pytest.mark.parametrize("kind", KINDS)
def test_pulled_up_the_base_stays_below(stage: Stage, kind: str) -> None:
    stage.shop.apply(other_class("upwards", merge={**AT_ONCE, "direction": "Pull"}))
    matrix = over_http(stage, kind, "pull", volumeSnapshotClassName="upwards")
    base = matrix.machine.chain()[-1].source
    matrix.take("1", "2")
    top = matrix.machine.chain()[0].source
    matrix.delete("2")
    matrix.delete("1")
    assert [layer.source for layer in matrix.machine.chain()] == [top, base]
    matrix.stop_and_start()
