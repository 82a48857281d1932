"""Takes: what is frozen, what is not, what is refused, and what the headers and the definition say then."""

from __future__ import annotations

import pytest

from controller.chain.disk import ChainEnd
from controller.hypervisor.errors import (
    AlreadyExists,
    Busy,
    NotFound,
    OperationFailed,
    Unsupported,
)
from tests.hypervisor.conformance.workbench import FULL, SLOW, Content, Drive, Kind, Workbench, keys

BEFORE: Content = {0: 1, 1: 2, 5: 3}
AFTER: Content = {1: 9, 6: 4}


async def taken(bench: Workbench, kind: Kind, overlay_kind: Kind) -> None:
    base = await bench.image(kind)
    uuid = await bench.machine({"vda": Drive(base)})
    was = await bench.live(uuid)
    _, overlay = await bench.stack(uuid, [BEFORE, AFTER], kind=overlay_kind)
    live, inactive = await bench.live(uuid), await bench.inactive(uuid)
    assert live.keys == inactive.keys == keys(overlay, base)
    assert live.end is was.end
    assert inactive.end is ChainEnd.UNKNOWN
    assert [layer.index for layer in live.layers] == [2, 1]
    assert await bench.visible(uuid, "vda") == BEFORE | AFTER
    assert await bench.visible(uuid, "vda", base) == BEFORE
    assert await bench.offline(base) == BEFORE
    assert await bench.backing_name(overlay) == base.uri


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.GLUSTER, Kind.NBD])
async def test_take_beside(bench: Workbench, kind: Kind) -> None:
    await taken(bench, kind, kind)


@pytest.mark.parametrize("kind", [Kind.GLUSTER, Kind.NBD])
async def test_file_overlay_on_a_network_disk(bench: Workbench, kind: Kind) -> None:
    await taken(bench, kind, Kind.FILE)


async def test_raw_base(bench: Workbench) -> None:
    base = await bench.image(Kind.FILE, image_format="raw")
    uuid = await bench.machine({"vda": Drive(base, "raw")})
    _, overlay = await bench.stack(uuid, [BEFORE, AFTER])
    live = await bench.live(uuid)
    assert [(layer.key, layer.format) for layer in live.layers] == [
        (overlay.key, "qcow2"),
        (base.key, "raw"),
    ]
    assert await bench.visible(uuid, "vda", base) == BEFORE
    assert await bench.visible(uuid, "vda") == BEFORE | AFTER


async def test_other_disks_are_left_alone_when_listed(bench: Workbench) -> None:
    uuid = await bench.machine(
        {
            "vda": Drive(await bench.image(Kind.FILE)),
            "vdb": Drive(await bench.image(Kind.FILE)),
            "hda": Drive(None, "raw", device="cdrom", readonly=True),
        }
    )
    before = await bench.live(uuid, "vdb")
    await bench.take(uuid, {"vda": await bench.place(Kind.FILE)})
    assert await bench.live(uuid, "vdb") == before
    assert len((await bench.live(uuid)).layers) == 2


async def test_a_disk_that_is_not_listed_is_frozen_too(bench: Workbench) -> None:
    """The trap that makes listing every disk necessary."""
    uuid = await bench.machine(
        {"vda": Drive(await bench.image(Kind.FILE)), "vdb": Drive(await bench.image(Kind.FILE))}
    )
    await bench.driver.create_snapshot(uuid, "<domainsnapshot><name>auto</name></domainsnapshot>")
    for target in ("vda", "vdb"):
        overlay, base = (await bench.live(uuid, target)).layers
        assert overlay.source.path == base.source.path.removesuffix(".qcow2") + ".auto"


async def test_two_disks_in_one_call(bench: Workbench) -> None:
    uuid = await bench.machine(
        {"vda": Drive(await bench.image(Kind.FILE)), "vdb": Drive(await bench.image(Kind.FILE))}
    )
    overlays = {"vda": await bench.place(Kind.FILE), "vdb": await bench.place(Kind.FILE)}
    await bench.write(uuid, "vdb", {2: 2})
    await bench.take(uuid, overlays)
    for target, overlay in overlays.items():
        assert (await bench.live(uuid, target)).keys[0] == overlay.key
    await bench.write(uuid, "vdb", {2: 3})
    assert await bench.visible(uuid, "vdb") == {2: 3}


