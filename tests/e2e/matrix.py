"""What the matrix tests share: where each kind of disk puts its layers, and the acts that they go through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from lab.machines.disk import MEBIBYTE
from lab.machines.machine import Machine
from lab.storage.image import ImageSource
from tests.e2e.lent import lent
from tests.e2e.points import Points
from tests.e2e.stage import AT_ONCE, Stage, other_class

KINDS = ("file", "gluster", "nbd", "nbd-tls", "rbd", "iscsi", "block")
SIZE = 4 * MEBIBYTE
"""Of each disk, bytes: enough for the small writer's window, and read in no time."""
ROOM = SIZE + 4 * MEBIBYTE
"""Of a place made beforehand, bytes: the disk's content and qcow2's tables."""

_BESIDE = {"file", "gluster", "rbd"}
"""Kinds that have a place beside an image: a directory, a volume, a pool."""
_PLACES = 3
"""As many points are there at once; one more would have to wait for a place that is given back."""


@dataclass
class Matrix:
    """One disk that goes through the acts. Its VolumeSnapshots say ``spec`` besides their source; with
    ``places``, each layer goes to one of these that is free."""

    stage: Stage
    points: Points
    spec: dict[str, Any]
    places: tuple[ImageSource, ...] = ()

    @property
    def machine(self) -> Machine:
        """The machine of the disk."""
        return self.points.machine

    def take(self, *names: str, **spec: Any) -> None:
        """One point after the other, each captured."""
        for name in names:
            self.points.take(self.named(name), **{**self.spec, **self._free_place(), **spec})

    def _free_place(self) -> dict[str, Any]:
        if not self.places:
            return {}
        used = {layer.source for layer in self.machine.chain()}
        return lent(next(place for place in self.places if place not in used))

    def delete(self, *names: str) -> None:
        """Delete them with one command; then all that are kept are compared."""
        self.points.delete(*(self.named(name) for name in names))
        self.points.verify()

    def named(self, name: str) -> str:
        """Names are of the namespace: those of each machine differ."""
        return f"{self.machine.name}-{name}"

    def stop_and_start(self) -> None:
        """Shut off, compared from the images alone, and started from the persistent definition."""
        self.machine.destroy()
        self.points.verify_shut_off()
        self.machine.start()
        self.points.verify()


def need(stage: Stage, kind: str) -> None:
    """Skip the test where this machine cannot have such disks."""
    reason = stage.lab.why_not(kind)
    if reason is not None:
        pytest.skip(f"{kind}: {reason}")


def on(stage: Stage, kind: str, title: str, *, image_format: str = "qcow2", **spec: Any) -> Matrix:
    """A machine with a disk of this kind, whose layers go beside it or to places of the same kind."""
    need(stage, kind)
    name = f"{title}-{kind}"
    machine = stage.machine(stage.lab.disk(kind, name, size=SIZE, image_format=image_format), name=name)
    return Matrix(stage, stage.points(machine), spec, places(stage, kind, name))


def places(stage: Stage, kind: str, name: str) -> tuple[ImageSource, ...]:
    """Places made beforehand, for a kind of disk that has none beside its images."""
    count = 0 if kind in _BESIDE else _PLACES
    return tuple(stage.lab.place(kind, f"{name}-{number}", room=ROOM) for number in range(count))


def settling(stage: Stage) -> dict[str, Any]:
    """A spec whose deletions wait a moment for each other, so that one job merges them."""
    stage.shop.apply(other_class("in-company", merge={**AT_ONCE, "settleSeconds": 1}))
    return {"volumeSnapshotClassName": "in-company"}


def every_way(matrix: Matrix) -> None:
    """Take three; then delete the newest, the middle and the oldest of three, the newest two at once, and all
    three at once. The machine is stopped and started between."""
    together = settling(matrix.stage)
    matrix.take("1", "2", "3")
    matrix.points.verify()
    matrix.delete("3")  # the newest
    matrix.take("4")
    matrix.delete("2")  # the middle
    matrix.stop_and_start()
    matrix.take("5", **together)
    matrix.delete("1")  # the oldest
    matrix.take("6", **together)
    matrix.delete("5", "6")  # the newest two
    matrix.take("7", "8", **together)
    matrix.delete("4", "7", "8")  # all
    matrix.stop_and_start()
