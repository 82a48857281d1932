"""The persistent definition as a whole: what it must say of a chain on the network, and how it is mended."""

from __future__ import annotations

import re

import pytest

from controller.chain.disk import ChainEnd
from controller.chain.explicit import is_short, is_started_short, spelled_out
from controller.chain.observation import DiskFacts
from controller.hypervisor.errors import Busy, Unsupported
from tests.hypervisor.conformance.test_metadata import journal
from tests.hypervisor.conformance.workbench import Drive, Kind, Workbench, keys


async def facts(bench: Workbench, uuid: str) -> DiskFacts:
    return DiskFacts("vda", await bench.live(uuid), await bench.inactive(uuid))


async def shorten(bench: Workbench, uuid: str) -> str:
    """Somebody defines the domain anew with the top layer only; gives the definition before."""
    before = await bench.driver.definition(uuid)
    short = before
    start, end = short.find("<backingStore"), short.rfind("</backingStore>")
    if start >= 0 and end >= 0:
        short = short[:start] + short[end + len("</backingStore>") :]
    await bench.driver.define(uuid, short, replacing=before)
    return before


async def test_takes_and_merges_keep_the_definition_whole(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.NBD))})
    base, middle, top = await bench.stack(uuid, [{0: 1}, {1: 2}, {2: 3}], kind=Kind.NBD)
    assert not is_short(await facts(bench, uuid))
    await bench.stop(uuid)
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(top, middle, base)
    await bench.commit(uuid, base, middle)
    await bench.finish(uuid, "vda")
    assert (await bench.inactive(uuid)).keys == keys(top, base)


async def test_a_shortened_definition_is_spelled_out_and_the_next_start_has_it_all(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.NBD))})
    base, middle, top = await bench.stack(uuid, [{0: 1}, {1: 2}, {2: 3}], kind=Kind.NBD)
    await bench.driver.set_metadata(uuid, journal("kept"), live=True, config=True)
    whole = await shorten(bench, uuid)
    assert is_short(await facts(bench, uuid))

    before = await bench.driver.definition(uuid)
    after = spelled_out(before, await bench.live(uuid))
    await bench.driver.define(uuid, after, replacing=before)
    assumed = re.compile(" tls=['\"]no['\"]")  # live, libvirt writes out what it assumed for NBD
    assert assumed.sub("", await bench.driver.definition(uuid)) == whole
    assert not is_short(await facts(bench, uuid))

    await bench.stop(uuid)
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(top, middle, base)
    assert await bench.visible(uuid, "vda") == {0: 1, 1: 2, 2: 3}
    await bench.commit(uuid, base, middle)
    await bench.finish(uuid, "vda")
    assert (await bench.live(uuid)).keys == keys(top, base)
    assert await bench.visible(uuid, "vda") == {0: 1, 1: 2, 2: 3}


async def test_started_short_the_layers_below_are_hidden_until_the_next_start(bench: Workbench) -> None:
    """The live XML cannot be mended: the layers have no index, so nothing below the top can be merged."""
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.NBD))})
    base, top = await bench.stack(uuid, [{0: 1}, {1: 2}], kind=Kind.NBD)
    whole = await shorten(bench, uuid)
    await bench.stop(uuid)
    await bench.start(uuid)
    live = await bench.live(uuid)
    assert (live.keys, live.end) == (keys(top), ChainEnd.UNKNOWN)
    assert await bench.visible(uuid, "vda") == {0: 1, 1: 2}

    await bench.driver.define(uuid, whole, replacing=await bench.driver.definition(uuid))
    assert is_started_short(await facts(bench, uuid))
    assert (await bench.live(uuid)).keys == keys(top)
    await bench.stop(uuid)
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(top, base)


async def test_the_end_that_is_known_is_kept(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.NBD))})
    base, top = await bench.stack(uuid, [{0: 1}, {1: 2}], kind=Kind.NBD)
    await bench.pull(uuid, None)
    await bench.finish(uuid, "vda")
    live = await bench.live(uuid)
    assert (live.keys, live.end) == (keys(top), ChainEnd.KNOWN)
    assert (await bench.inactive(uuid)).end is ChainEnd.KNOWN
    assert base.key not in live.keys


async def test_a_definition_that_was_changed_meanwhile_is_not_replaced(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    before = await bench.driver.definition(uuid)
    await bench.driver.set_metadata(uuid, journal("newer"), live=False, config=True)
    with pytest.raises(Busy):
        await bench.driver.define(uuid, before, replacing=before)
    assert "newer" in await bench.driver.definition(uuid)


async def test_a_transient_domain_has_none(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))}, persistent=False)
    with pytest.raises(Unsupported):
        await bench.driver.definition(uuid)
