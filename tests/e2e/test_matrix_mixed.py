"""Chains whose layers are on different kinds of storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lxml import etree

from tests.e2e.lent import lent
from tests.e2e.matrix import ROOM, SIZE, Matrix, every_way, need, places
from tests.e2e.pools import made_pool
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]

Pool = Callable[[str], dict[str, Any]]


@pytest.fixture
def pool(stage: Stage) -> Iterator[Pool]:
    """Makes a storage pool on a server of the lab; gives the spec that puts layers there."""
    connection = stage.host.connection()
    made = []

    def make(kind: str) -> dict[str, Any]:
        name = f"mixed-{kind}"
        made.append(made_pool(connection, _pool_xml(stage, kind, name)))
        return {"overlay": {"pool": name}}

    yield make
    for one in made:
        one.destroy()


def _pool_xml(stage: Stage, kind: str, name: str) -> str:
    """As libvirt's formatstorage.html describes pools of this kind."""
    image = stage.lab.place(kind, "nothing-yet")
    root = etree.Element("pool", type=kind)
    etree.SubElement(root, "name").text = name
    source = etree.SubElement(root, "source")
    etree.SubElement(source, "host", name=image.host, port=str(image.port))
    if kind == "gluster":
        etree.SubElement(source, "dir", path="/")
    etree.SubElement(source, "name").text = image.name.split("/")[0]
    if image.access is not None:
        auth = etree.SubElement(source, "auth", username=image.access.user, type="ceph")
        etree.SubElement(auth, "secret", usage=image.access.usage)
    return etree.tostring(root, encoding="unicode")


def mixed(stage: Stage, base: str, title: str, **spec: Any) -> Matrix:
    """A machine whose disk begins on this kind of storage."""
    need(stage, base)
    machine = stage.machine(stage.lab.disk(base, title, size=SIZE), name=title)
    return Matrix(stage, stage.points(machine), spec)


def protocols(matrix: Matrix) -> list[str]:
    """Of the layers, the active one first."""
    return [layer.source.protocol for layer in matrix.machine.chain()]


def test_files_over_the_network(stage: Stage) -> None:
    matrix = mixed(stage, "nbd", "file-over-nbd", overlay={"directory": str(stage.scratch)})
    every_way(matrix)
    assert protocols(matrix) == ["nbd"]


def test_the_network_over_a_file(stage: Stage) -> None:
    matrix = mixed(stage, "file", "nbd-over-file")
    matrix.places = places(stage, "nbd", "over-file")
    every_way(matrix)
    assert protocols(matrix) == ["file"]


def test_gluster_over_nbd(stage: Stage, pool: Pool) -> None:
    every_way(mixed(stage, "nbd", "gluster-over-nbd", **pool("gluster")))


def test_rbd_over_a_file(stage: Stage, pool: Pool) -> None:
    need(stage, "rbd")
    every_way(mixed(stage, "file", "rbd-over-file", **pool("rbd")))


def test_all_in_one_chain(stage: Stage, pool: Pool) -> None:
    """Each layer on another kind than its neighbours; every one of them is committed into once."""
    for kind in ("rbd", "iscsi"):
        need(stage, kind)
    matrix = mixed(stage, "gluster", "all-in-one")
    lun = stage.lab.place("iscsi", "all-in-one-lun", room=ROOM)
    export = stage.lab.place("nbd", "all-in-one-nbd", room=ROOM)
    matrix.take("1", **lent(lun))
    matrix.take("2", **pool("rbd"))
    matrix.take("3", overlay={"directory": str(stage.scratch)})
    matrix.take("4", **lent(export))
    assert protocols(matrix) == ["nbd", "file", "rbd", "iscsi", "gluster"]
    matrix.stop_and_start()
    assert protocols(matrix) == ["nbd", "file", "rbd", "iscsi", "gluster"]
    matrix.delete("2")
    matrix.delete("4")
    matrix.stop_and_start()
    matrix.delete("1")
    assert protocols(matrix) == ["file", "gluster"]
    matrix.delete("3")
    assert protocols(matrix) == ["gluster"]
    matrix.stop_and_start()
