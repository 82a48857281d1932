"""Real storage servers are asked whether they live: running, stopped by a signal, killed, and back again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from controller.chain.source import Source
from controller.hypervisor.driver import Driver, Running
from controller.hypervisor.errors import StorageUnreachable
from controller.hypervisor.libvirt_driver import connect_libvirt
from controller.hypervisor.reach import Reach
from lab.hosts.host import Host
from lab.lab import Lab
from lab.machines.disk import Disk
from lab.pytest_plugin import MachineFactory
from lab.storage.image import ImageSource
from lab.storage.server import ServerProcess

pytestmark = pytest.mark.real

SOON = 2.0
"""Seconds. A server that runs has this long to answer, on a machine that may be busy."""


def nbd(lab: Lab, kind: str) -> tuple[ImageSource, ServerProcess]:
    """An export and its server."""
    source = lab.place(kind, f"reach-{kind}")
    [export] = [one for one in lab.nbd.exports() if one.source == source]
    return source, export


SERVERS: dict[str, Callable[[Lab], tuple[ImageSource, ServerProcess]]] = {
    "nbd": lambda lab: nbd(lab, "nbd"),
    "nbd-tls": lambda lab: nbd(lab, "nbd-tls"),
    "nbd-unix": lambda lab: nbd(lab, "nbd-unix"),
    "gluster": lambda lab: (lab.gluster.volume().source("reach"), lab.gluster),
    "iscsi": lambda lab: (lab.iscsi.lun(1 << 20).source, lab.iscsi),
    "iscsi-chap": lambda lab: (lab.iscsi_chap.lun(1 << 20).source, lab.iscsi_chap),
    "rbd": lambda lab: (lab.rbd.source("reach"), lab.rbd.monitor),
    "http": lambda lab: (lab.http.base("reach", 1 << 20), lab.http),
    "https": lambda lab: (lab.https.base("reach", 1 << 20), lab.https),
}


async def trouble(source: ImageSource) -> str:
    """What is told of the server of this image."""
    found = Source.from_element("network", source.to_xml())
    try:
        await Reach(local=True, deadline=SOON).ask([found])
    except StorageUnreachable as error:
        return error.message
    return ""


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_server_is_found_alive_hung_dead_and_alive_again(lab: Lab, kind: str) -> None:
    if reason := lab.why_not(kind):
        pytest.skip(reason)
    source, server = SERVERS[kind](lab)
    assert await trouble(source) == ""
    server.pause()
    try:
        assert "does not answer" in await trouble(source)
    finally:
        server.resume()
    assert await trouble(source) == ""
    server.kill()
    try:
        assert "refuses connections" in await trouble(source)
    finally:
        server.start()
    async with asyncio.timeout(60):  # glusterd listens some seconds before it serves
        while await trouble(source):
            pass


async def test_a_brick_is_asked_behind_its_daemon(lab: Lab) -> None:
    """Its port is new with each start of the brick."""
    if reason := lab.why_not("gluster"):
        pytest.skip(reason)
    volume = lab.gluster.volume()
    source = volume.source("reach")
    brick = f"the gluster brick {lab.gluster.address}:{volume.brick}"
    assert await trouble(source) == ""
    volume.pause_brick()
    try:
        assert f"{brick} accepts connections and does not answer" in await trouble(source)
    finally:
        volume.resume_brick()
    assert await trouble(source) == ""
    volume.kill_brick()
    try:
        assert f"{brick} refuses connections" in await trouble(source)
    finally:
        lab.gluster.start_bricks(volume)
    async with asyncio.timeout(60):
        while await trouble(source):
            pass


async def test_a_guest_proves_that_a_server_without_room_lives(
    lab: Lab, host: Host, machines: MachineFactory
) -> None:
    """What its guest completes proves that it lives; while it hangs, nothing is completed. (QEMU mostly tells
    the numbers then as well, but not always: no answer is no proof either.)"""
    export = lab.nbd.export("reach-lonely", 20 << 20, clients=1)
    machine = machines(Disk.nbd(export))
    machine.wait_writing()
    image = Source.from_element("network", export.source.to_xml())
    running = Running(machine.uuid, {"vda": (image,)})
    driver = await connect_libvirt(host.uri)(lambda _: None)
    try:
        with pytest.raises(StorageUnreachable, match="--shared"):
            await driver.reach([image])
        for _ in range(3):
            await driver.reach([image], running=running)
        export.pause()
        try:
            for beside in ((), (image,)):
                with pytest.raises(StorageUnreachable, match="--shared"):
                    await driver.reach([] if beside else [image], beside=beside, running=running)
        finally:
            export.resume()
        async with asyncio.timeout(60):
            while await silent(driver, image, running):
                pass
    finally:
        await driver.close()


async def silent(driver: Driver, image: Source, running: Running) -> bool:
    """Whether its server is still taken for hung."""
    try:
        await driver.reach([image], running=running)
    except StorageUnreachable:
        return True
    return False


async def test_being_asked_leaves_no_trace_in_an_nbd_server(lab: Lab) -> None:
    """qemu-nbd prints an error for each client that leaves without a word."""
    source = lab.place("nbd", "reach-quietly")
    [export] = [one for one in lab.nbd.exports() if one.source == source]
    log = export.path.with_suffix(".log")
    source.create("qcow2", 1 << 20)  # when this is through, it has dealt with the clients before
    said = log.read_bytes()  # to the lab, which looks whether it listens
    for _ in range(20):
        assert await trouble(source) == ""
    source.create("qcow2", 1 << 20)
    assert log.read_bytes() == said
