"""The calls that change a chain, and the traps of libvirt and QEMU that the code around them depends on."""

from __future__ import annotations

import json
from pathlib import Path

import libvirt
import pytest

from controller.chain.disk import ChainEnd
from controller.chain.observation import JobKind
from controller.chain.parse import parse_domain
from controller.chain.source import Source
from controller.hypervisor import errors
from controller.hypervisor.driver import Driver, JobStatus
from controller.hypervisor.reading import gate_of
from lab import Disk
from lab.pytest_plugin import MachineFactory
from lab.storage.image import run_qemu_tool
from lab.storage.nbd import NbdServers
from tests.hypervisor.real import files
from tests.hypervisor.real.subject import Events, Subject

pytestmark = pytest.mark.real

SLOW = 65536
"""Bytes per second at which no job of these tests over a filled layer comes to its end."""


async def test_a_disk_that_is_not_listed_is_snapshotted_as_well(subject: Subject) -> None:
    overlay = subject.overlay((await subject.layers())[0].source)
    await subject.driver.create_snapshot(subject.uuid, subject.snapshot_xml(overlay, others=False))
    assert len(subject.machine.chain("vda")) == 2
    assert len(subject.machine.chain("vdb")) == 2, "libvirt changed: other disks need no snapshot='no'"


async def test_a_take_changes_the_listed_disk_alone_in_both_definitions(subject: Subject) -> None:
    before = await subject.keys()
    overlay = await subject.take()
    assert await subject.keys() == (overlay.key, *before)
    assert await subject.keys(inactive=True) == (overlay.key, *before)
    assert len(subject.machine.chain("vdb")) == 1
    domain = subject.machine.domain
    assert domain.snapshotNum() == 0, "snapshot metadata would forbid migration"


async def test_an_existing_target_is_refused_and_left_alone(subject: Subject) -> None:
    before = await subject.keys()
    overlay = subject.overlay((await subject.layers())[0].source)
    files.write(overlay.path, b"somebody's")
    with pytest.raises(errors.AlreadyExists):
        await subject.driver.create_snapshot(subject.uuid, subject.snapshot_xml(overlay))
    assert files.content(overlay.path) == b"somebody's"
    assert await subject.keys() == before


async def test_reuse_takes_the_image_that_was_prepared(subject: Subject) -> None:
    (active, *_) = await subject.layers()
    overlay = subject.overlay(active.source)
    _create_overlay(overlay, backing=active.source.path)
    prepared = files.inode(overlay.path)
    await subject.driver.create_snapshot(subject.uuid, subject.snapshot_xml(overlay), reuse=True)
    assert (await subject.keys())[0] == overlay.key
    assert files.inode(overlay.path) == prepared


async def test_a_take_that_cannot_be_leaves_no_trace(subject: Subject, tmp_path: Path) -> None:
    before = await subject.keys()
    overlay = subject.overlay((await subject.layers())[0].source).file(str(tmp_path / "missing" / "o"))
    with pytest.raises(errors.OperationFailed) as caught:
        await subject.driver.create_snapshot(subject.uuid, subject.snapshot_xml(overlay))
    assert caught.value.code == libvirt.VIR_ERR_SYSTEM_ERROR
    assert await subject.keys() == before
    assert files.names(str(tmp_path)) == set()


async def test_an_index_stays_with_its_layer_and_is_never_used_again(subject: Subject) -> None:
    await subject.take_many(3)
    before = {layer.key: layer.index for layer in await subject.layers()}
    await subject.commit(base=2, top=1)
    await subject.events.job(JobStatus.COMPLETED)
    after = {layer.key: layer.index for layer in await subject.layers()}
    assert after.items() < before.items()
    await subject.take()
    (newest, *_) = await subject.layers()
    assert newest.index not in before.values()


async def test_a_commit_by_index_merges_several_layers_in_one_job(subject: Subject) -> None:
    await subject.take_many(4)
    before = await subject.keys()
    await subject.commit(base=3, top=1)
    event = await subject.events.job(JobStatus.COMPLETED)
    assert (event.target, event.kind) == ("vda", JobKind.COMMIT)
    assert await subject.keys() == (before[0], before[3], before[4])
    assert await subject.keys(inactive=True) == (before[0], before[3], before[4])
    assert (await subject.read()).jobs == {}


async def test_libvirt_refuses_to_commit_the_active_layer_without_the_flag(subject: Subject) -> None:
    await subject.take()
    with pytest.raises(errors.OperationFailed, match="requires active flag"):
        await subject.commit(base=1, top=0)


async def test_an_active_commit_waits_for_its_pivot(subject: Subject) -> None:
    await subject.take()
    before = await subject.keys()
    await subject.commit(base=1, top=None)
    await subject.events.job(JobStatus.READY)
    disk = await subject.disk()
    assert disk.keys == before
    assert disk.mirror is not None
    assert (disk.mirror.job, disk.mirror.ready, disk.mirror.source_key) == ("active-commit", True, before[1])
    assert (await subject.read()).jobs["vda"].kind is JobKind.ACTIVE_COMMIT
    await subject.driver.pivot(subject.uuid, "vda")
    assert await subject.keys() == before[1:]
    assert await subject.keys(inactive=True) == before[1:]
    assert (await subject.disk()).mirror is None


