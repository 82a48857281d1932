"""Every kind of storage that an overlay may be on: taken, merged each way, looked into, removed."""

from __future__ import annotations

import pytest

from controller.chain.backing_name import meant
from controller.chain.prepared import fault
from controller.chain.source import Source
from controller.hypervisor.driver import Removal
from controller.hypervisor.errors import NotExaminable, NotRemovable
from tests.hypervisor.conformance.workbench import (
    LENT,
    SIZE_BYTES,
    Content,
    Drive,
    Kind,
    Workbench,
    keys,
    overlaid,
)

CONTENTS: list[Content] = [{0: 10, 1: 10, 2: 10}, {1: 11, 3: 11}, {2: 12, 4: 12}, {0: 13, 5: 13}]
KINDS = pytest.mark.parametrize("kind", list(Kind))


async def stacked(bench: Workbench, kind: Kind) -> tuple[str, list[Source]]:
    uuid = await bench.machine({"vda": Drive(await bench.image(kind))})
    return uuid, await bench.stack(uuid, CONTENTS, kind=kind)


async def named_below(bench: Workbench, overlay: Source) -> Source | None:
    words = await bench.backing_name(overlay)
    readings = (meant(words, overlay, form) for form in ("qcow2", "raw")) if words else ()
    return next((found for found in readings if found is not None), None)


@KINDS
async def test_taken_and_committed(bench: Workbench, kind: Kind) -> None:
    uuid, layers = await stacked(bench, kind)
    for upper, lower in zip(layers[1:], layers, strict=False):
        below = await named_below(bench, upper)
        assert below is not None
        assert below.footprint == lower.footprint
    await bench.commit(uuid, layers[1], layers[2])
    await bench.finish(uuid, "vda")
    assert (await bench.live(uuid)).keys == (await bench.inactive(uuid)).keys
    assert (await bench.live(uuid)).keys == keys(layers[3], layers[1], layers[0])
    assert await bench.visible(uuid, "vda", layers[1]) == overlaid(*CONTENTS[:3])
    await bench.commit(uuid, layers[0], None)
    await bench.finish(uuid, "vda")
    await bench.driver.pivot(uuid, "vda")
    assert (await bench.live(uuid)).keys == (await bench.inactive(uuid)).keys == keys(layers[0])
    assert await bench.visible(uuid, "vda") == overlaid(*CONTENTS)
    for layer in layers[1:]:
        if kind in LENT:
            with pytest.raises(NotRemovable, match="never deleted"):
                await bench.driver.remove_image(layer)
        else:
            assert await bench.driver.remove_image(layer) is Removal.REMOVED
            assert await bench.driver.remove_image(layer) is Removal.ABSENT


@KINDS
async def test_pulled(bench: Workbench, kind: Kind) -> None:
    uuid, layers = await stacked(bench, kind)
    await bench.pull(uuid, layers[0])
    await bench.finish(uuid, "vda")
    await bench.driver.flush(uuid, "vda", SIZE_BYTES)
    assert (await bench.live(uuid)).keys == (await bench.inactive(uuid)).keys == keys(layers[3], layers[0])
    assert await bench.visible(uuid, "vda") == overlaid(*CONTENTS)
    below = await named_below(bench, layers[3])
    assert below is not None
    assert below.footprint == layers[0].footprint


@KINDS
async def test_a_prepared_overlay_is_looked_into_and_used(bench: Workbench, kind: Kind) -> None:
    base = await bench.image(kind)
    uuid = await bench.machine({"vda": Drive(base)})
    await bench.write(uuid, "vda", CONTENTS[0])
    active = (await bench.live(uuid)).layers[0]
    with pytest.raises(NotExaminable):
        await bench.driver.examine(uuid, await bench.place(kind), way_in=active.index)
    alone = await bench.driver.examine(uuid, await bench.image(kind), way_in=active.index)
    assert "names no image below it" in (fault(alone, base, active, SIZE_BYTES) or "")
    overlay = await bench.image(kind, backing=base)
    found = await bench.driver.examine(uuid, overlay, way_in=active.index)
    assert fault(found, overlay, active, SIZE_BYTES) is None
    await bench.take(uuid, {"vda": overlay}, reuse=True)
    await bench.write(uuid, "vda", CONTENTS[1])
    assert await bench.visible(uuid, "vda") == overlaid(*CONTENTS[:2])
    assert await bench.visible(uuid, "vda", base) == CONTENTS[0]


SHOWS_ITS_HEADER = {Kind.FILE, Kind.GLUSTER}
"""A block device does where an administrator's pool has it (``tests/hypervisor/real/test_devices.py``)."""


@KINDS
async def test_what_frozen_images_say_of_themselves(bench: Workbench, kind: Kind) -> None:
    """B5, B17: what libvirt makes holds bitmaps; and what an image uses of a device that does not grow."""
    _, layers = await stacked(bench, kind)
    frozen = layers[1:-1]
    found = await bench.driver.inside([*frozen, Source.file("/nowhere/at-all.qcow2")])
    assert set(found) == ({layer.key for layer in frozen} if kind in SHOWS_ITS_HEADER else set())
    for inside in found.values():
        assert inside.version == 3
        assert inside.used is None
