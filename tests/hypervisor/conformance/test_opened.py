"""What QEMU itself says that it has open, and whether an image is there: what removals rest on."""

from __future__ import annotations

import pytest

from controller.chain.opened import Opened as ChainOpened
from controller.chain.source import Source
from controller.hypervisor.errors import Busy, NotRunning
from controller.hypervisor.simulated import Moment
from tests.hypervisor.conformance.workbench import FULL, SLOW, Drive, Kind, Workbench


async def asked(bench: Workbench, uuid: str, target: str = "vda") -> ChainOpened:
    """The answer about one disk, as the planner gets it."""
    found = await bench.driver.opened(uuid)
    return ChainOpened(found.disks[target], found.files)


@pytest.mark.parametrize("kind", list(Kind))
async def test_every_layer_is_recognised(bench: Workbench, kind: Kind) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(kind))})
    layers = await bench.stack(uuid, [{0: 1}, {1: 2}, {2: 3}], kind=kind)
    live, other = await bench.live(uuid), await bench.place(kind)
    found = await asked(bench, uuid)
    assert len(found.chain) == len(layers)
    assert [found.writes_to(layer.source) for layer in live.layers] == [True] * 3
    assert [found.has_open(layer) for layer in layers] == [True] * 3
    assert found.has_open(other) is False
    assert not found.differs_from(live)
    assert not found.lacks_some(live)
    assert found.extra_top(live) is None


async def test_the_chains_of_all_disks(bench: Workbench) -> None:
    first, second = await bench.image(Kind.FILE), await bench.image(Kind.FILE)
    uuid = await bench.machine(
        {"vda": Drive(first), "vdb": Drive(second), "hdc": Drive(None, device="cdrom")}
    )
    found = await bench.driver.opened(uuid)
    chains = {target: [one.name for one in chain] for target, chain in found.disks.items() if chain}
    assert chains == {"vda": [first.path], "vdb": [second.path]}
    assert found.files >= {first.path, second.path}


async def test_a_layer_above_those_that_libvirt_shows(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    overlay = await bench.place(Kind.FILE)
    await bench.killed_in(uuid, lambda: bench.take(uuid, {"vda": overlay}), Moment.UNNOTED)
    live = await bench.live(uuid)
    found = await asked(bench, uuid)
    top = found.extra_top(live)
    assert top is not None
    assert (top.key, top.format) == (overlay.key, "qcow2")
    assert found.differs_from(live)
    assert found.has_open(overlay)


async def test_a_layer_that_libvirt_shows_and_qemu_has_not(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    layers = await bench.stack(uuid, [{0: 1}, {1: 2}, {2: 3}])

    async def merge() -> None:
        await bench.commit(uuid, layers[0], layers[1])
        await bench.finish(uuid, "vda")

    await bench.killed_in(uuid, merge, Moment.CLEANED)
    live = await bench.live(uuid)
    found = await asked(bench, uuid)
    assert found.lacks_some(live)
    assert not found.differs_from(live)
    assert found.has_open(layers[1]) is False


async def test_a_machine_that_is_off_or_pulls_is_not_asked(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    layers = await bench.stack(uuid, [{0: 1}, dict.fromkeys(FULL, 2), {2: 3}])
    await bench.pull(uuid, layers[0], bandwidth=SLOW)
    with pytest.raises(Busy):
        await bench.driver.opened(uuid)
    await bench.stop(uuid)
    with pytest.raises(NotRunning):
        await bench.driver.opened(uuid)


@pytest.mark.parametrize(
    ("kind", "told"),
    [(Kind.FILE, True), (Kind.GLUSTER, True), (Kind.RBD, True), (Kind.NBD, None), (Kind.BLOCK, None)],
)
async def test_whether_an_image_is_there(bench: Workbench, kind: Kind, told: bool | None) -> None:
    made: Source = await bench.image(kind)
    assert await bench.driver.present(made) is told
    if told:
        assert await bench.driver.present(await bench.place(kind)) is False
