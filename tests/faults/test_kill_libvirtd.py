"""A2: libvirtd is killed between what QEMU has done and its own note of that, and started again at once.

What it shows afterwards is not what QEMU does. Nothing that QEMU has open is removed then; the object says
what is the matter; and one orderly stop and start later everything has gone on by itself.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from lab.deadline import wait_until
from lab.machines.monitor import Moment
from tests.e2e.stage import AT_ONCE, Stage, other_class
from tests.faults.subject import OUT_OF_STEP, WITHIN, Subject, opened, unlinked

pytestmark = [pytest.mark.real, pytest.mark.cluster]

_SWITCHED = Moment("answered", "transaction")  # of a take: the guest writes to the overlay
_DISMISSED = Moment("answered", "job-dismiss")  # of a merge: QEMU has forgotten the job
_DETACHED = Moment("answered", "blockdev-del")  # and the image
_UNTOLD = Moment("answered", "transaction", 2)  # of a pivot: the status file is one that libvirtd cannot read


def merging(stage: Stage, direction: str) -> None:
    """How deletions are merged from now on."""
    stage.shop.apply(other_class("killed", merge={**AT_ONCE, "direction": direction}))


def ends_with_a_start(ready: dict[str, str]) -> bool:
    """What the object waits for is that its machine is stopped and started, and it says so."""
    if "left by a snapshot call that was cut off" in ready["message"]:
        return True  # a merge into what that stands on, or the removal of it
    return ready["reason"] == OUT_OF_STEP and bool(ready["message"])


def taken(subject: Subject, count: int) -> list[str]:
    """So many points of vda, oldest first."""
    names = [f"{subject.machine.name}-{number}" for number in range(count)]
    for name in names:
        subject.machine.wait_writing()
        subject.stage.shop.apply(subject.ask(name, "vda"))
        subject.stage.shop.ready(name)
        subject.capture_ready()
    return names


def killed_at(subject: Subject, moment: Moment, act: Callable[[], None]) -> None:
    """Do it, and be sure that libvirtd was killed at this moment of it."""
    subject.monitor.kill_at(moment)
    act()
    assert subject.monitor.killed.wait(WITHIN), f"libvirtd was not killed {moment}"
    subject.stage.host.start()


def mended(subject: Subject, name: str) -> None:
    """The object says so; the stored definition is made true; nothing is unlinked; a stop and a start do the
    rest."""
    ready = subject.stage.shop.told(name, f"{subject.machine.name} is shut down and started", timeout=WITHIN)
    assert ready["reason"] == OUT_OF_STEP
    assert ready["status"] != "True"
    subject.definition_is_safe()
    subject.machine.wait_writing()
    assert unlinked(subject.stage, [subject.machine]) == []
    subject.stop()
    subject.start()


@pytest.mark.parametrize("kind", ["file", "gluster", "nbd"])
def test_killed_when_qemu_has_switched_to_the_overlay(stage: Stage, kind: str) -> None:
    subject = Subject.make(stage, kind, "split", places=4)
    merging(stage, "Commit")
    stage.host.restart()
    taken(subject, 1)
    name = f"{subject.machine.name}-split"
    before = opened(subject.machine)["vda"]
    killed_at(subject, _SWITCHED, lambda: stage.shop.apply(subject.ask(name, "vda")))
    assert opened(subject.machine)["vda"][1:] == before
    mended(subject, name)
    stage.shop.ready(name, timeout=WITHIN)
    subject.verify()
    subject.points["vda"].delete(*subject.names("vda"), timeout=WITHIN)
    subject.verify()


MERGES = {
    "commit": ("Commit", 1, [_DISMISSED, _DETACHED]),
    "pull": ("Pull", 2, [_DISMISSED, _DETACHED]),
    "pivot": ("Commit", 2, [_DISMISSED]),
}
CASES = [
    pytest.param(kind, direction, unwanted, moment, id=f"{kind}, {merge}, {moment}")
    for merge, (direction, unwanted, moments) in MERGES.items()
    for moment in moments
    for kind in (("file", "gluster", "nbd") if merge == "pivot" else ("file",))
]


@pytest.mark.parametrize(("kind", "direction", "unwanted", "moment"), CASES)
def test_killed_when_qemu_has_merged(
    stage: Stage, kind: str, direction: str, unwanted: int, moment: Moment
) -> None:
    title = f"{'pull' if direction == 'Pull' else 'commit'}-{unwanted}-{moment.name.removeprefix('job-')}"
    subject = Subject.make(stage, kind, title, places=4)
    merging(stage, direction)
    stage.host.restart()
    name = taken(subject, 3)[unwanted]
    before = opened(subject.machine)["vda"]
    del subject.points["vda"].kept[name]
    killed_at(subject, moment, lambda: stage.shop.begin_delete(name))
    assert len(opened(subject.machine)["vda"]) == len(before) - 1
    mended(subject, name)
    stage.shop.gone(name, timeout=WITHIN)
    subject.verify()


def test_killed_so_that_libvirt_loses_the_machine(stage: Stage) -> None:
    """In a pivot libvirt 9.0 writes a status file that it cannot read: it says that the machine is off, and
    QEMU runs on. Nothing is removed, and the object says that a person must look."""
    subject = Subject.make(stage, "file", "lost")
    merging(stage, "Commit")
    stage.host.restart()
    name = taken(subject, 2)[1]
    del subject.points["vda"].kept[name]
    killed_at(subject, _UNTOLD, lambda: stage.shop.begin_delete(name))
    assert subject.lost
    message = stage.shop.waits_for(name, OUT_OF_STEP, timeout=WITHIN)
    assert "do not start it" in message
    assert unlinked(stage, [subject.machine]) == []
    subject.end_lost()
    subject.start()
    stage.shop.gone(name, timeout=WITHIN)
    subject.verify()


# At random

_TAKES = [
    *[
        Moment("before", "transaction"),
        Moment("answered", "blockdev-add"),
        Moment("answered", "blockdev-create"),
    ],
    *[Moment("answered", "job-dismiss"), Moment("answered", "blockdev-add", 2)],
    *[_SWITCHED] * 4,
    *[Moment("after", "transaction")] * 4,
]
_ENDS = [
    *[Moment("answered", "BLOCK_JOB_COMPLETED"), Moment("before", "job-dismiss")],
    *[_DISMISSED, _DETACHED] * 2,
    *[Moment("answered", "blockdev-del", 2), Moment("after", "blockdev-del", 2)] * 2,
]
MOMENTS = {
    "take": _TAKES,
    "take both": [*_TAKES, Moment("answered", "blockdev-add", 4)],
    "commit": [Moment("before", "block-commit"), Moment("answered", "block-commit"), *_ENDS],
    "pull": [Moment("before", "block-stream"), Moment("answered", "block-stream"), *_ENDS],
    "pivot": [
        *[Moment("answered", "block-commit"), Moment("answered", "BLOCK_JOB_READY")],
        *[Moment("after", "BLOCK_JOB_READY"), Moment("answered", "transaction")],
        *[Moment("before", "job-complete"), Moment("answered", "job-complete")],
        *[_UNTOLD, *_ENDS],
    ],
}
"""Where in an act libvirtd is killed. What comes more than once is where it loses track."""
_DEEPEST = 4
_AT_ANY_INSTANT = 0.25
"""Share of kills that are at a time, and not at a message."""


@dataclass(frozen=True)
class Blow:
    """One act, and the kill in it: at a moment of the monitor, or so many seconds after it was asked for."""

    machine: str
    act: str
    names: tuple[str, ...]
    at: Moment | float

    def __str__(self) -> str:
        when = f"{self.at:.3f} s after" if isinstance(self.at, float) else str(self.at)
        return f"{self.machine}: {self.act} {', '.join(self.names)}: {when}"


@dataclass
class Campaign:
    """The blows of one seed, and what came of them."""

    stage: Stage
    random: random.Random
    subjects: list[Subject]
    history: list[str] = field(default_factory=list)
    landed: Counter[str] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 1 << 30)))

    def next(self) -> tuple[Subject, Blow]:
        """What is done next; the same for the same seed."""
        subject = self.random.choice(self.subjects)
        disk = self.random.choice(subject.machine.disks)
        names = subject.names(disk)
        acts = ["take"] if len(names) < _DEEPEST else []
        if all(len(subject.names(one)) < _DEEPEST for one in subject.machine.disks):
            acts.append("take both")
        acts += ["pivot"] if names else []
        # What lies below a qcow2 base on NBD libvirt never says, so nothing is pulled up from there.
        acts += ["pull"] if len(names) > (subject.kind == "nbd") else []
        acts += ["commit"] * 2 if len(names) > 1 else []
        act = self.random.choice(acts)
        disks = subject.machine.disks if act == "take both" else [disk]
        if act.startswith("take"):
            chosen = tuple(f"{subject.machine.name}-{one}-{next(self.numbers)}" for one in disks)
        else:
            chosen = (self.random.choice(names[:-1]) if act == "commit" else names[-1],)
        return subject, Blow(subject.machine.name, act, chosen, self._instant(act))

    def _instant(self, act: str) -> Moment | float:
        if self.random.random() < _AT_ANY_INSTANT:
            return self.random.uniform(0.05, 0.8)
        moment = self.random.choice(MOMENTS[act])
        late = self.random.uniform(0, 0.006) if moment.side == "after" else 0.0
        return Moment(moment.side, moment.name, moment.number, late)

    def strike(self, subject: Subject, blow: Blow) -> None:
        """The act, the kill, and libvirtd again at once."""
        host = self.stage.host
        self.history.append(str(blow))
        subject.machine.wait_writing()
        merging(self.stage, "Pull" if blow.act == "pull" else "Commit")
        act = self._prepared(subject, blow)
        if isinstance(blow.at, float):
            timer = threading.Timer(blow.at, host.kill)
            timer.start()
            act()
            timer.join()
            self.landed[f"{blow.act}, at any instant"] += 1
        else:
            subject.monitor.kill_at(blow.at)
            act()
            came = subject.monitor.killed.wait(WITHIN / 3)
            subject.monitor.kill_at(None)
            if not came:
                host.kill()
            self.landed[
                f"{blow.act}, {blow.at.side} {blow.at.name} #{blow.at.number}" if came else "missed"
            ] += 1
        host.start()

    def _prepared(self, subject: Subject, blow: Blow) -> Callable[[], None]:
        """The act, with everything asked beforehand that it needs to know."""
        if blow.act.startswith("take"):
            disks = [name.split("-")[-2] for name in blow.names]
            asked = [subject.ask(name, disk) for name, disk in zip(blow.names, disks, strict=True)]
            return lambda: self.stage.shop.apply(*asked)
        for points in subject.points.values():
            points.kept.pop(blow.names[0], None)
        return lambda: self.stage.shop.begin_delete(*blow.names)

    def settle(self, *, started: bool = False) -> bool:
        """Wait until each object is Ready, gone, or waits for a stop and a start (not after one: `started`).
        Returns whether one waits."""
        reasons: list[str] = []

        def settled() -> bool:
            reasons[:] = []
            for name, found in self.stage.shop.objects().items():
                conditions = found.get("status", {}).get("conditions", [])
                ready = next((one for one in conditions if one["type"] == "Ready"), None)
                if ready is None:
                    return False
                if not started and ends_with_a_start(ready):
                    reasons.append(name)
                elif ready["status"] != "True" or "deletionTimestamp" in found["metadata"]:
                    return False
            return True

        wait_until(settled, timeout=WITHIN, what="every object is Ready, gone, or says why not", interval=0.3)
        return bool(reasons)

    def nothing_is_unlinked(self) -> None:
        """Whatever a QEMU has open has its name still."""
        assert unlinked(self.stage, [one.machine for one in self.subjects]) == []

    def renew(self, subject: Subject) -> None:
        """One orderly stop and start."""
        if subject.lost:
            self.landed["(the machine was lost)"] += 1
            subject.end_lost()
        else:
            subject.definition_is_safe()
            subject.stop()
        subject.start()


@pytest.mark.timeout(4 * 3600)
def test_killed_at_random(stage: Stage) -> None:
    """Done again and again, on all kinds of disks. VARVE_LIBVIRTD_KILLS: how often; VARVE_SEED: which."""
    kills = int(os.environ.get("VARVE_LIBVIRTD_KILLS") or 8)
    seed = int(os.environ.get("VARVE_SEED") or 20261128)
    merging(stage, "Commit")
    subjects = [Subject.make(stage, kind, "random", places=10) for kind in ("file", "gluster", "nbd")]
    stage.host.restart()
    campaign = Campaign(stage, random.Random(seed), subjects)  # noqa: S311 - to be replayed
    try:
        for _ in range(kills):
            subject, blow = campaign.next()
            campaign.strike(subject, blow)
            campaign.nothing_is_unlinked()
            waits = campaign.settle()
            campaign.nothing_is_unlinked()
            if waits or len(campaign.history) % 8 == 0:
                campaign.history.append("  (stopped and started)")
                campaign.renew(subject)
                campaign.settle(started=True)
            subject.verify()
        for subject in subjects:
            campaign.renew(subject)
        campaign.settle(started=True)
        for subject in subjects:
            subject.verify()
    finally:
        print(f"VARVE_SEED={seed} VARVE_LIBVIRTD_KILLS={kills}", *campaign.history, sep="\n")
        print("kills landed:", *sorted(campaign.landed.items()), sep="\n")
