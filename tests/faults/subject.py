"""A machine whose libvirtd is killed: its points, its guest's own count, and what its QEMU has open."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
from lxml import etree

from lab import process
from lab.deadline import wait_until
from lab.machines.disk import MEBIBYTE
from lab.machines.machine import Machine
from lab.machines.monitor import Monitor
from lab.storage.image import ImageSource
from tests.e2e.lent import lent
from tests.e2e.points import Points
from tests.e2e.stage import Stage

SIZE = 4 * MEBIBYTE
ROOM = SIZE + 4 * MEBIBYTE
STORED = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
OUT_OF_STEP = "LibvirtOutOfStep"
WITHIN = 90
"""Seconds for work that has no event to wait for: a connection is made again within 30 s."""


def opened(machine: Machine) -> dict[str, list[str]]:
    """By disk: last parts of the names of the images that QEMU has in its chain, top to base. QEMU is asked
    itself, because libvirt may not know."""
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(machine.domain, '{"execute": "query-block"}', 0))
    return _chains(machine, answer["return"])


def _chains(machine: Machine, blocks: list[dict[str, Any]]) -> dict[str, list[str]]:
    found = {}
    for disk, block in zip(machine.disks, blocks, strict=True):
        names, image = [], block["inserted"]["image"]
        while image:
            names.append(_leaf(image["filename"]))
            image = image.get("backing-image")
        found[disk] = names
    return found


def _leaf(name: str) -> str:
    if name.startswith("json:"):
        at = json.loads(name.removeprefix("json:"))
        at = at.get("file", at)
        name = at.get("filename") or at.get("path") or at.get("export") or ""
    return name.rsplit("/", 1)[-1]


def leaves(machine: Machine, disk: str, *, inactive: bool = False) -> list[str]:
    """Last parts of the names of the images of a disk, as libvirt shows it."""
    return [layer.source.name.rsplit("/", 1)[-1] for layer in machine.chain(disk, inactive=inactive)]


def define_chains(machine: Machine, chains: dict[str, list[str]]) -> None:
    """Let the stored definition name these images, top to base, which it names already among others."""
    root = etree.fromstring(machine.domain.XMLDesc(STORED))
    for disk in root.iterfind("devices/disk"):
        target = disk.find("target").get("dev")
        known = {
            layer.source.name.rsplit("/", 1)[-1]: layer for layer in machine.chain(target, inactive=True)
        }
        layers = [known[name] for name in chains[target]]
        for old in (*disk.findall("source"), *disk.findall("backingStore")):
            disk.remove(old)
        disk.set("type", layers[0].source.disk_type)
        disk.find("driver").addnext(layers[0].source.to_xml())
        element = disk
        for layer in layers[1:]:
            element = etree.SubElement(element, "backingStore", type=layer.source.disk_type)
            etree.SubElement(element, "format", type=layer.image_format)
            element.append(layer.source.to_xml())
        etree.SubElement(element, "backingStore")
    machine.host.connection().defineXML(etree.tostring(root, encoding="unicode"))


def unlinked(stage: Stage, machines: Iterable[Machine]) -> list[str]:
    """Images that a QEMU has open and that have no name any more. Of gluster's, its brick has them open."""
    nameless = (" (deleted)", "/.glusterfs/unlink/")
    return [
        f"{pid}: {target}"
        for pid in _holders(stage, machines)
        for target in _files(pid)
        if any(sign in target for sign in nameless) and stage.lab.directory.name in target
    ]


def _holders(stage: Stage, machines: Iterable[Machine]) -> Iterator[int]:
    for machine in machines:
        if (qemu := machine.qemu()) is not None:
            yield qemu.pid
    if stage.lab.session.state().notes.get("gluster"):
        yield stage.lab.gluster.volume().brick_record().pid


def _files(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry))  # noqa: PTH115 - "(deleted)" is no part of a path
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


