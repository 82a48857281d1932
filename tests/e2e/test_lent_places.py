"""``overlay.source`` on real servers: places made beforehand are formatted, used, given back, used again."""

from __future__ import annotations

import pytest

from lab.machines.disk import MEBIBYTE
from tests.e2e.lent import lent
from tests.e2e.matrix import SIZE, Matrix, need
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]

ROOM = SIZE + 4 * MEBIBYTE
"""Of a place, bytes: the disk's content and qcow2's tables."""


@pytest.mark.parametrize("kind", ["nbd", "nbd-tls", "nbd-unix", "iscsi", "iscsi-chap", "block"])
def test_a_place_is_formatted_given_back_and_used_again(stage: Stage, kind: str) -> None:
    need(stage, kind)
    name = f"lent-{kind}"
    machine = stage.machine(stage.lab.disk(kind, name, size=SIZE), name=name)
    base = machine.chain()[0].source
    places = [stage.lab.place(kind, f"{name}-{number}", room=ROOM) for number in range(2)]
    matrix = Matrix(stage, stage.points(machine), {})
    matrix.take("1", **lent(places[0]))
    matrix.take("2", **lent(places[1]))
    assert [layer.source for layer in machine.chain()] == [places[1], places[0], base]
    matrix.delete("1")
    matrix.stop_and_start()
    matrix.take("3", **lent(places[0]))
    assert [layer.source for layer in machine.chain()] == [places[0], places[1], base]
    matrix.delete("2", "3")
    assert [layer.source for layer in machine.chain()] == [base]
    matrix.stop_and_start()
