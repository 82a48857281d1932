"""B5: libvirt carries the bitmaps of checkpoints through takes and merges: an incremental backup after a
merge reads as if nothing had been merged. What loses them is pinned here as well, and blocked.

Measured with libvirt 9.0.0 and QEMU 7.2.22.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from controller.chain.cost import Choice, Range
from controller.chain.desired import Policy
from controller.chain.journal import DiskJournal, Journal, OperationKind
from controller.chain.merge_guards import MergeCase, merge_verdict
from controller.hypervisor.driver import JobStatus
from controller.hypervisor.observe import observe, with_usage
from lab import Host
from lab.storage.image import run_qemu_tool
from tests.hypervisor.real.subject import Subject, until

pytestmark = pytest.mark.real

_PATTERNS = itertools.count(1)


class Backups:
    """A disk that is backed up, and its backups in a directory."""

    def __init__(self, subject: Subject, directory: Path) -> None:
        self.subject = subject
        self.directory = directory
        self.written = ""
        """The newest write, as qemu-io has it."""

    @property
    def domain(self) -> Any:
        return self.subject.machine.domain

    def write(self) -> None:
        """Something new at a place of its own, and over a part of what was written before."""
        number = next(_PATTERNS)
        self.written = f"-P {1 + number % 250} {4 + number % 11}M 640k"
        self.monitor(f"write {self.written}")
        self.monitor(f"write -P {1 + number % 250} 2M 640k")

    def monitor(self, command: str) -> None:
        at = self.subject.machine.disks.index(self.subject.target)
        text = f'qemu-io -d /machine/peripheral/virtio-disk{at}/virtio-backend "{command}"'
        flag = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        said = libvirt_qemu.qemuMonitorCommand(self.domain, text, flag)
        assert "error" not in said.lower(), said

    async def backup(self, name: str, *, since: str = "", checkpoint: bool = False) -> Path:
        """What virtual backup software does: a push backup, with a checkpoint to go on from the next time."""
        path = self.directory / f"{name}.qcow2"
        others = "".join(f"<disk name='{o}' backup='no'/>" for o in self.subject.machine.disks if o != "vda")
        incremental = f"<incremental>{since}</incremental>" if since else ""
        xml = (
            f"<domainbackup mode='push'>{incremental}<disks><disk name='vda' type='file'>"
            f"<target file='{path}'/><driver type='qcow2'/></disk>{others}</disks></domainbackup>"
        )
        marks = others.replace("backup='no'", "checkpoint='no'")
        disks = f"<disks><disk name='vda'/>{marks}</disks>"
        mark = f"<domaincheckpoint><name>{name}</name>{disks}</domaincheckpoint>"
        self.domain.backupBegin(xml, mark if checkpoint else None, 0)
        await until(lambda: self.domain.jobStats(0).get("type", 0) == libvirt.VIR_DOMAIN_JOB_NONE)
        return path

    async def restored(self, since: str) -> bool:
        """Whether the backup ``since`` and an increment on it read as the disk reads now."""
        number = next(_PATTERNS)
        increment = await self.backup(f"increment-{number}", since=since)
        now = await self.backup(f"now-{number}")
        if self.written:  # QEMU does not tell the monitor how a write ended
            run_qemu_tool("qemu-io", "-r", "-f", "qcow2", "-c", f"read {self.written}", str(now))
        tool("rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", f"{since}.qcow2", str(increment))
        return tool("compare", str(increment), str(now), fails=True)


def tool(*arguments: str, fails: bool = False) -> bool:
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert fails or done.returncode == 0, done.stderr
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


@pytest.fixture
def backups(subject: Subject, tmp_path: Path) -> Backups:
    return Backups(subject, tmp_path)


async def prepared(backups: Backups, story: str) -> None:
    """``w`` writes, ``t`` takes, ``1`` and ``2`` are full backups with a checkpoint."""
    for act in story:
        match act:
            case "w":
                backups.write()
            case "t":
                await backups.subject.take()
            case _:
                await backups.backup(f"k{act}", checkpoint=True)


async def merged(subject: Subject, way: str) -> None:
    """``commit 3 1``: the layers above 3 up to 1; ``active 2``: all above 2; ``pull 2``, ``pull``: all above
    2, all. Positions from the active layer."""
    kind, *positions = way.split()
    at = [int(position) for position in positions]
    subject.events.seen.clear()
    if kind == "pull":
        await subject.pull(at[0] if at else None)
        await subject.events.job(JobStatus.COMPLETED)
        await until(lambda: not subject.machine.domain.blockJobInfo(subject.target, 0))
        return
    await subject.commit(at[0], at[1] if kind == "commit" else None)
    if kind == "active":
        await subject.events.job(JobStatus.READY)
        await subject.driver.pivot(subject.uuid, "vda")
    await subject.events.job(JobStatus.COMPLETED)


WAYS = [
    "commit 3 1",
    "commit 2 1",
    "commit 3 2",
    "active 3",
    "active 2",
    "active 1",
    "pull",
    "pull 2",
    "pull 1",
]
STORIES = ["w1wtwtwtw", "wtw1wtwtw", "wtwtw1wtw", "wtwtwtw1w", "w1wtw2wtwtw", "wtw1wtwtw2w"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("story", STORIES)
async def test_the_next_increment_is_right(backups: Backups, story: str, way: str) -> None:
    """Wherever the checkpoints lie: in the lowest layer, in the middle, in the active one, or in two."""
    await prepared(backups, story)
    await merged(backups.subject, way)
    backups.write()
    for number in story:
        if number.isdigit():
            assert await backups.restored(f"k{number}")


async def test_what_is_written_while_an_active_commit_runs_is_in_the_increment(backups: Backups) -> None:
    subject = backups.subject
    await prepared(backups, "wtw1wtw")
    await subject.commit(2, None)
    await subject.events.job(JobStatus.READY)
    backups.write()
    await subject.driver.abort(subject.uuid, "vda")
    await until(lambda: not subject.machine.domain.blockJobInfo("vda", 0))
    backups.write()
    assert await backups.restored("k1"), "after one that was given up"
    await subject.commit(2, None)
    await subject.events.job(JobStatus.READY)
    backups.write()
    await subject.driver.pivot(subject.uuid, "vda")
    await subject.events.job(JobStatus.COMPLETED)
    assert await backups.restored("k1")


@pytest.mark.parametrize("way", ["commit 2 1", "active 2", "pull"])
async def test_a_checkpoint_survives_the_merge_and_a_start(backups: Backups, way: str) -> None:
    subject = backups.subject
    await prepared(backups, "wtw1wtw2w")
    await merged(subject, way)
    if way == "pull":
        (active, *_) = (await subject.read()).stats
        await subject.driver.flush(subject.uuid, "vda", active.capacity)
    backups.write()
    backups.domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
    subject.machine.start()
    backups.domain.suspend()
    await subject.take()
    backups.write()
    assert await backups.restored("k2")
    backups.domain.checkpointLookupByName("k2").delete(0)
    assert await backups.restored("k1"), "libvirt has merged the younger bitmap into the older one"


async def test_libvirtd_that_is_away_at_the_end_of_a_commit_carries_the_bitmaps_later(
    backups: Backups, host: Host
) -> None:
    subject = backups.subject
    await prepared(backups, "wtw1w")
    subject.fill(8)
    await subject.take()
    await subject.commit(2, 1, bandwidth=4 << 20)
    host.kill()
    await asyncio.sleep(4)  # the job has copied its 8 MiB by then; nobody is there to tell
    host.start()
    await until(lambda: len(subject.machine.chain()) == 2)
    backups.write()
    assert await backups.restored("k1")


async def on_an_old_base(backups: Backups, form: str) -> None:
    """The base becomes one that holds no bitmaps: raw, or qcow2 as QEMU before 1.7 made it."""
    machine = backups.subject.machine
    machine.destroy()
    [base] = [layer.source.name for layer in machine.chain(inactive=True)]
    if form == "raw":
        tool("convert", "-O", "raw", base, f"{base}.raw")
        xml = machine.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        machine.host.connection().defineXML(
            xml.replace(base, f"{base}.raw", 1).replace("type='qcow2'", "type='raw'", 1)
        )
    else:
        tool("amend", "-f", "qcow2", "-o", "compat=0.10", base)
    machine.start()
    machine.domain.suspend()


async def objection(subject: Subject, way: Choice) -> str:
    """What is against it, with all that a pass knows."""
    found = await observe(subject.driver, subject.uuid, identities=())
    keys = await subject.keys()
    record = DiskJournal("vda", images=frozenset(keys[:-1]))
    found = replace(found, journal=Journal("c", (record,)))
    found = await with_usage(subject.driver, found, merging=True)
    facts = found.disks["vda"]
    assert facts.chain is not None
    blocked = merge_verdict(MergeCase(found, facts, facts.chain, way, Policy()))
    return "" if blocked is None else blocked.message


DOWN = Choice(Range(1, 2), 2, 0, (OperationKind.COMMIT,))
PIVOTED = Choice(Range(0, 2), 2, 0, (OperationKind.ACTIVE_COMMIT,))
UP = Choice(Range(0, 2), 0, 0, (OperationKind.PULL,))


@pytest.mark.parametrize("form", ["raw", "0.10"])
async def test_a_base_that_holds_no_bitmaps_loses_them_so_nothing_is_merged_into_it(
    backups: Backups, form: str
) -> None:
    """After a commit in the middle libvirt says nothing of it, and the increment misses what was merged."""
    subject = backups.subject
    await on_an_old_base(backups, form)
    await prepared(backups, "wtw1wtw")
    for way in (DOWN, PIVOTED):
        assert "checkpoint k1" in await objection(subject, way)
        assert form in await objection(subject, way)
    assert not await objection(subject, UP)
    await merged(subject, "commit 2 1")
    assert not await backups.restored("k1")


@pytest.mark.parametrize("way", [DOWN, PIVOTED, UP])
async def test_nothing_is_against_a_merge_that_takes_them_along(backups: Backups, way: Choice) -> None:
    """The base was made by others, and says of itself that it holds bitmaps."""
    await prepared(backups, "wtw1wtw")
    assert not await objection(backups.subject, way)