@dataclass
class Subject:
    """One machine of some disks of one kind, and everything that must be true of it.

    `written`: the count of the guest's newest write when the machine was started the last time.
    """

    stage: Stage
    kind: str
    machine: Machine
    points: dict[str, Points]
    places: dict[str, list[ImageSource]]
    monitor: Monitor
    written: int = 0
    waiting: set[str] = field(default_factory=set)
    """Points that were asked for and not captured yet."""
    least: dict[str, int] = field(default_factory=dict)
    """By point: the least count that it must hold, because the guest had written so far."""

    @classmethod
    def make(cls, stage: Stage, kind: str, title: str, *, disks: int = 2, places: int = 0) -> Subject:
        """A machine that writes, with its monitor watched. libvirtd is started anew for that."""
        name = f"{title}-{kind}"
        fresh = [stage.lab.disk(kind, f"{name}-{number}", size=SIZE) for number in range(disks)]
        machine = stage.machine(*fresh, name=name)
        machine.wait_writing()
        made = {
            disk: [
                stage.lab.place(kind, f"{name}-{disk}-{number}", room=ROOM)
                for number in range(places if kind == "nbd" else 0)
            ]
            for disk in machine.disks
        }
        points = {disk: stage.points(machine, disk) for disk in machine.disks}
        subject = cls(stage, kind, machine, points, made, Monitor(machine))
        subject.monitor.insert()
        return subject

    # What is done to it

    def spec(self, disk: str) -> dict[str, Any]:
        """Where the next layer goes, for a kind of disk that has no place beside its images."""
        if not self.places[disk]:
            return {}
        used = {*leaves(self.machine, disk), *leaves(self.machine, disk, inactive=True)}
        used |= set(opened(self.machine)[disk])
        place = next(one for one in self.places[disk] if one.name not in used)
        self.places[disk].remove(place)
        self.places[disk].append(place)  # the one used least lately comes first
        return lent(place)

    def ask(self, name: str, disk: str) -> str:
        """The object that asks for a point; to be applied."""
        from lab.controller import snapshot

        self.waiting.add(name)
        self.least[name] = self.count()
        return snapshot(
            name,
            self.machine.name,
            namespace="shop",
            disk=disk,
            volumeSnapshotClassName="killed",
            **self.spec(disk),
        )

    def names(self, disk: str) -> list[str]:
        """Points of a disk that are kept, oldest first."""
        return list(self.points[disk].kept)

    # What must be true

    def count(self) -> int:
        """The guest's newest write at least.

        It reports each write whose number is a multiple of `dot_every`, and begins by writing its newest one
        once more: that may be the first that it reports.
        """
        step, reported = self.machine.options.dot_every, self.machine.progress()[0]
        first = -(-max(self.written, 1) // step) * step
        return first + reported - step if reported else self.written

    def capture_ready(self) -> None:
        """Capture the points that have become Ready; each must hold what the guest had written before it was
        asked for."""
        for disk, points in self.points.items():
            for name in sorted(self.waiting):
                found = self.stage.shop.get(name)
                if found["spec"]["source"]["disk"] != disk:
                    continue
                points.remember(name)
                assert points.kept[name].check_writer().max_counter >= self.least[name], name
                self.waiting.remove(name)

    def verify(self) -> None:
        """Every point and the guest, byte for byte."""
        self.capture_ready()
        for disk, points in self.points.items():
            assert opened(self.machine)[disk] == leaves(self.machine, disk), disk
            points.verify()

    @property
    def last_seen(self) -> dict[str, list[str]]:
        """By disk: the images that the definition names, for a failed test."""
        return {disk: leaves(self.machine, disk, inactive=True) for disk in self.machine.disks}

    def stop(self) -> None:
        """An orderly stop: QEMU ends by itself and flushes. What the images hold then must be everything that
        the guest wrote."""
        count = self.count()
        self.monitor.close()
        if self.machine.domain.isActive():
            self.machine.domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
        self.check_off(count)

    def check_off(self, count: int) -> None:
        """From the images alone: the guest's writes up to `count` are there."""
        for disk in self.machine.disks:
            capture = self.stage.lab.reader.capture(self.machine, disk, live=False)
            check = capture.check_writer()
            capture.path.unlink()
            seen = (disk, check, count, self.written, self.machine.progress(), self.last_seen)
            assert check.ok, seen
            assert check.max_counter >= count, seen
            if disk == self.machine.disks[0]:
                self.written = check.max_counter

    def start(self) -> None:
        """Start it again and watch its monitor."""
        self.machine.start()
        self.monitor = Monitor(self.machine)
        self.monitor.insert()
        self.stage.host.restart()
        self.machine.wait_writing()

    @property
    def lost(self) -> bool:
        """libvirt says that it is off, and its QEMU runs."""
        return not self.machine.domain.isActive() and self.machine.qemu() is not None

    def end_lost(self) -> None:
        """What a person does on the hypervisor with a machine that libvirt has lost: end its QEMU in good
        order, and let the definition name what it had open (docs/operations.md)."""
        chains, count, qemu = (
            _chains(self.machine, self.monitor.ask("query-block")),
            self.count(),
            self.machine.qemu(),
        )
        assert qemu is not None
        process.send_signal(qemu, signal.SIGTERM)
        assert process.wait_gone(qemu, 20)
        self.monitor.close()
        define_chains(self.machine, chains)
        self.check_off(count)

    def definition_is_safe(self) -> None:
        """Wait until the next start loses nothing: the stored definition has the top that QEMU has, and all
        below it. What was merged may be there besides, because its content is not another one."""

        def safe() -> bool:
            return all(
                stored[:1] == chain[:1] and [name for name in stored if name in chain] == chain
                for disk, chain in opened(self.machine).items()
                for stored in [leaves(self.machine, disk, inactive=True)]
            )

        wait_until(safe, timeout=WITHIN, what="the stored definition names what QEMU has open", interval=0.2)


def image_file(stage: Stage, source: ImageSource) -> Path:
    """The file that an image is, or that is behind it."""
    match source.protocol:
        case "file":
            return Path(source.name)
        case "gluster":
            volume, _, name = source.name.partition("/")
            return stage.lab.gluster.volume(volume).brick / name
        case _:
            [export] = [one for one in stage.lab.nbd.exports() if one.source == source]
            return export.path
