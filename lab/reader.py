"""Reading points of a disk, byte for byte: from the image files and through the running QEMU.

A point's content is what its layer and all below it show. It is captured into a sparse raw file when it is
taken and compared with what the chain shows later. Two ways lead there:

- `live`: through the QEMU that has the disk open, which exports the layer's node over NBD on a unix socket.
  Sees what the guest sees, also while blocks are in QEMU's caches and while jobs run.
- otherwise: qemu-img opens the layer and follows the headers, as any other program would (with credentials,
  which no header names, where a server asks for them). For layers that nobody writes (frozen ones, and any
  layer of a machine that is shut off).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt_qemu

from lab.errors import LabError
from lab.machines.chain import Layer
from lab.machines.machine import Machine
from lab.machines.writer import WriterCheck
from lab.storage.access import Access
from lab.storage.headers import opening
from lab.storage.image import ImageSource, run_qemu_tool

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Capture:
    """The content of one point: `path` is a sparse raw file of `size` bytes."""

    machine: Machine
    disk: str
    source: ImageSource
    path: Path
    size: int
    sha256: str

    def check_writer(self) -> WriterCheck:
        """Whether it is what the guest wrote up to some moment; `max_counter` tells which."""
        with _mapped(self.path) as content:
            return self.machine.check(content, self.disk)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether two contents are the same, and the first byte where they are not (bytes)."""

    identical: bool
    first_difference: int | None
    bytes_compared: int


class Reader:
    """Captures into one directory. `access_of` tells what the server of an image asks for."""

    def __init__(self, directory: Path, access_of: Callable[[ImageSource], Access | None]) -> None:
        self._directory = directory
        self._access_of = access_of
        self._live = threading.Lock()  # a QEMU has one NBD server

    def capture(
        self, machine: Machine, disk: str, layer: Layer | ImageSource | None = None, *, live: bool = True
    ) -> Capture:
        """Read a point: the content of `layer` (default: the active one) and all below it.

        The layer may be given by its source, which outlives its index. Raises LabError if the chain has none
        such.
        """
        found = _find(machine, disk, layer)
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{machine.name}-{disk}-{uuid.uuid4().hex[:12]}.raw"
        if live:
            with self._live, _exported(machine, found) as uri:
                _convert(["-f", "raw", uri], path)
        else:
            _convert(self._opening(machine, disk, found), path)
        return Capture(machine, disk, found.source, path, path.stat().st_size, _sha256(path))

    def _opening(self, machine: Machine, disk: str, layer: Layer) -> list[str]:
        """How qemu-img opens it: by itself, unless libvirt shows a server that asks for credentials."""
        if any(self._access_of(one.source) for one in machine.chain(disk)):
            return opening(layer.source, layer.image_format, self._access_of)
        return layer.source.tool_arguments(layer.image_format)

    def verify(
        self, capture: Capture, layer: Layer | ImageSource | None = None, *, live: bool = True
    ) -> Comparison:
        """Read the point again and compare all of it with the capture.

        `layer`: what holds the point now, by default the same image as when it was captured. After a merge it
        may be another: the lower layer after a commit, the upper after a pull.
        """
        again = self.capture(capture.machine, capture.disk, layer or capture.source, live=live)
        try:
            return compare(capture.path, again.path)
        finally:
            again.path.unlink()


def compare(left: Path, right: Path) -> Comparison:
    """Compare two files of raw content, all of it.

    A different size is a difference at the end of the shorter.
    """
    shorter = min(left.stat().st_size, right.stat().st_size)
    with _mapped(left) as one, _mapped(right) as other:
        for start in range(0, shorter, _CHUNK):
            end = min(start + _CHUNK, shorter)
            if one[start:end] != other[start:end]:
                at = next(offset for offset in range(start, end) if one[offset] != other[offset])
                return Comparison(identical=False, first_difference=at, bytes_compared=at)
    same_size = left.stat().st_size == right.stat().st_size
    return Comparison(same_size, None if same_size else shorter, shorter)


def _find(machine: Machine, disk: str, layer: Layer | ImageSource | None) -> Layer:
    """The layer as it is in the chain now: its index changes when the machine starts again or migrates."""
    chain = machine.chain(disk)
    if layer is None:
        return chain[0]
    source = layer.source if isinstance(layer, Layer) else layer
    for found in chain:
        if found.source == source:
            return found
    raise LabError(
        f"{source.uri} is not in the chain of {machine.name} {disk}: {[one.source.uri for one in chain]}"
    )


def _convert(opened: list[str], path: Path) -> None:
    """Copy the content, leaving holes for zeros. -U: the image may be open in a QEMU. -m 1: with several
    reads at once QEMU 7.2 can wait for ever for one of a base on a web server (measured)."""
    run_qemu_tool("qemu-img", "convert", "-U", "-m", "1", "-O", "raw", *opened, str(path))


@contextmanager
def _exported(machine: Machine, layer: Layer) -> Iterator[str]:
    """Have the machine's QEMU serve one layer's node, read-only, and give its URI."""
    socket = machine.host.layout.directory / f"read-{uuid.uuid4().hex[:8]}.sock"
    address = {"type": "unix", "data": {"path": str(socket)}}
    node = _node_name(machine, layer)
    _qmp(machine, "nbd-server-start", addr=address)
    try:
        export = {"id": "lab-read", "type": "nbd", "node-name": node, "name": "point", "writable": False}
        _qmp(machine, "block-export-add", **export)
        yield f"nbd+unix:///point?socket={socket}"
    finally:
        _qmp(machine, "nbd-server-stop")
        socket.unlink(missing_ok=True)


def _node_name(machine: Machine, layer: Layer) -> str:
    """QEMU's node of a layer.

    libvirt numbers its nodes as it does layers; newer ones make no format node for raw.
    """
    names = {node["node-name"] for node in _qmp(machine, "query-named-block-nodes", flat=True)}
    for name in (f"libvirt-{layer.index}-format", f"libvirt-{layer.index}-storage"):
        if name in names:
            return name
    raise LabError(f"QEMU of {machine.name} has no node of layer {layer.index}: {sorted(names)}")


def _qmp(machine: Machine, command: str, **arguments: Any) -> Any:
    """One command to QEMU's monitor. Raises LabError with QEMU's words."""
    request: dict[str, Any] = {"execute": command}
    if arguments:
        request["arguments"] = arguments
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(machine.domain, json.dumps(request), 0))
    if "error" in answer:
        raise LabError(f"{command}: {answer['error']['desc']}")
    return answer["return"]


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
