"""Disks that come and go while the machine runs."""

from __future__ import annotations

from controller.chain.parse import parse_domain
from controller.hypervisor.driver import DeviceChanged
from tests.hypervisor.conformance.workbench import Drive, Kind, Workbench


async def targets(bench: Workbench, uuid: str) -> list[str]:
    reading = await bench.driver.read(uuid)
    assert reading.live_xml is not None
    return [disk.target for disk in parse_domain(reading.live_xml).disks]


async def test_b12_a_disk_that_is_plugged_in_or_out_is_told(bench: Workbench) -> None:
    """B12: there is an event for it, and whoever looks then sees it."""
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    image = await bench.image(Kind.FILE)
    assert not any(isinstance(event, DeviceChanged) for event in bench.events)
    await bench.attach(uuid, "vdb", Drive(image))
    await bench.seen(lambda event: event == DeviceChanged(uuid, plugged=True))
    assert await targets(bench, uuid) == ["vda", "vdb"]
    await bench.detach(uuid, "vdb")
    await bench.seen(lambda event: event == DeviceChanged(uuid, plugged=False))
    assert await targets(bench, uuid) == ["vda"]
