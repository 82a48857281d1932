"""Every reason not to do something: when it speaks, when it does not, and whether a person can act on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.api.reasons import Reason
from controller.chain.blocked import Why
from controller.chain.disk import ChainEnd, Disk, Layer, Mirror
from controller.chain.guards import (
    disk_guard,
    domain_guard,
    foreign_job_guard,
    overlay_required,
    ownership_guard,
    unflushed,
    unsettled,
)
from controller.chain.journal import OperationKind
from controller.chain.observation import Job, JobKind, RunState
from controller.chain.outcome import Outcome
from controller.chain.source import Source
from tests.chain import builders as b
from tests.chain.verdicts import says

K = OperationKind
PLAIN = b.observation(b.facts(b.disk("base")))


@pytest.mark.parametrize("why", list(Why))
def test_every_why_is_a_reason_of_the_api(why: Why) -> None:
    assert Reason(why.value).sentence


@pytest.mark.parametrize(
    ("changes", "why", "words"),
    [
        ({}, None, ()),
        ({"journal_problem": "version 2: upgrade it"}, Why.JOURNAL_UNREADABLE, ("version 2", "upgrade")),
        ({"foreign_owner": "c-2"}, Why.FOREIGN_OWNER, ("web-1", "c-2", "spec.takeOverFrom")),
        ({"foreign_owner": "c-2", "journal_problem": "bad"}, Why.JOURNAL_UNREADABLE, ("bad",)),
    ],
)
def test_ownership(changes: dict[str, object], why: Why | None, words: tuple[str, ...]) -> None:
    found = ownership_guard(replace(PLAIN, **changes))  # type: ignore[arg-type]
    if why is None:
        assert found is None
    else:
        says(found, why, *words)


def test_a_name_is_quoted_for_the_shell_that_it_is_copied_into() -> None:
    named = replace(PLAIN, name="web; reboot", state=RunState.SHUTOFF)
    says(domain_guard(named), Why.WAITING_FOR_DOMAIN, "virsh start 'web; reboot'")


@pytest.mark.parametrize(
    ("changes", "why", "words"),
    [
        ({"state": RunState.RUNNING}, None, ()),
        ({"state": RunState.PAUSED}, None, ()),
        ({"state": RunState.SHUTOFF}, Why.WAITING_FOR_DOMAIN, ("web-1", "shut off", "virsh start web-1")),
        ({"state": RunState.OTHER}, Why.WAITING_FOR_DOMAIN, ("web-1", "neither running nor paused")),
        ({"domain_job": "migration"}, Why.MIGRATING, ("web-1", "migration", "after it")),
        ({"state": RunState.SHUTOFF, "domain_job": "save"}, Why.WAITING_FOR_DOMAIN, ("web-1",)),
    ],
)
def test_domain(changes: dict[str, object], why: Why | None, words: tuple[str, ...]) -> None:
    found = domain_guard(replace(PLAIN, **changes))  # type: ignore[arg-type]
    if why is None:
        assert found is None
    else:
        says(found, why, *words)


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        (b.disk("base"), ()),
        (b.disk(), ("no medium",)),
        (b.disk(device="cdrom"), ("no medium",)),
        (b.disk("base", device="cdrom"), ("a cdrom",)),
        (b.disk("base", device="lun"), ("a lun",)),
        (b.disk("base", device="floppy"), ("a floppy",)),
        (b.disk("base", readonly=True), ("read-only",)),
        (b.disk("base", shareable=True), ("shareable", "other machines")),
        (b.disk("base", transient=True), ("transient", "thrown away")),
    ],
)
def test_disk(disk: Disk, words: tuple[str, ...]) -> None:
    if not words:
        assert disk_guard(disk) is None
        return
    says(disk_guard(disk), Why.DISK_UNSUPPORTED, "disk vda", "name another disk", *words)


@pytest.mark.parametrize(
    ("mirror", "job", "words"),
    [
        (None, None, ()),
        (None, Job(JobKind.PULL, 1, 2), ("a pull job",)),
        (None, Job(JobKind.OTHER, 0, 0), ("a other job",)),
        (Mirror("copy", False, "k"), None, ("a copy job",)),
        (Mirror("active-commit", True, "k"), Job(JobKind.ACTIVE_COMMIT, 2, 2), ("a active-commit job",)),
    ],
)
def test_foreign_job(mirror: Mirror | None, job: Job | None, words: tuple[str, ...]) -> None:
    found = foreign_job_guard(b.facts(b.disk("o", "base", mirror=mirror), job=job))
    if not words:
        assert found is None
        return
    says(found, Why.FOREIGN_BLOCK_JOB, "disk vda", "left alone", "virsh blockjob", *words)


def test_overlay_required() -> None:
    source = Source.network("nbd", "exp0")
    chain = Disk("vda", "disk", (Layer(source, "raw"),), ChainEnd.KNOWN)
    says(
        overlay_required(chain),
        Why.OVERLAY_REQUIRED,
        "disk vda",
        "nbd",
        source.uri,
        "spec.overlay.directory",
        "class",
    )
    block = replace(chain, layers=(Layer(Source("block", '<source dev="/dev/sdx"/>'), "raw"),))
    says(overlay_required(block), Why.OVERLAY_REQUIRED, "block", "/dev/sdx")


# Operations that cannot be settled -----------------------------------------------------------------------


def test_unflushed() -> None:
    begun = b.operation(K.PULL, "top", "o2", "o1")
    says(
        unflushed(begun, "vda"),
        Why.CHAIN_DIVERGED,
        "disk vda",
        "/images/o2, /images/o1",
        "docs/operations.md",
        "Unflushed pull",
    )


@pytest.mark.parametrize(
    ("found", "why", "words"),
    [
        (Outcome.HALF, Why.CHAIN_DIVERGED, ("persistent definition", "docs/operations.md")),
        (Outcome.UNKNOWN, Why.CHAIN_UNKNOWN, ("far enough down",)),
        (Outcome.DIVERGED, Why.CHAIN_DIVERGED, ("somebody else", "/images/o1", "until the chain fits")),
    ],
)
@pytest.mark.parametrize("kind", list(K))
def test_unsettled(kind: OperationKind, found: Outcome, why: Why, words: tuple[str, ...]) -> None:
    says(
        unsettled(found, b.operation(kind, "o1", "o2"), "web-1", "vda"),
        why,
        "disk vda",
        f"a {kind.value}",
        *words,
    )


@pytest.mark.parametrize("kind", list(K))
def test_a2_libvirt_out_of_step(kind: OperationKind) -> None:
    """A2: what to do is a stop and a start, in words that can be copied."""
    found = unsettled(Outcome.OUT_OF_STEP, b.operation(kind, "o1", "o2"), "web 1", "vda")
    says(found, Why.OUT_OF_STEP, "disk vda", "/images/o1", "virsh shutdown 'web 1'", "Do not migrate")


def test_a2_a_machine_that_libvirt_lost() -> None:
    """A2: it must not be started before somebody has looked."""
    found = unsettled(Outcome.LOST_TRACK, b.operation(K.ACTIVE_COMMIT, "o1", "o2"), "web-1", "vda")
    says(found, Why.OUT_OF_STEP, "do not start it", "docs/operations.md", "/images/o1", "/images/o2")