async def test_a_pivot_too_early_is_refused_and_an_abort_changes_nothing(subject: Subject) -> None:
    await subject.take()
    subject.fill()
    before = await subject.keys()
    await subject.commit(base=1, top=None, bandwidth=SLOW)
    job = (await subject.read()).jobs["vda"]
    assert (job.kind, job.bandwidth) == (JobKind.ACTIVE_COMMIT, SLOW), "bandwidth is bytes per second"
    with pytest.raises(errors.NotReady):
        await subject.driver.pivot(subject.uuid, "vda")
    await subject.driver.abort(subject.uuid, "vda")
    await subject.events.job(JobStatus.CANCELED)
    assert await subject.keys() == before
    assert (await subject.disk()).mirror is None


async def test_a_disk_with_a_job_takes_no_second_one(subject: Subject) -> None:
    await subject.take()
    await subject.take()
    subject.fill()
    await subject.take()
    before = await subject.keys()
    await subject.commit(base=2, top=1, bandwidth=SLOW)
    assert (await subject.read()).jobs["vda"].kind is JobKind.COMMIT
    with pytest.raises(errors.NotReady):
        await subject.driver.pivot(subject.uuid, "vda")
    with pytest.raises(errors.Busy):
        await subject.commit(base=3, top=2)
    with pytest.raises(errors.Busy):
        await subject.pull(base=1)
    with pytest.raises(errors.Busy):
        await subject.take()
    other = Subject(subject.driver, subject.machine, subject.events, target="vdb")
    await other.take()
    assert len(await other.keys()) == 2, "another disk is free"
    await subject.driver.abort(subject.uuid, "vda")
    assert await subject.keys() == before


async def test_there_is_nothing_to_abort_without_a_job(subject: Subject) -> None:
    for call in (subject.driver.abort, subject.driver.pivot):
        with pytest.raises(errors.NotFound):
            await call(subject.uuid, "vda")


async def test_a_layer_or_disk_that_is_not_there_is_not_found(subject: Subject) -> None:
    await subject.take()
    for target, base in (("vda", "vda[999]"), ("vdq", "vdq[1]")):
        with pytest.raises(errors.NotFound):
            await subject.driver.commit(
                subject.uuid, target, base=base, top=None, relative=False, bandwidth=0
            )


async def test_relative_on_an_absolute_chain_is_refused_and_changes_nothing(subject: Subject) -> None:
    await subject.take_many(3)
    before = await subject.keys()
    with pytest.raises(errors.CannotKeepRelative):
        await subject.commit(base=2, top=1, relative=True)
    with pytest.raises(errors.CannotKeepRelative):
        await subject.pull(base=2, relative=True)
    assert await subject.keys() == before
    assert (await subject.read()).jobs == {}


@pytest.mark.parametrize("relative", [True, False])
async def test_a_commit_writes_the_header_above_it_as_it_is_told(subject: Subject, relative: bool) -> None:
    """Without RELATIVE a relative chain gets an absolute name."""
    for _ in range(2):
        active = (await subject.layers())[0].source
        overlay = subject.overlay(active)
        _create_overlay(overlay, backing=active.leaf)
        await subject.driver.create_snapshot(subject.uuid, subject.snapshot_xml(overlay), reuse=True)
    await subject.commit(base=2, top=1, relative=relative)
    await subject.events.job(JobStatus.COMPLETED)
    top, base = (layer.source for layer in await subject.layers())
    assert _backing(top) == (base.leaf if relative else base.path)


def _create_overlay(overlay: Source, backing: str) -> None:
    run_qemu_tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", overlay.path)


def _backing(image: Source) -> str:
    """The backing name in the image's header, word for word."""
    backing = json.loads(run_qemu_tool("qemu-img", "info", "-U", "--output=json", image.path))
    return str(backing["backing-filename"])


@pytest.mark.parametrize("running", [True, False], ids=["running", "paused"])
async def test_a_pull_is_flushed_by_resizing_to_the_same_size(subject: Subject, running: bool) -> None:
    await subject.take()
    if running:
        subject.machine.domain.resume()
    await subject.pull(base=None)
    assert (await subject.events.job(JobStatus.COMPLETED)).kind is JobKind.PULL
    assert len(await subject.keys()) == 1
    capacity = next(stats.capacity for stats in (await subject.read()).stats if stats.target == "vda")
    await subject.driver.flush(subject.uuid, "vda", capacity)
    assert subject.machine.domain.blockInfo("vda")[0] == capacity


