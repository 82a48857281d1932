"""Ways in which somebody lets the stored definition of a running machine name its disk otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import libvirt

from lab.machines.machine import Machine
from lab.storage.image import ImageSource
from tests.e2e.pools import made_pool
from tests.e2e.stage import Stage
from tests.faults.subject import SIZE, STORED

DEAD = "127.0.0.9"
"""An address on which nobody serves."""


def stored(machine: Machine) -> str:
    """The definition for the next start."""
    return str(machine.domain.XMLDesc(STORED))


def define(machine: Machine, xml: str) -> None:
    """What `virsh define` does."""
    machine.host.connection().defineXML(xml)


@dataclass(frozen=True)
class Variant:
    """`make` gives a machine that runs and writes; `change` its stored definition with another disk.

    `same`: it is another way to the same image, so that the machine goes on with its data at the next start.
    `known`: varve knows its layers again then.
    """

    name: str
    make: Callable[[Stage, str], Machine]
    change: Callable[[Machine], str]
    same: bool = True
    known: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def slug(self) -> str:
        """For names of machines."""
        return self.name.replace(" ", "-")


def _on(kind: str) -> Callable[[Stage, str], Machine]:
    def make(stage: Stage, name: str) -> Machine:
        machine = stage.machine(stage.lab.disk(kind, f"{name}-0", size=SIZE), name=name)
        machine.wait_writing()
        return machine

    return make


def _replaced(machine: Machine, old: str, new: str) -> str:
    xml = stored(machine)
    assert old in xml, (old, xml)
    return xml.replace(old, new)


def _top(machine: Machine) -> ImageSource:
    return machine.chain(inactive=True)[0].source


def _another_image(machine: Machine) -> str:
    """An empty disk of this guest, as somebody has it who installs the machine anew."""
    fresh = ImageSource.file(machine.host.images / f"{machine.name}-reinstalled.qcow2")
    fresh.create("qcow2", SIZE)
    fresh.write("qcow2", 0, machine.directory / "bootsector")
    xml = stored(machine)
    start, end = xml.index("<source file="), xml.index("<target dev='vda'")
    return f"{xml[:start]}<source file='{fresh.name}'/>{xml[end:]}"


def _another_spelling(machine: Machine) -> str:
    path = _top(machine).name
    return _replaced(machine, f"'{path}'", f"'{path.replace('/images/', '/images/./')}'")


def _another_address(machine: Machine) -> str:
    return _replaced(machine, "<host name='127.0.0.1'", "<host name='localhost'")


def _two_hosts(stage: Stage, name: str) -> Machine:
    machine = stage.machine(stage.lab.disk("gluster", f"{name}-0", size=SIZE), name=name, start=False)
    own = f"<host name='{_top(machine).host}' port='24007'/>"
    define(machine, _replaced(machine, own, f"{own}<host name='{DEAD}' port='24007'/>"))
    machine.start()
    machine.wait_writing()
    return machine


def _another_order(machine: Machine) -> str:
    own = f"<host name='{_top(machine).host}' port='24007'/>"
    dead = f"<host name='{DEAD}' port='24007'/>"
    return _replaced(machine, own, "@").replace(dead, own).replace("@", dead)


def _as_volume(machine: Machine) -> str:
    """The definition names the image as a volume of an administrator's pool."""
    _pool(machine).refresh(0)
    path = _top(machine).name
    xml = _replaced(machine, "<disk type='file'", "<disk type='volume'")
    return xml.replace(
        f"<source file='{path}'", f"<source pool='images' volume='{path.rsplit('/', 1)[-1]}'", 1
    )


def _pool(machine: Machine) -> libvirt.virStoragePool:
    """It outlives libvirtd."""
    connection, place = machine.host.connection(), machine.host.images
    for pool in connection.listAllStoragePools(0):
        if pool.name() == "images":
            return pool
    xml = f"<pool type='dir'><name>images</name><target><path>{place}</path></target></pool>"
    running = made_pool(connection, xml)
    pool = connection.storagePoolDefineXML(running.XMLDesc(0), 0)
    pool.setAutostart(1)
    return pool


VARIANTS = [
    Variant("another image", _on("file"), _another_image, same=False, known=False),
    Variant("another spelling", _on("file"), _another_spelling),
    Variant("another order of hosts", _two_hosts, _another_order),
    Variant("another address", _on("nbd"), _another_address),
    Variant("a volume", _on("file"), _as_volume, known=False),
]
