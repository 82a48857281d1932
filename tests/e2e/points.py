"""One disk, the points taken of it, and what each of them held at its moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lab.machines.chain import Layer
from lab.machines.machine import Machine
from lab.reader import Capture, Reader
from lab.storage.image import ImageSource
from tests.e2e.shop import Shop


def shown(source: ImageSource) -> str:
    """An image as VolumeSnapshot.status names it: RBD's tools have no URI with a host, people do."""
    if source.protocol == "rbd":
        return f"rbd://{source.host}:{source.port}/{source.name}"
    return source.uri


@dataclass
class Points:
    """Takes points with kubectl and captures each right after it is Ready.

    A point is its frozen layer and all below it, which nobody writes to any more; so a capture of the layer
    is exact, however long after the moment of the point it is made.
    """

    shop: Shop
    reader: Reader
    machine: Machine
    disk: str = "vda"
    below: int = 0
    """Layers that were there before and are no point of anybody: a base that is only read."""
    kept: dict[str, Capture] = field(default_factory=dict)
    _newest_write: int = 0

    def take(self, name: str, *, rounds: int = 16, **spec: Any) -> None:
        """Let the guest write, take a point, capture it, and prove that it is one moment of the guest."""
        self.machine.wait_writing(rounds=rounds)
        self.shop.snapshot(name, self.machine.name, disk=self.disk, **spec)
        self.shop.ready(name)
        self.remember(name)

    def remember(self, name: str) -> None:
        """Capture a point that is Ready."""
        capture = self.reader.capture(self.machine, self.disk, self._layer(self.shop.get(name)), live=False)
        check = capture.check_writer()
        assert check.ok, check
        self.kept[name] = capture

    def delete(self, *names: str, timeout: int = 30) -> None:
        """Delete points; returns when they are merged and gone."""
        for name in names:
            self.kept.pop(name, None)
        self.shop.delete(*names, timeout=timeout)

    def holders(self) -> dict[str, Layer]:
        """By point: the layer that holds it now, by what its object says."""
        return {name: self._layer(found) for name, found in self.shop.objects().items() if name in self.kept}

    def _layer(self, found: dict[str, Any]) -> Layer:
        source = found["status"]["layer"]["source"]
        chain = self.machine.chain(self.disk)
        layers = [layer for layer in chain if shown(layer.source) == source]
        assert len(layers) == 1, (source, [shown(layer.source) for layer in chain])
        return layers[0]

    def verify(self) -> None:
        """Each kept point, byte for byte, through the running QEMU and through the headers; that each is in
        a layer of its own; the live chain against the persistent one; and the guest."""
        holders = self.holders()
        assert set(holders) == set(self.kept)
        for name, layer in holders.items():
            for live in (True, False):
                found = self.reader.verify(self.kept[name], layer.source, live=live)
                assert found.identical, (name, live, found)
                assert found.bytes_compared == self.kept[name].size > 0
        sources = [layer.source for layer in self.machine.chain(self.disk)]
        assert sources == [layer.source for layer in self.machine.chain(self.disk, inactive=True)]
        points = len(self.kept)
        assert len(sources) == points + 1 + self.below
        assert {layer.source for layer in holders.values()} == set(sources[1 : points + 1])
        self.check_guest()

    def verify_shut_off(self) -> None:
        """Each kept point, and the guest's own data, from the images of a machine that is shut off."""
        for name, layer in self.holders().items():
            assert self.reader.verify(self.kept[name], layer.source, live=False).identical, name
        check = self.reader.capture(self.machine, self.disk, live=False).check_writer()
        assert check.ok, check
        assert check.max_counter >= self._newest_write

    def check_guest(self) -> None:
        """What the guest wrote is all there and in order, and it goes on writing."""
        self.machine.domain.suspend()  # or sectors would change while they are read
        try:
            capture = self.reader.capture(self.machine, self.disk)
        finally:
            self.machine.domain.resume()
        check = capture.check_writer()
        capture.path.unlink()
        assert check.ok, check
        assert check.max_counter > self._newest_write, "the guest stood still, or fell back"
        self._newest_write = check.max_counter
        assert self.machine.progress()[1] == 0, "writes of the guest failed"
        self.machine.wait_writing()
