"""``overlay.source`` on real servers: places made beforehand are formatted, used, given back, used again."""

from __future__ import annotations

import pytest

from lab.machines.disk import MEBIBYTE
from lab.storage.image import ImageSource
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


@pytest.mark.parametrize("kind", ["gluster", "rbd"])
def test_an_image_that_is_named_is_not_made(stage: Stage, kind: str) -> None:
    """Where images are made by their name, nobody would remove a named one: it must be there."""
    need(stage, kind)
    name = f"named-{kind}"
    machine = stage.machine(stage.lab.disk(kind, name, size=SIZE), name=name)
    stage.shop.snapshot(name, name, **lent(stage.lab.place(kind, f"{name}-o", room=ROOM)))
    assert "content: Prepared" in stage.shop.waits_for(name, "OverlayUnusable")
    assert len(machine.chain()) == 1
    images = stage.lab.gluster.volume().images() if kind == "gluster" else stage.lab.rbd.images()
    assert not any(image.startswith(f"{name}-o") for image in images)


@pytest.mark.parametrize("kind", ["file", "gluster", "nbd-tls", "rbd", "iscsi-chap", "block"])
def test_an_overlay_that_was_prepared(stage: Stage, kind: str) -> None:
    """A wrong one is refused with words that say what is wrong; put right, it is used and given back."""
    need(stage, kind)
    name = f"prepared-{kind}"
    machine = stage.machine(stage.lab.disk(kind, name, size=SIZE), name=name)
    base = machine.chain()[0].source
    place = (
        ImageSource.file(stage.scratch / f"{name}.qcow2")
        if kind == "file"
        else stage.lab.place(kind, f"{name}-o", room=ROOM)
    )
    matrix = Matrix(stage, stage.points(machine), {})
    if kind not in {"gluster", "rbd"}:
        place.create("qcow2", SIZE - MEBIBYTE, (base, "qcow2"))
    stage.shop.snapshot(matrix.named("0"), name, **lent(place, "Prepared"))
    stage.shop.waits_for(matrix.named("0"), "OverlayUnusable")
    stage.shop.delete(matrix.named("0"))
    assert [layer.source for layer in machine.chain()] == [base]
    place.create("qcow2", SIZE, (base, "qcow2"))
    matrix.take("1", **lent(place, "Prepared"))
    assert [layer.source for layer in machine.chain()] == [place, base]
    matrix.stop_and_start()
    matrix.delete("1")
    assert [layer.source for layer in machine.chain()] == [base]
    matrix.stop_and_start()
