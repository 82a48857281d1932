"""Commits below the active layer and of it: chains, headers, kept points, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controller.chain.convergence import Progress, progressed
from controller.chain.disk import ChainEnd
from controller.chain.journal import Operation, OperationKind
from controller.chain.observation import DiskFacts, Job, JobKind
from controller.chain.source import Source
from controller.hypervisor.driver import JobStatus
from controller.hypervisor.errors import (
    Busy,
    CannotKeepRelative,
    NotFound,
    NotReady,
    OperationFailed,
)
from tests.hypervisor.conformance.workbench import (
    FULL,
    SIZE_BYTES,
    SLOW,
    Content,
    Drive,
    Kind,
    Workbench,
    keys,
    overlaid,
)

CONTENTS: list[Content] = [
    {0: 10, 1: 10, 2: 10},
    {1: 11, 3: 11},
    {2: 12, 4: 12},
    {1: 13, 5: 13},
    {0: 14, 6: 14},
]


async def five_layers(bench: Workbench, kind: Kind = Kind.FILE) -> tuple[str, list[Source]]:
    uuid = await bench.machine({"vda": Drive(await bench.image(kind))})
    return uuid, await bench.stack(uuid, CONTENTS, kind=kind)


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.GLUSTER, Kind.NBD])
async def test_commit_of_several_layers_below(bench: Workbench, kind: Kind) -> None:
    uuid, layers = await five_layers(bench, kind)
    indexes = {layer.key: layer.index for layer in (await bench.live(uuid)).layers}
    await bench.commit(uuid, layers[1], layers[3])
    await bench.finish(uuid, "vda")
    event = await bench.seen_job("vda", JobStatus.COMPLETED)
    assert (event.uuid, event.kind) == (uuid, JobKind.COMMIT)
    live, inactive = await bench.live(uuid), await bench.inactive(uuid)
    assert live.keys == inactive.keys == keys(layers[4], layers[1], layers[0])
    assert {layer.key: layer.index for layer in live.layers} == {key: indexes[key] for key in live.keys}
    assert await bench.backing_name(layers[4]) == layers[1].uri
    assert await bench.visible(uuid, "vda") == overlaid(*CONTENTS)
    assert await bench.visible(uuid, "vda", layers[1]) == overlaid(*CONTENTS[:4])
    assert await bench.visible(uuid, "vda", layers[0]) == CONTENTS[0]
    assert not (await bench.driver.read(uuid)).jobs


async def test_a_commit_below_shows_nothing_in_the_xml_until_it_ends(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    layers = await bench.stack(uuid, [dict.fromkeys(FULL, 1), dict.fromkeys(FULL, 2), {0: 3}])
    before = await bench.live(uuid)
    await bench.commit(uuid, layers[0], layers[1], bandwidth=SLOW)
    assert await bench.live(uuid) == before
    job = (await bench.driver.read(uuid)).jobs["vda"]
    assert (job.kind, job.end, job.bandwidth) == (JobKind.COMMIT, SIZE_BYTES, SLOW)
    assert job.current < job.end
    await bench.finish(uuid, "vda")
    assert (await bench.live(uuid)).keys == keys(layers[2], layers[0])
    assert await bench.visible(uuid, "vda") == dict.fromkeys(FULL, 2) | {0: 3}


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.GLUSTER, Kind.NBD])
async def test_active_commit_and_pivot(bench: Workbench, kind: Kind) -> None:
    uuid, layers = await five_layers(bench, kind)
    end = (await bench.live(uuid)).end
    await bench.commit(uuid, layers[2], None)
    await bench.finish(uuid, "vda")
    event = await bench.seen_job("vda", JobStatus.READY)
    assert event.kind is JobKind.ACTIVE_COMMIT
    mirror = (await bench.live(uuid)).mirror
    assert mirror is not None
    assert (mirror.job, mirror.ready, mirror.source_key) == ("active-commit", True, layers[2].key)
    assert (await bench.inactive(uuid)).keys == keys(*reversed(layers))
    job = (await bench.driver.read(uuid)).jobs["vda"]
    assert job.kind is JobKind.ACTIVE_COMMIT
    assert job.current == job.end
    await bench.write(uuid, "vda", {7: 99})
    await bench.driver.pivot(uuid, "vda")
    await bench.seen_job("vda", JobStatus.COMPLETED)
    live, inactive = await bench.live(uuid), await bench.inactive(uuid)
    assert live.keys == inactive.keys == keys(layers[2], layers[1], layers[0])
    assert live.mirror is None
    assert live.end is end
    assert await bench.visible(uuid, "vda") == overlaid(*CONTENTS, {7: 99})
    assert await bench.visible(uuid, "vda", layers[1]) == overlaid(*CONTENTS[:2])
    await bench.write(uuid, "vda", {8: 98})
    await bench.stop(uuid)
    assert await bench.offline(layers[2]) == overlaid(*CONTENTS, {7: 99, 8: 98})


async def test_pivot_before_ready_and_abort(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    layers = await bench.stack(uuid, [{0: 1}, dict.fromkeys(FULL, 2)])
    before = await bench.live(uuid)
    await bench.commit(uuid, layers[0], None, bandwidth=SLOW)
    mirror = (await bench.live(uuid)).mirror
    assert mirror is not None
    assert not mirror.ready
    with pytest.raises(NotReady) as error:
        await bench.driver.pivot(uuid, "vda")
    assert error.value.code == 83
    await bench.driver.abort(uuid, "vda")
    await bench.seen_job("vda", JobStatus.CANCELED)
    assert await bench.live(uuid) == before
    assert (await bench.inactive(uuid)).keys == before.keys
    assert await bench.visible(uuid, "vda") == dict.fromkeys(FULL, 2)


async def test_a_guest_that_writes_faster_than_a_commit_copies(bench: Workbench) -> None:
    """The job comes no nearer to its end; aborted, it leaves a chain that can be committed another time."""
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    layers = await bench.stack(uuid, [{0: 1}, {1: 1}])
    written: Content = dict.fromkeys(range(2, 2 + len(FULL) // 2), 2)
    await bench.write(uuid, "vda", written)
    before = await bench.live(uuid)
    await bench.commit(uuid, layers[0], None, bandwidth=SLOW)
    operation = Operation(
        OperationKind.ACTIVE_COMMIT, "2025-01-02T03:04:05Z", (), before.layers[-1], before.layers[:-1]
    )
    progress: Progress | None = None
    for value in range(3, 7):
        written = dict.fromkeys(written, value)
        await bench.write(uuid, "vda", written)
        reading = await bench.driver.read(uuid)
        job = reading.jobs["vda"]
        assert job.kind is JobKind.ACTIVE_COMMIT
        facts = DiskFacts("vda", None, None, Job(job.kind, job.current, job.end))
        found = progressed(operation, facts, progress, datetime.now(UTC))
        assert progress is None or found.left >= progress.left - 2 * SLOW, "it comes nearer"
        progress = found
    mirror = (await bench.live(uuid)).mirror
    assert mirror is not None
    assert not mirror.ready
    await bench.driver.abort(uuid, "vda")
    await bench.seen_job("vda", JobStatus.CANCELED)
    assert await bench.live(uuid) == before
    assert await bench.visible(uuid, "vda") == {0: 1, 1: 1} | written
    await bench.commit(uuid, layers[0], None)
    await bench.finish(uuid, "vda")
    await bench.driver.pivot(uuid, "vda")
    assert (await bench.live(uuid)).keys == keys(layers[0])
    assert await bench.visible(uuid, "vda") == {0: 1, 1: 1} | written


async def test_pivot_of_a_commit_below(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    layers = await bench.stack(uuid, [{0: 1}, dict.fromkeys(FULL, 2), {0: 3}])
    await bench.commit(uuid, layers[0], layers[1], bandwidth=SLOW)
    with pytest.raises(NotReady):
        await bench.driver.pivot(uuid, "vda")
    await bench.driver.abort(uuid, "vda")
    event = await bench.seen_job("vda", JobStatus.CANCELED)
    assert event.kind is JobKind.COMMIT
    assert (await bench.live(uuid)).keys == keys(*reversed(layers))
    assert await bench.visible(uuid, "vda") == dict.fromkeys(FULL, 2) | {0: 3}


async def test_one_job_per_disk_and_many_per_domain(bench: Workbench) -> None:
    uuid = await bench.machine(
        {"vda": Drive(await bench.image(Kind.FILE)), "vdb": Drive(await bench.image(Kind.FILE))}
    )
    layers = await bench.stack(uuid, [{0: 1}, dict.fromkeys(FULL, 2), dict.fromkeys(FULL, 3)])
    other = (await bench.live(uuid, "vdb")).layers[0].source
    await bench.take(uuid, {"vdb": await bench.place(Kind.FILE)})
    await bench.write(uuid, "vdb", dict.fromkeys(FULL, 4))
    await bench.commit(uuid, layers[0], layers[1], bandwidth=SLOW)
    with pytest.raises(Busy) as beside_plain:
        await bench.commit(uuid, layers[1], None)
    await bench.commit(uuid, other, None, target="vdb", bandwidth=SLOW)
    with pytest.raises(Busy) as beside_mirror:
        await bench.commit(uuid, other, None, target="vdb")
    assert (beside_plain.value.code, beside_mirror.value.code) == (84, 83)
    with pytest.raises(Busy):
        await bench.pull(uuid, layers[0])
    with pytest.raises(Busy):
        await bench.driver.flush(uuid, "vda", SIZE_BYTES)
    assert set((await bench.driver.read(uuid)).jobs) == {"vda", "vdb"}
    await bench.finish(uuid, "vdb")
    await bench.driver.pivot(uuid, "vdb")
    await bench.finish(uuid, "vda")
    assert await bench.visible(uuid, "vda") == dict.fromkeys(FULL, 3)
    assert await bench.visible(uuid, "vdb") == dict.fromkeys(FULL, 4)


async def test_refusals_leave_everything_alone(bench: Workbench) -> None:
    uuid, layers = await five_layers(bench)
    before = await bench.live(uuid)
    names = [await bench.name(uuid, layer) for layer in layers]
    refused: list[tuple[str, str | None, type[Exception], int]] = [
        ("vda[99]", None, NotFound, 8),
        (names[0], "vda[99]", NotFound, 8),
        (names[3], names[1], NotFound, 8),
        (names[1], names[1], NotFound, 8),
        (names[4], None, NotFound, 8),
        (names[1], names[4], OperationFailed, 8),
    ]
    for base, top, error, code in refused:
        with pytest.raises(error) as raised:
            await bench.driver.commit(uuid, "vda", base=base, top=top, relative=False, bandwidth=0)
        assert getattr(raised.value, "code", None) == code, (base, top)
    with pytest.raises(NotFound):
        await bench.driver.commit(uuid, "vdq", base="vdq[1]", top=None, relative=False, bandwidth=0)
    with pytest.raises(NotFound):
        await bench.driver.pivot(uuid, "vda")
    with pytest.raises(NotFound):
        await bench.driver.abort(uuid, "vda")
    assert await bench.live(uuid) == before
    assert await bench.visible(uuid, "vda") == overlaid(*CONTENTS)


async def test_relative_is_refused_on_absolute_headers(bench: Workbench) -> None:
    uuid, layers = await five_layers(bench)
    with pytest.raises(CannotKeepRelative) as error:
        await bench.commit(uuid, layers[1], layers[2], relative=True)
    assert error.value.code == 55
    assert len((await bench.live(uuid)).layers) == 5


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.GLUSTER])
async def test_relative_names_survive_if_asked_and_only_then(bench: Workbench, kind: Kind) -> None:
    layers = [await bench.image(kind)]
    for _ in range(3):
        layers.append(await bench.image(kind, backing=layers[-1], relative=True))
    uuid = await bench.machine({"vda": Drive(layers[3])})
    await bench.write(uuid, "vda", {1: 1})
    await bench.commit(uuid, layers[1], layers[2], relative=True)
    await bench.finish(uuid, "vda")
    assert (await bench.live(uuid)).keys == keys(layers[3], layers[1], layers[0])
    assert await bench.backing_name(layers[3]) == layers[1].leaf
    await bench.commit(uuid, layers[0], layers[1])
    await bench.finish(uuid, "vda")
    spelled = layers[0].uri.replace("/gv0/", "/gv0/./")  # as libvirt came to spell it by following "name"
    assert await bench.backing_name(layers[3]) == spelled
    await bench.stop(uuid)
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(layers[3], layers[0])
    assert await bench.visible(uuid, "vda") == {1: 1}


async def test_definition_forgets_a_chain_it_only_half_lists(bench: Workbench) -> None:
    """Layers that were there before the machine started are in no definition; a commit into them makes
    libvirt forget the rest as well."""
    base = await bench.image(Kind.FILE)
    middle = await bench.image(Kind.FILE, backing=base)
    active = await bench.image(Kind.FILE, backing=middle)
    uuid = await bench.machine({"vda": Drive(active)})
    overlay = await bench.place(Kind.FILE)
    await bench.take(uuid, {"vda": overlay})
    assert (await bench.inactive(uuid)).keys == keys(overlay, active)
    await bench.commit(uuid, base, middle)
    await bench.finish(uuid, "vda")
    assert (await bench.live(uuid)).keys == keys(overlay, active, base)
    assert (await bench.inactive(uuid)).keys == keys(overlay)
    await bench.stop(uuid)
    await bench.start(uuid)
    live = await bench.live(uuid)
    assert live.keys == keys(overlay, active, base)
    assert live.end is ChainEnd.KNOWN


async def test_stopped_machine(bench: Workbench) -> None:
    uuid, _ = await five_layers(bench)
    await bench.stop(uuid)
    with pytest.raises(NotFound):
        await bench.driver.commit(uuid, "vda", base="vda[1]", top=None, relative=False, bandwidth=0)