async def test_a_pull_survives_the_death_of_qemu_after_the_flush(subject: Subject, tmp_path: Path) -> None:
    base = (await subject.layers())[0].source.path
    overlay = await subject.take()
    before, after = tmp_path / "before", tmp_path / "after"
    run_qemu_tool("qemu-img", "convert", "-U", "-O", "raw", base, str(before))
    await subject.pull(base=None)
    await subject.events.job(JobStatus.COMPLETED)
    await subject.driver.flush(subject.uuid, "vda", len(files.content(str(before))))
    subject.machine.kill_qemu()
    files.remove(base)
    run_qemu_tool("qemu-img", "convert", "-O", "raw", overlay.path, str(after))
    assert files.content(str(after)) == files.content(str(before))


async def test_nothing_is_done_to_a_machine_beside_a_pull(subject: Subject) -> None:
    """QEMU 7.2 crashes when its nodes are listed as a pull ends, as libvirt does for all of these."""
    kind = parse_domain(subject.machine.domain.XMLDesc()).machine
    if gate_of(subject.machine.host.connection()).may_watch_pulls(kind):
        pytest.skip("the QEMU of this machine is known to be safe")
    other = Subject(subject.driver, subject.machine, subject.events, target="vdb")
    await other.take()
    subject.fill()
    await subject.take()
    await subject.pull(base=None, bandwidth=SLOW)
    reading = await other.read()
    assert reading.stats == (), "sizes are not asked for while a disk is pulled"
    assert set(reading.jobs) == {subject.target}, "the other disk has no job"
    capacity = 16 << 20
    for change in (
        other.take(),
        other.commit(base=1, top=None),
        other.pull(base=None),
        subject.driver.flush(subject.uuid, "vdb", capacity),
        subject.driver.pivot(subject.uuid, "vdb"),
    ):
        with pytest.raises(errors.Busy, match="a job runs on disk vda"):
            await change
    await subject.driver.abort(subject.uuid, "vda")
    assert (await other.read()).stats
    await other.commit(base=1, top=None)
    with pytest.raises(errors.Busy, match="a job runs on disk vdb"):
        await subject.pull(base=None)
    await subject.driver.abort(subject.uuid, "vdb")


async def test_a_flush_never_cuts_a_disk_that_was_grown(subject: Subject) -> None:
    capacity = subject.machine.domain.blockInfo("vda")[0]
    subject.machine.domain.blockResize("vda", 2 * capacity, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    with pytest.raises(errors.OperationFailed, match="read it again"):
        await subject.driver.flush(subject.uuid, "vda", capacity)
    assert subject.machine.domain.blockInfo("vda")[0] == 2 * capacity


async def test_the_end_of_an_nbd_chain_is_unknown_and_of_a_file_chain_known(
    driver: Driver, events: Events, machines: MachineFactory, nbd: NbdServers
) -> None:
    export = nbd.export("unknown-end", 20 << 20)
    machine = machines("file", Disk.nbd(export))
    file, network = (Subject(driver, machine, events, target) for target in machine.disks)
    assert (await file.disk()).end is ChainEnd.KNOWN
    assert (await network.disk()).end is ChainEnd.UNKNOWN


async def test_the_journal_is_in_both_definitions_and_replaces_itself(subject: Subject) -> None:
    namespace = "https://varve.dev/ns/chain/1"
    domain = subject.machine.domain
    domain.setMetadata(2, "<note>keep me</note>", "other", "https://example.org/other", 3)
    for text in ("one", "two"):
        await subject.driver.set_metadata(
            subject.uuid, f'<journal xmlns="{namespace}">{text}</journal>', live=True, config=True
        )
    reading = await subject.read()
    for xml in (reading.live_xml, reading.inactive_xml):
        assert xml is not None
        assert xml.count("</journal>") == 1, "an element of another shape would pile up"
        assert "two" in (parse_domain(xml).journal_xml or "")
    await subject.driver.set_metadata(subject.uuid, None, live=True, config=True)
    reading = await subject.read()
    for xml in (reading.live_xml, reading.inactive_xml):
        assert xml is not None
        assert parse_domain(xml).journal_xml is None
        assert "keep me" in xml, "another program's metadata"


async def test_a_journal_of_another_namespace_is_a_defect(subject: Subject) -> None:
    with pytest.raises(ValueError, match="namespace"):
        await subject.driver.set_metadata(subject.uuid, "<journal/>", live=True, config=False)


async def test_removing_a_journal_that_is_not_there_is_fine(subject: Subject) -> None:
    await subject.driver.set_metadata(subject.uuid, None, live=True, config=True)
    assert parse_domain((await subject.read()).live_xml or "").journal_xml is None


async def test_a_domain_that_does_not_run_takes_no_live_call(subject: Subject) -> None:
    subject.machine.destroy()
    with pytest.raises(errors.NotRunning):
        await subject.driver.set_metadata(subject.uuid, None, live=True, config=True)
    with pytest.raises(errors.NotRunning):
        await subject.driver.abort(subject.uuid, "vda")


async def test_a_domain_that_is_not_there_is_gone(driver: Driver) -> None:
    nobody = "9b4d4c3c-0000-4000-8000-000000000000"
    with pytest.raises(errors.DomainGone):
        await driver.read(nobody)
    with pytest.raises(errors.DomainGone):
        await driver.set_metadata(nobody, None, live=True, config=True)
