"""A1: somebody edits the stored definition while the machine runs. Which disks still follow what is done to
the running ones: libvirt compares sources by their words."""

from __future__ import annotations

import pytest
from lxml import etree

from controller.chain.source import Host, Source
from tests.hypervisor.conformance.workbench import Drive, Kind, Workbench, keys


async def redefine(bench: Workbench, uuid: str, *chain: Source) -> None:
    """Make the stored definition of vda name this chain, the active layer first."""
    before = await bench.driver.definition(uuid)
    root = etree.fromstring(before)
    disk = next(
        disk
        for disk in root.iterfind("devices/disk")
        if any(target.get("dev") == "vda" for target in disk.iterfind("target"))
    )
    for name in ("source", "backingStore"):
        for gone in disk.findall(name):
            disk.remove(gone)
    disk.set("type", chain[0].type)
    disk.insert(1, chain[0].element())
    parent, position = disk, 2
    for source in chain[1:]:
        lower = etree.Element("backingStore", type=source.type)
        etree.SubElement(lower, "format", type="qcow2")
        lower.append(source.element())
        parent.insert(position, lower)
        parent, position = lower, 2
    await bench.driver.define(uuid, etree.tostring(root, encoding="unicode"), replacing=before)


async def stays_behind(bench: Workbench, uuid: str, stored: Source) -> None:
    """With ``stored`` in the definition, a take is in the live chain alone; and again after the next one."""
    await redefine(bench, uuid, stored)
    running = (await bench.live(uuid)).keys
    first, second = await bench.place(Kind.FILE), await bench.place(Kind.FILE)
    await bench.take(uuid, {"vda": first})
    assert (await bench.live(uuid)).keys == (first.key, *running)
    assert (await bench.inactive(uuid)).keys == (stored.key,)
    await bench.take(uuid, {"vda": second})
    assert (await bench.inactive(uuid)).keys == (stored.key,)
    await bench.commit(uuid, first, None)
    await bench.finish(uuid, "vda")
    await bench.driver.pivot(uuid, "vda")
    assert (await bench.live(uuid)).keys == (first.key, *running)
    assert (await bench.inactive(uuid)).keys == (stored.key,)


async def test_another_image(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    await bench.write(uuid, "vda", {0: 1})
    other = await bench.image(Kind.FILE)
    await stays_behind(bench, uuid, other)
    await bench.write(uuid, "vda", {1: 2})
    await bench.stop(uuid)
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(other)
    assert await bench.visible(uuid, "vda") == {}


async def test_another_spelling_of_the_path(bench: Workbench) -> None:
    image = await bench.image(Kind.FILE)
    uuid = await bench.machine({"vda": Drive(image)})
    directory, _, leaf = image.path.rpartition("/")
    spelled = Source.file(f"{directory}/./{leaf}")
    assert spelled.key == image.key
    await stays_behind(bench, uuid, spelled)


async def test_another_address_of_the_server(bench: Workbench) -> None:
    image = await bench.image(Kind.NBD)
    uuid = await bench.machine({"vda": Drive(image)})
    (host,) = image.hosts
    await stays_behind(bench, uuid, Source.network("nbd", image.name, [Host("localhost", host.port)]))


async def test_another_order_of_the_hosts(bench: Workbench) -> None:
    image = await bench.image(Kind.GLUSTER)
    (host,) = image.hosts
    hosts = [host, Host("localhost", host.port)]
    uuid = await bench.machine({"vda": Drive(Source.network("gluster", image.name, hosts))})
    await stays_behind(bench, uuid, Source.network("gluster", image.name, hosts[::-1]))


async def test_a_volume_of_a_pool(bench: Workbench) -> None:
    image = await bench.image(Kind.FILE)
    uuid = await bench.machine({"vda": Drive(image)})
    await stays_behind(bench, uuid, await bench.volume(image))


async def test_a_machine_that_was_started_from_a_volume(bench: Workbench) -> None:
    volume = await bench.volume(await bench.image(Kind.FILE))
    uuid = await bench.machine({"vda": Drive(volume)})
    assert (await bench.live(uuid)).keys == (volume.key,)
    overlay = await bench.place(Kind.FILE)
    await bench.take(uuid, {"vda": overlay})
    live, inactive = await bench.live(uuid), await bench.inactive(uuid)
    assert live.keys == inactive.keys == (overlay.key, volume.key)
    await redefine(bench, uuid, overlay, volume)
    await bench.commit(uuid, volume, None)
    await bench.finish(uuid, "vda")
    await bench.driver.pivot(uuid, "vda")
    live, inactive = await bench.live(uuid), await bench.inactive(uuid)
    assert live.keys == inactive.keys == (volume.key,)


async def test_set_back_before_the_call_it_follows(bench: Workbench) -> None:
    image = await bench.image(Kind.FILE)
    uuid = await bench.machine({"vda": Drive(image)})
    await redefine(bench, uuid, await bench.image(Kind.FILE))
    await redefine(bench, uuid, image)
    overlay = await bench.place(Kind.FILE)
    await bench.take(uuid, {"vda": overlay})
    assert (await bench.inactive(uuid)).keys == keys(overlay, image)


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.NBD])
async def test_set_back_after_the_call_the_next_start_misses_the_overlay(
    bench: Workbench, kind: Kind
) -> None:
    image = await bench.image(kind)
    uuid = await bench.machine({"vda": Drive(image)})
    await redefine(bench, uuid, await bench.image(kind))
    await bench.take(uuid, {"vda": await bench.place(Kind.FILE)})
    await bench.write(uuid, "vda", {0: 7})
    await redefine(bench, uuid, image)
    await bench.stop(uuid)
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(image)
    assert await bench.visible(uuid, "vda") == {}
