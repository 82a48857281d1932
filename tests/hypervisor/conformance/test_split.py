"""A2: libvirtd is killed after QEMU has done something and before it has noted that. What it then believes,
what still works, and what an orderly stop and start makes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from controller.chain.observation import JobKind, RunState
from controller.chain.source import Source
from controller.hypervisor.errors import (
    Busy,
    NotFound,
    NotRunning,
    OperationFailed,
    OutcomeUnknown,
)
from controller.hypervisor.simulated import Moment
from tests.hypervisor.conformance.test_metadata import journal
from tests.hypervisor.conformance.test_stored import redefine
from tests.hypervisor.conformance.workbench import (
    FULL,
    SLOW,
    Content,
    Drive,
    Kind,
    Workbench,
    keys,
)

CONTENTS: list[Content] = [{0: 1, 1: 1}, {1: 2, 2: 2}, {3: 3}]
GUEST: Content = {0: 1, 1: 2, 2: 2, 3: 3}


async def stacked(bench: Workbench) -> tuple[str, list[Source]]:
    """A machine with three layers, the oldest first."""
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    return uuid, await bench.stack(uuid, CONTENTS)


def taking(bench: Workbench, uuid: str, overlay: Source) -> Callable[[], Awaitable[None]]:
    return lambda: bench.take(uuid, {"vda": overlay})


def pivoting(bench: Workbench, uuid: str) -> Callable[[], Awaitable[None]]:
    return lambda: bench.driver.pivot(uuid, "vda")


async def sizes(bench: Workbench, uuid: str) -> set[str]:
    """Identities of the layers that libvirt can tell the sizes of."""
    told = {stats.index for stats in (await bench.driver.read(uuid)).stats}
    return {layer.key for layer in (await bench.live(uuid)).layers if layer.index in told}


async def test_a_take_that_was_not_noted(bench: Workbench) -> None:
    uuid, layers = await stacked(bench)
    overlay = await bench.place(Kind.FILE)
    await bench.killed_in(uuid, taking(bench, uuid, overlay), Moment.UNNOTED)
    old = keys(*reversed(layers))
    for _ in range(2):
        live = await bench.live(uuid)
        assert live.keys == (await bench.inactive(uuid)).keys == old
        assert await bench.in_qemu(uuid, "vda") == (overlay.key, *old)
        assert await sizes(bench, uuid) == set(old)
        await bench.restart_libvirtd()  # which finds nothing out
        await bench.connect()
    another = await bench.place(Kind.FILE)
    with pytest.raises(OperationFailed):
        await bench.take(uuid, {"vda": another})  # which may meet a number that was given out before
    for _ in range(2):
        with pytest.raises(OperationFailed, match="is busy: node is used as backing hd of") as refused:
            await bench.take(uuid, {"vda": another})
        assert refused.value.code == 1
    with pytest.raises(OperationFailed, match="Need a root block node"):
        await bench.commit(uuid, layers[0], layers[1])
    with pytest.raises(OperationFailed, match="Need a root block node"):
        await bench.commit(uuid, layers[1], None)
    with pytest.raises(Busy, match="is in use"):
        await bench.driver.flush(uuid, "vda", 64 * 65536)
    await bench.driver.set_metadata(uuid, journal("works"), live=True, config=True)
    assert (await bench.live(uuid)).keys == old


async def test_after_a_take_that_was_not_noted_the_next_start_is_from_the_stored_definition(
    bench: Workbench,
) -> None:
    uuid, layers = await stacked(bench)
    overlay = await bench.place(Kind.FILE)
    await bench.killed_in(uuid, taking(bench, uuid, overlay), Moment.UNNOTED)
    await bench.write(uuid, "vda", {9: 9})
    await bench.stop(uuid)
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(*reversed(layers))
    assert await bench.visible(uuid, "vda") == GUEST, "what the guest wrote is in the overlay alone"
    await bench.stop(uuid)
    await redefine(bench, uuid, overlay, *reversed(layers))
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(overlay, *reversed(layers))
    assert await bench.visible(uuid, "vda") == GUEST | {9: 9}


async def test_the_stored_definition_can_be_mended_while_the_machine_runs(bench: Workbench) -> None:
    uuid, layers = await stacked(bench)
    overlay = await bench.place(Kind.FILE)
    await bench.killed_in(uuid, taking(bench, uuid, overlay), Moment.UNNOTED)
    await redefine(bench, uuid, overlay, *reversed(layers))
    assert (await bench.live(uuid)).keys == keys(*reversed(layers))
    assert (await bench.inactive(uuid)).keys == keys(overlay, *reversed(layers))
    await bench.write(uuid, "vda", {9: 9})
    await bench.stop(uuid)
    await bench.start(uuid)
    assert await bench.visible(uuid, "vda") == GUEST | {9: 9}
    await bench.take(uuid, {"vda": await bench.place(Kind.FILE)})


async def test_a_take_that_was_noted_live_alone(bench: Workbench) -> None:
    uuid, layers = await stacked(bench)
    overlay, next_one = await bench.place(Kind.FILE), await bench.place(Kind.FILE)
    await bench.killed_in(uuid, taking(bench, uuid, overlay), Moment.LIVE)
    old = keys(*reversed(layers))
    assert (await bench.live(uuid)).keys == (overlay.key, *old)
    assert (await bench.inactive(uuid)).keys == old
    await bench.take(uuid, {"vda": next_one})
    assert (await bench.live(uuid)).keys == (next_one.key, overlay.key, *old)
    assert (await bench.inactive(uuid)).keys == old, "it follows only where it names the same top"


async def commit_below(bench: Workbench, uuid: str, layers: list[Source]) -> None:
    await bench.commit(uuid, layers[0], layers[1])
    await bench.finish(uuid, "vda")


async def pull_below(bench: Workbench, uuid: str, layers: list[Source]) -> None:
    await bench.pull(uuid, layers[0])
    await bench.finish(uuid, "vda")


@pytest.mark.parametrize("end", [commit_below, pull_below])
async def test_the_end_of_a_merge_that_was_not_noted(
    bench: Workbench, end: Callable[[Workbench, str, list[Source]], Awaitable[None]]
) -> None:
    uuid, layers = await stacked(bench)
    await bench.killed_in(uuid, lambda: end(bench, uuid, layers), Moment.CLEANED)
    old = keys(*reversed(layers))
    assert (await bench.live(uuid)).keys == (await bench.inactive(uuid)).keys == old
    assert await bench.in_qemu(uuid, "vda") == keys(layers[2], layers[0])
    assert not (await bench.driver.read(uuid)).jobs
    assert await sizes(bench, uuid) == set(keys(layers[2], layers[0])), "QEMU has closed the middle one"
    with pytest.raises(OperationFailed, match="Cannot find device='' nor node-name='libvirt-"):
        await bench.commit(uuid, layers[1], None)
    overlay = await bench.place(Kind.FILE)
    await bench.take(uuid, {"vda": overlay})
    assert (await bench.live(uuid)).keys == (await bench.inactive(uuid)).keys == (overlay.key, *old)
    await bench.stop(uuid)
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == (overlay.key, *old)
    assert await bench.visible(uuid, "vda") == GUEST


async def test_a_merge_of_all_around_it_makes_libvirt_right_again(bench: Workbench) -> None:
    uuid, layers = await stacked(bench)
    await bench.killed_in(uuid, lambda: commit_below(bench, uuid, layers), Moment.CLEANED)
    overlay = await bench.place(Kind.FILE)
    await bench.take(uuid, {"vda": overlay})
    await bench.commit(uuid, layers[0], layers[2])
    await bench.finish(uuid, "vda")
    right = keys(overlay, layers[0])
    assert (await bench.live(uuid)).keys == (await bench.inactive(uuid)).keys == right
    assert await bench.in_qemu(uuid, "vda") == right
    assert await bench.visible(uuid, "vda") == GUEST


async def test_the_end_of_a_commit_that_was_noted_live_alone(bench: Workbench) -> None:
    uuid, layers = await stacked(bench)
    await bench.killed_in(uuid, lambda: commit_below(bench, uuid, layers), Moment.LIVE)
    assert (await bench.live(uuid)).keys == keys(layers[2], layers[0])
    assert (await bench.inactive(uuid)).keys == keys(*reversed(layers))
    await bench.stop(uuid)
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(*reversed(layers))
    assert await bench.visible(uuid, "vda") == GUEST


async def ready(bench: Workbench, uuid: str, base: Source) -> None:
    await bench.commit(uuid, base, None)
    await bench.finish(uuid, "vda")


async def test_a_pivot_that_was_not_noted(bench: Workbench) -> None:
    uuid, layers = await stacked(bench)
    await ready(bench, uuid, layers[1])
    await bench.killed_in(uuid, pivoting(bench, uuid), Moment.UNNOTED)
    old = keys(*reversed(layers))
    live = await bench.live(uuid)
    assert live.keys == (await bench.inactive(uuid)).keys == old
    assert live.mirror is not None
    assert not live.mirror.ready
    assert not (await bench.driver.read(uuid)).jobs
    assert await bench.in_qemu(uuid, "vda") == keys(layers[1], layers[0])
    with pytest.raises(Busy) as busy:
        await bench.take(uuid, {"vda": await bench.place(Kind.FILE)})
    assert busy.value.code == 83
    for call in (bench.driver.pivot, bench.driver.abort):
        with pytest.raises(NotFound, match="does not have an active block job"):
            await call(uuid, "vda")
    await redefine(bench, uuid, layers[1], layers[0])
    await bench.write(uuid, "vda", {1: 9})
    await bench.stop(uuid)
    await bench.start(uuid)
    assert (await bench.live(uuid)).mirror is None
    assert await bench.visible(uuid, "vda") == GUEST | {1: 9}


async def test_a_pivot_that_was_noted_live_alone(bench: Workbench) -> None:
    uuid, layers = await stacked(bench)
    await ready(bench, uuid, layers[1])
    await bench.killed_in(uuid, pivoting(bench, uuid), Moment.LIVE)
    assert (await bench.live(uuid)).keys == keys(layers[1], layers[0])
    assert (await bench.inactive(uuid)).keys == keys(*reversed(layers))
    await bench.write(uuid, "vda", {3: 9})
    await bench.stop(uuid)
    await bench.start(uuid)
    assert await bench.visible(uuid, "vda") == GUEST, "the stale top hides what the guest wrote below it"


async def test_an_active_commit_of_which_only_the_beginning_was_noted(bench: Workbench) -> None:
    """libvirt knows of the job and shows no mirror, even when it is ready. A pivot works."""
    uuid, layers = await stacked(bench)
    await ready(bench, uuid, layers[1])
    await bench.killed_at_start(uuid, "vda")
    reading = await bench.driver.read(uuid)
    assert reading.jobs["vda"].kind is JobKind.ACTIVE_COMMIT
    assert (await bench.live(uuid)).mirror is None
    with pytest.raises(Busy):
        await bench.take(uuid, {"vda": await bench.place(Kind.FILE)})
    await bench.driver.pivot(uuid, "vda")
    live, inactive = await bench.live(uuid), await bench.inactive(uuid)
    assert live.keys == inactive.keys == keys(layers[1], layers[0])
    assert await bench.in_qemu(uuid, "vda") == live.keys
    assert await bench.visible(uuid, "vda") == GUEST


async def test_an_abort_of_it_ends_libvirtd_and_leaves_the_chain(bench: Workbench) -> None:
    uuid, layers = await stacked(bench)
    await bench.write(uuid, "vda", dict.fromkeys(FULL, 3))
    await bench.commit(uuid, layers[1], None, bandwidth=SLOW)
    await bench.killed_at_start(uuid, "vda")
    with pytest.raises(OutcomeUnknown):
        await bench.driver.abort(uuid, "vda")
    await bench.crashed()
    live = await bench.live(uuid)
    assert live.keys == await bench.in_qemu(uuid, "vda") == keys(*reversed(layers))
    assert live.mirror is None
    assert not (await bench.driver.read(uuid)).jobs


async def test_a_ready_commit_that_is_canceled_counts_as_pivoted(bench: Workbench) -> None:
    """Whoever believes libvirt here removes the layer that the guest writes to."""
    uuid, layers = await stacked(bench)
    await ready(bench, uuid, layers[1])
    await bench.cancel_behind(uuid, "vda")
    live, inactive = await bench.live(uuid), await bench.inactive(uuid)
    assert live.keys == inactive.keys == keys(layers[1], layers[0])
    assert live.mirror is None
    assert await bench.in_qemu(uuid, "vda") == keys(*reversed(layers))


async def test_a_machine_that_libvirt_takes_for_shut_off(bench: Workbench) -> None:
    uuid, layers = await stacked(bench)
    await bench.forget_process(uuid)
    reading = await bench.driver.read(uuid)
    assert (reading.state, reading.live_xml) == (RunState.SHUTOFF, None)
    assert (await bench.inactive(uuid)).keys == keys(*reversed(layers))
    with pytest.raises(NotRunning):
        await bench.driver.pivot(uuid, "vda")
    with pytest.raises(Exception, match='"write" lock'):
        await bench.start(uuid)
    await bench.end_forgotten(uuid)
    await bench.start(uuid)
    assert await bench.visible(uuid, "vda") == GUEST


async def test_a_journal_that_was_noted_live_alone(bench: Workbench) -> None:
    uuid, _ = await stacked(bench)
    await bench.driver.set_metadata(uuid, journal("old"), live=True, config=True)

    async def write() -> None:
        await bench.driver.set_metadata(uuid, journal("new"), live=True, config=True)

    await bench.killed_in(uuid, write, Moment.LIVE)
    reading = await bench.driver.read(uuid)
    assert "new" in (reading.live_xml or "")
    assert "new" not in (reading.inactive_xml or "")
    assert "old" in (reading.inactive_xml or "")