async def test_existing_overlay_is_refused_and_left_alone(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    taken_name = await bench.image(Kind.FILE)
    with pytest.raises(AlreadyExists):
        await bench.take(uuid, {"vda": taken_name})
    assert len((await bench.live(uuid)).layers) == 1
    assert await bench.backing_name(taken_name) is None


async def test_reuse_accepts_a_prepared_overlay_with_a_relative_header(bench: Workbench) -> None:
    base = await bench.image(Kind.FILE)
    uuid = await bench.machine({"vda": Drive(base)})
    await bench.write(uuid, "vda", BEFORE)
    overlay = await bench.image(Kind.FILE, backing=base, relative=True)
    await bench.take(uuid, {"vda": overlay}, reuse=True)
    await bench.write(uuid, "vda", AFTER)
    assert await bench.backing_name(overlay) == base.leaf
    assert await bench.visible(uuid, "vda") == BEFORE | AFTER
    assert await bench.visible(uuid, "vda", base) == BEFORE


async def test_reuse_of_nothing(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    with pytest.raises(OperationFailed) as error:
        await bench.take(uuid, {"vda": await bench.place(Kind.FILE)}, reuse=True)
    assert error.value.code == 38


@pytest.mark.parametrize(
    ("disks", "error", "code"),
    [
        ("<disk name='vdq' snapshot='external'/>", NotFound, 67),
        ("<disk name='vda' snapshot='no'/><disk name='vdb' snapshot='no'/>", Unsupported, 67),
        ("<disk name='vda' snapshot='no'/><disk name='vda'/>", Unsupported, 67),
        ("<disk name='vda' snapshot='internal'/>", Unsupported, 67),
        ("<disk name='vda'><driver type='raw'/><source file='/nowhere/x'/></disk>", Unsupported, 67),
        ("<disk name='vda' type='network'><source name='x'/></disk>", OperationFailed, 27),
    ],
)
async def test_refused_documents(bench: Workbench, disks: str, error: type[Exception], code: int) -> None:
    uuid = await bench.machine(
        {"vda": Drive(await bench.image(Kind.FILE)), "vdb": Drive(await bench.image(Kind.FILE))}
    )
    with pytest.raises(error) as raised:
        await bench.driver.create_snapshot(uuid, f"<domainsnapshot><disks>{disks}</disks></domainsnapshot>")
    assert getattr(raised.value, "code", None) == code
    for target in ("vda", "vdb"):
        assert len((await bench.live(uuid, target)).layers) == 1


@pytest.mark.parametrize(("xml", "code"), [("<domainsnapshot", 35), ("<snapshot/>", 27)])
async def test_malformed_documents(bench: Workbench, xml: str, code: int) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    with pytest.raises(OperationFailed) as raised:
        await bench.driver.create_snapshot(uuid, xml)
    assert raised.value.code == code


async def test_not_on_a_disk_with_a_job_but_beside_one(bench: Workbench) -> None:
    base = await bench.image(Kind.FILE)
    uuid = await bench.machine({"vda": Drive(base), "vdb": Drive(await bench.image(Kind.FILE))})
    await bench.stack(uuid, [dict.fromkeys(FULL, 1), dict.fromkeys(FULL, 2), {}])
    middle = (await bench.live(uuid)).layers[1].source
    await bench.commit(uuid, base, middle, bandwidth=SLOW)
    with pytest.raises(Busy):
        await bench.take(uuid, {"vda": await bench.place(Kind.FILE)})
    await bench.take(uuid, {"vdb": await bench.place(Kind.FILE)})
    assert len((await bench.live(uuid, "vdb")).layers) == 2
    await bench.finish(uuid, "vda")
    assert await bench.visible(uuid, "vda") == dict.fromkeys(FULL, 2)


async def test_stopped_machine_with_a_file_disk(bench: Workbench) -> None:
    """libvirt goes on with a chain that the definition lists, but does not begin one."""
    base = await bench.image(Kind.FILE)
    uuid = await bench.machine({"vda": Drive(base)})
    await bench.write(uuid, "vda", BEFORE)
    await bench.stop(uuid)
    first, second, third = [await bench.place(Kind.FILE) for _ in range(3)]
    await bench.take(uuid, {"vda": first})
    assert (await bench.inactive(uuid)).keys == keys(first)
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(first, base)
    await bench.write(uuid, "vda", AFTER)
    await bench.take(uuid, {"vda": second})
    await bench.stop(uuid)
    await bench.take(uuid, {"vda": third})
    assert (await bench.inactive(uuid)).keys == keys(third, second, first)
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(third, second, first, base)
    assert await bench.visible(uuid, "vda") == BEFORE | AFTER
    assert await bench.offline(base) == BEFORE


async def test_stopped_machine_with_a_network_disk(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.NBD))}, start=False)
    with pytest.raises(OperationFailed) as error:
        await bench.take(uuid, {"vda": await bench.place(Kind.FILE)})
    assert error.value.code == 1


async def test_transient_domain(bench: Workbench) -> None:
    base = await bench.image(Kind.FILE)
    uuid = await bench.machine({"vda": Drive(base)}, persistent=False)
    _, overlay = await bench.stack(uuid, [BEFORE, AFTER])
    reading = await bench.driver.read(uuid)
    assert not reading.persistent
    assert reading.inactive_xml is None
    assert (await bench.live(uuid)).keys == keys(overlay, base)
    assert await bench.visible(uuid, "vda", base) == BEFORE
