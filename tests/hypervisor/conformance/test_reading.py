"""What a domain looks like: fresh, with several disks, after a restart, on every kind of storage."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.chain.disk import ChainEnd
from controller.chain.observation import RunState
from controller.chain.parse import parse_domain
from controller.hypervisor.driver import DomainRef
from controller.hypervisor.errors import DomainGone
from tests.hypervisor.conformance.workbench import SIZE_BYTES, Drive, Kind, Workbench, keys

ABSENT = "00000000-0000-4000-8000-000000000000"


async def test_fresh_domain(bench: Workbench) -> None:
    source = await bench.image(Kind.FILE)
    uuid = await bench.machine({"vda": Drive(source)})
    reading = await bench.driver.read(uuid)
    assert (reading.uuid, reading.state, reading.state_reason) == (uuid, RunState.RUNNING, "booted")
    assert reading.persistent
    assert not reading.jobs
    assert not reading.job_active
    assert not reading.paused_by_io_error
    assert reading.live_xml is not None
    assert reading.inactive_xml is not None
    assert parse_domain(reading.live_xml).journal_xml is None
    live, inactive = await bench.live(uuid), await bench.inactive(uuid)
    assert live.keys == inactive.keys == keys(source)
    assert (live.end, inactive.end) == (ChainEnd.KNOWN, ChainEnd.UNKNOWN)
    assert (live.layers[0].index, inactive.layers[0].index) == (1, None)
    assert live.mirror is None
    assert [(s.target, s.index, s.capacity) for s in reading.stats] == [("vda", 1, SIZE_BYTES)]
    assert await bench.driver.read(uuid, sizes=False) == replace(reading, stats=())
    assert await bench.visible(uuid, "vda") == {}


async def test_inventory(bench: Workbench) -> None:
    running = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    stopped = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))}, start=False)
    listed = {ref.uuid: ref for ref in await bench.driver.domains()}
    assert listed[running].active
    assert not listed[stopped].active
    assert isinstance(listed[running], DomainRef)
    documents = [parse_domain(xml).uuid for xml in (await bench.driver.definitions()).documents]
    assert (documents.count(running), documents.count(stopped)) == (2, 1)


async def test_missing_domain(bench: Workbench) -> None:
    with pytest.raises(DomainGone) as error:
        await bench.driver.read(ABSENT)
    assert error.value.code == 42


async def test_stopped_domain(bench: Workbench) -> None:
    source = await bench.image(Kind.FILE)
    uuid = await bench.machine({"vda": Drive(source)}, start=False)
    reading = await bench.driver.read(uuid)
    assert reading.state is RunState.SHUTOFF
    assert reading.live_xml is None
    assert reading.stats == ()
    assert (await bench.inactive(uuid)).keys == keys(source)


async def test_indexes_run_over_all_disks_and_count_an_empty_drive(bench: Workbench) -> None:
    base = await bench.image(Kind.FILE)
    active = await bench.image(Kind.FILE, backing=base)
    uuid = await bench.machine(
        {
            "vda": Drive(active),
            "hda": Drive(None, "raw", device="cdrom", readonly=True),
            "vdb": Drive(await bench.image(Kind.FILE, image_format="raw"), "raw"),
        }
    )
    vda, vdb = await bench.live(uuid), await bench.live(uuid, "vdb")
    assert [layer.index for layer in vda.layers] == [3, 4]
    assert vda.keys == keys(active, base)
    assert [layer.index for layer in vdb.layers] == [2]
    drive = await bench.live(uuid, "hda")
    assert drive.layers == ()
    assert drive.readonly
    assert drive.device == "cdrom"


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.GLUSTER])
async def test_headers_show_the_chain_where_libvirt_can_read_them(bench: Workbench, kind: Kind) -> None:
    base = await bench.image(kind)
    active = await bench.image(kind, backing=base, relative=True)
    uuid = await bench.machine({"vda": Drive(active)})
    live = await bench.live(uuid)
    assert live.keys == keys(active, base)
    assert live.end is ChainEnd.KNOWN
    assert (await bench.inactive(uuid)).keys == keys(active)


async def test_end_of_an_nbd_chain_is_unknown(bench: Workbench) -> None:
    base = await bench.image(Kind.NBD)
    uuid = await bench.machine({"vda": Drive(base)})
    live = await bench.live(uuid)
    assert live.keys == keys(base)
    assert live.end is ChainEnd.UNKNOWN
    await bench.write(uuid, "vda", {3: 7})
    assert await bench.visible(uuid, "vda") == {3: 7}


async def test_stop_and_start_renumber_top_down_and_follow_the_persistent_chain(bench: Workbench) -> None:
    base = await bench.image(Kind.NBD)
    uuid = await bench.machine({"vda": Drive(base)})
    _, middle, top = await bench.stack(uuid, [{1: 1}, {2: 2}, {3: 3}])
    assert [layer.index for layer in (await bench.live(uuid)).layers] == [3, 2, 1]
    await bench.stop(uuid)
    await bench.start(uuid)
    live = await bench.live(uuid)
    assert live.keys == keys(top, middle, base)
    assert [layer.index for layer in live.layers] == [1, 2, 3]
    assert live.end is ChainEnd.UNKNOWN
    assert await bench.visible(uuid, "vda") == {1: 1, 2: 2, 3: 3}
    assert await bench.visible(uuid, "vda", middle) == {1: 1, 2: 2}
