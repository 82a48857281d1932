"""What became of an operation: every kind against every outcome, from nothing but the chains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.chain.disk import ChainEnd, Disk, Mirror
from controller.chain.journal import Operation, OperationKind, Removal
from controller.chain.observation import DiskFacts, Job, JobKind
from controller.chain.opened import Opened, OpenedImage
from controller.chain.outcome import Outcome, abandoned, asks_qemu, fits, outcome, real_chain, settled
from tests.chain import builders as b

K, E = OperationKind, ChainEnd

TAKE = b.operation(K.TAKE, "new", "c")
COMMIT = b.operation(K.COMMIT, "base", "b", "a")
ACTIVE = b.operation(K.ACTIVE_COMMIT, "a", "c", "b")
PULL = b.operation(K.PULL, "c", "b", "a", below="base")
FLATTEN = b.operation(K.PULL, "c", "b", "a", "base")

OLD = ("c", "b", "a", "base")


def running(kind: JobKind) -> Job:
    return Job(kind, 5, 10)


def mirrored(kept: str, *, ready: bool, job: str = "active-commit") -> Disk:
    return b.disk(*OLD, mirror=Mirror(job, ready, b.key(kept)))


def as_persistent(*names: str) -> Disk:
    return b.plain(b.disk(*names))


def unknown_end(*names: str) -> Disk:
    return b.disk(*names, end=E.UNKNOWN)


def in_qemu(*names: str) -> Opened:
    images = tuple(OpenedImage(f"/images/{name}", "qcow2") for name in names)
    return Opened(images, frozenset(image.name for image in images))


SWITCHING = Mirror("active-commit", ready=False, source_key=b.key("a"), switching=True)
PIVOTING = replace(ACTIVE, pivoting=True)

A2: list[tuple[str, Operation, DiskFacts, Outcome]] = [
    ("pull, QEMU did", PULL, b.facts(b.disk(*OLD), opened=in_qemu("c", "base")), Outcome.OUT_OF_STEP),
    (
        "pivot, QEMU switched",
        ACTIVE,
        b.facts(b.disk(*OLD, mirror=SWITCHING), opened=in_qemu("a", "base")),
        Outcome.OUT_OF_STEP,
    ),
    (
        "a mirror without a job",
        ACTIVE,
        b.facts(b.disk(*OLD, mirror=SWITCHING), opened=in_qemu(*OLD)),
        Outcome.OUT_OF_STEP,
    ),
    (
        "abort taken for a pivot",
        ACTIVE,
        b.facts(b.disk("a", "base"), opened=in_qemu(*OLD)),
        Outcome.OUT_OF_STEP,
    ),
    ("pivot, machine lost", PIVOTING, b.facts(None, inactive=as_persistent(*OLD)), Outcome.LOST_TRACK),
    (
        "pivot, stopped under libvirt's eyes",
        PIVOTING,
        b.facts(None, inactive=as_persistent(*OLD), stop_is_known=True),
        Outcome.UNDONE,
    ),
    ("stopped before the pivot", ACTIVE, b.facts(None, inactive=as_persistent(*OLD)), Outcome.UNDONE),
    (
        "no mirror, all copied",
        ACTIVE,
        b.facts(b.disk(*OLD), job=Job(JobKind.ACTIVE_COMMIT, 10, 10)),
        Outcome.READY,
    ),
    ("pivot, half", PIVOTING, b.facts(b.disk("a", "base"), inactive=as_persistent(*OLD)), Outcome.HALF),
]

TABLE: list[tuple[str, Operation, DiskFacts, Outcome]] = [
    # Take: a job never belongs to it, so it is never running or ready.
    ("take, overlay on top", TAKE, b.facts(b.disk("new", *OLD)), Outcome.DONE),
    ("take, overlay below a newer one", TAKE, b.facts(b.disk("newer", "new", *OLD)), Outcome.DONE),
    ("take, transient domain", TAKE, b.facts(b.disk("new", *OLD), inactive=None), Outcome.DONE),
    ("take, machine off", TAKE, b.facts(None, inactive=as_persistent("new", *OLD)), Outcome.DONE),
    ("take, live only", TAKE, b.facts(b.disk("new", *OLD), inactive=as_persistent(*OLD)), Outcome.HALF),
    ("take, chain as before", TAKE, b.facts(b.disk(*OLD)), Outcome.UNDONE),
    ("take, chain as before, end unknown", TAKE, b.facts(unknown_end("c")), Outcome.UNDONE),
    (
        "take, chain as before, foreign job",
        TAKE,
        b.facts(b.disk(*OLD), job=running(JobKind.PULL)),
        Outcome.UNDONE,
    ),
    ("take, somebody else's overlay", TAKE, b.facts(b.disk("x", *OLD)), Outcome.UNDONE),
    ("take, machine off, as before", TAKE, b.facts(None, inactive=as_persistent(*OLD)), Outcome.UNDONE),
    ("take, somebody else's overlay, end unknown", TAKE, b.facts(unknown_end("x")), Outcome.UNKNOWN),
    ("take, disk gone", TAKE, b.facts(None), Outcome.DIVERGED),
    # A2: libvirtd died between QEMU's answer and its own note.
    ("take, QEMU has it", TAKE, b.facts(b.disk(*OLD), opened=in_qemu("new", *OLD)), Outcome.OUT_OF_STEP),
    ("take, QEMU has it not", TAKE, b.facts(b.disk(*OLD), opened=in_qemu(*OLD)), Outcome.UNDONE),
    ("take, QEMU cannot be asked", TAKE, b.facts(b.disk(*OLD), opened=Opened(problem="no")), Outcome.UNDONE),
    # A1: seen in the live chain once, it is a take.
    (
        "take, another image stored",
        TAKE,
        b.facts(b.disk("new", *OLD), inactive=as_persistent("reinstalled")),
        Outcome.DONE,
    ),
    # commit
    ("commit, QEMU did", COMMIT, b.facts(b.disk(*OLD), opened=in_qemu("c", "base")), Outcome.OUT_OF_STEP),
    ("commit, QEMU did not", COMMIT, b.facts(b.disk(*OLD), opened=in_qemu(*OLD)), Outcome.UNDONE),
    ("commit, job", COMMIT, b.facts(b.disk(*OLD), job=running(JobKind.COMMIT)), Outcome.RUNNING),
    ("commit, gone from both", COMMIT, b.facts(b.disk("c", "base")), Outcome.DONE),
    ("commit, gone, end unknown", COMMIT, b.facts(unknown_end("c", "base")), Outcome.DONE),
    ("commit, gone, transient", COMMIT, b.facts(b.disk("c", "base"), inactive=None), Outcome.DONE),
    ("commit, machine off", COMMIT, b.facts(None, inactive=as_persistent("c", "base")), Outcome.DONE),
    ("commit, as before", COMMIT, b.facts(b.disk(*OLD)), Outcome.UNDONE),
    (
        "commit, as before, other job",
        COMMIT,
        b.facts(b.disk(*OLD), job=running(JobKind.PULL)),
        Outcome.UNDONE,
    ),
    (
        "commit, as before, foreign mirror",
        COMMIT,
        b.facts(mirrored("elsewhere", ready=True, job="copy")),
        Outcome.UNDONE,
    ),
    ("commit, as before under a new overlay", COMMIT, b.facts(b.disk("x", *OLD)), Outcome.UNDONE),
    ("commit, live only", COMMIT, b.facts(b.disk("c", "base"), inactive=as_persistent(*OLD)), Outcome.HALF),
    ("commit, one of two gone", COMMIT, b.facts(b.disk("c", "a", "base")), Outcome.DIVERGED),
    ("commit, kept gone", COMMIT, b.facts(b.disk("c")), Outcome.DIVERGED),
    (
        "commit, strange layer in between",
        COMMIT,
        b.facts(b.disk("c", "b", "x", "a", "base")),
        Outcome.DIVERGED,
    ),
    ("commit, other order", COMMIT, b.facts(b.disk("c", "a", "b", "base")), Outcome.DIVERGED),
    ("commit, kept hidden", COMMIT, b.facts(unknown_end("c", "b", "a")), Outcome.UNKNOWN),
    # active commit
    ("active, mirror filling", ACTIVE, b.facts(mirrored("a", ready=False)), Outcome.RUNNING),
    (
        "active, job without mirror yet",
        ACTIVE,
        b.facts(b.disk(*OLD), job=running(JobKind.ACTIVE_COMMIT)),
        Outcome.RUNNING,
    ),
    ("active, mirror ready", ACTIVE, b.facts(mirrored("a", ready=True)), Outcome.READY),
    ("active, mirror of another layer", ACTIVE, b.facts(mirrored("base", ready=True)), Outcome.UNDONE),
    ("active, a copy", ACTIVE, b.facts(mirrored("a", ready=True, job="copy")), Outcome.UNDONE),
    ("active, pivoted", ACTIVE, b.facts(b.disk("a", "base")), Outcome.DONE),
    ("active, pivoted, new overlay", ACTIVE, b.facts(b.disk("x", "a", "base")), Outcome.DONE),
    ("active, aborted", ACTIVE, b.facts(b.disk(*OLD)), Outcome.UNDONE),
    ("active, live only", ACTIVE, b.facts(b.disk("a", "base"), inactive=as_persistent(*OLD)), Outcome.HALF),
    ("active, half merged by hand", ACTIVE, b.facts(b.disk("c", "a", "base")), Outcome.DIVERGED),
    ("active, kept gone", ACTIVE, b.facts(b.disk("base")), Outcome.DIVERGED),
    ("active, kept hidden", ACTIVE, b.facts(unknown_end("c")), Outcome.UNKNOWN),
    # pull
    ("pull, job", PULL, b.facts(b.disk(*OLD), job=running(JobKind.PULL)), Outcome.RUNNING),
    ("pull, gone from both", PULL, b.facts(b.disk("c", "base")), Outcome.DONE),
    ("pull of all, gone", FLATTEN, b.facts(b.disk("c")), Outcome.DONE),
    ("pull, as before", PULL, b.facts(b.disk(*OLD)), Outcome.UNDONE),
    ("pull, as before, other job", PULL, b.facts(b.disk(*OLD), job=running(JobKind.COMMIT)), Outcome.UNDONE),
    ("pull, live only", PULL, b.facts(b.disk("c", "base"), inactive=as_persistent(*OLD)), Outcome.HALF),
    ("pull, one of two gone", PULL, b.facts(b.disk("c", "a", "base")), Outcome.DIVERGED),
    ("pull, kept gone", PULL, b.facts(b.disk("x", "base")), Outcome.DIVERGED),
    ("pull, end unknown", PULL, b.facts(unknown_end("c")), Outcome.UNKNOWN),
    ("pull, kept hidden", PULL, b.facts(unknown_end("x")), Outcome.UNKNOWN),
    *A2,
]


@pytest.mark.parametrize(
    ("operation", "facts", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_outcome(operation: Operation, facts: DiskFacts, expected: Outcome) -> None:
    assert outcome(operation, facts) is expected


def test_every_kind_has_every_outcome_that_it_can_have() -> None:
    impossible = {
        (K.TAKE, Outcome.RUNNING),
        (K.TAKE, Outcome.READY),
        (K.COMMIT, Outcome.READY),
        (K.PULL, Outcome.READY),
        *((kind, Outcome.LOST_TRACK) for kind in K if kind is not K.ACTIVE_COMMIT),
    }
    covered = {(operation.kind, expected) for _, operation, _, expected in TABLE}
    assert covered == {(kind, found) for kind in K for found in Outcome} - impossible


@pytest.mark.parametrize(
    ("operation", "chain", "expected"),
    [
        (COMMIT, b.disk(*OLD), True),
        (COMMIT, b.disk("x", *OLD), True),
        (COMMIT, b.disk("b", "a", "base"), False),  # the range has become the top: needs an active commit
        (COMMIT, b.disk("c", "b", "x", "a", "base"), False),
        (COMMIT, b.disk("c", "a", "base"), False),
        (ACTIVE, b.disk(*OLD), True),
        (ACTIVE, b.disk("x", *OLD), False),  # a take came in between
        (PULL, b.disk(*OLD), True),
        (PULL, b.disk("x", *OLD), False),
        (PULL, b.disk("c", "b", "a", "x", "base"), False),  # would pull a layer that is to stay
        (PULL, b.disk("c", "b", "a"), False),
        (FLATTEN, b.disk(*OLD), True),
        (FLATTEN, b.disk(*OLD, "x"), False),
    ],
)
def test_fits(operation: Operation, chain: Disk, *, expected: bool) -> None:
    assert fits(operation, chain) is expected


def test_a_take_becomes_a_point() -> None:
    begun = b.operation(K.TAKE, "new", "c", owners=(b.owner("x"), b.owner("y")), consistency="Paused")
    done = settled(b.record(operation=begun), begun, b.facts(b.disk("new", *OLD)))
    assert done.operation is None
    assert [(p.overlay, p.owners, p.taken, p.consistency, p.capacity) for p in done.points] == [
        (b.key("new"), begun.owners, begun.begun, "Paused", b.CAPACITY)
    ]
    assert done.images == {b.key("new")}


POINTS = (b.point("c", b.owner("3")), b.point("b", b.owner("2")), b.point("a", b.owner("1")))


def test_a_commit_takes_the_points_of_its_range() -> None:
    done = settled(b.record(*POINTS), COMMIT, b.facts(b.disk("c", "base")))
    assert done.points == (POINTS[0],)
    assert done.images == {b.key("c")}
    assert done.removals == tuple(
        Removal(b.layer(name), COMMIT.owners, since=COMMIT.begun) for name in ("b", "a")
    )


def test_an_active_commit_takes_the_points_of_its_range() -> None:
    done = settled(b.record(*POINTS), ACTIVE, b.facts(b.disk("a", "base")))
    assert done.points == (POINTS[2],)
    assert done.images == {b.key("a")}


def test_a_pull_points_the_lowest_boundary_to_the_kept_image() -> None:
    done = settled(b.record(*POINTS), PULL, b.facts(b.disk("c", "base")))
    assert done.points == (replace(POINTS[2], overlay=b.key("c")),)
    assert done.images == {b.key("c")}
    assert [removal.layer.key for removal in done.removals] == [b.key("b"), b.key("a")]


def test_a_pull_of_everything_leaves_no_point() -> None:
    done = settled(b.record(*POINTS), FLATTEN, b.facts(b.disk("c")))
    assert done.points == ()


def test_an_image_that_varve_did_not_make_is_never_removed() -> None:
    done = settled(b.record(*POINTS, images=["b"]), FLATTEN, b.facts(b.disk("c")))
    assert [removal.layer.key for removal in done.removals if not removal.left] == [b.key("b")]
    assert {removal.layer.key for removal in done.removals if removal.left} == {b.key("a"), b.key("base")}
    assert {removal.since for removal in done.removals} == {FLATTEN.begun}


def test_what_a_failed_take_may_have_left_is_removed() -> None:
    left = abandoned(b.record(*POINTS, operation=TAKE), TAKE, b.facts(b.disk(*OLD)))
    assert (left.operation, left.points, left.removals) == (
        None,
        POINTS,
        (Removal(b.layer("new"), since=TAKE.begun, attempted=True),),
    )


@pytest.mark.parametrize(
    ("operation", "found", "run"),
    [
        ("", b.facts(b.disk(*OLD), run="7", opened=in_qemu(*OLD)), ""),
        ("7", b.facts(b.disk(*OLD), run="7", opened=in_qemu(*OLD)), ""),
        ("7", b.facts(b.disk(*OLD), run="7", opened=Opened(problem="no monitor")), "7"),
        (
            "7",
            b.facts(b.disk(*OLD), run="7", opened=replace(in_qemu(*OLD), files=frozenset({"/images/new"}))),
            "7",
        ),
        ("7", b.facts(b.disk(*OLD), run="8"), ""),
        ("7", b.facts(None, inactive=as_persistent(*OLD)), ""),
    ],
    ids=["old record", "not open", "cannot be asked", "open, in no disk", "another run", "off"],
)
def test_a2_an_overlay_waits_for_the_end_of_the_run_that_may_have_it_open(
    operation: str, found: DiskFacts, run: str
) -> None:
    begun = replace(TAKE, run=operation)
    (left,) = abandoned(b.record(operation=begun), begun, found).removals
    assert (left.attempted, left.run, left.left) == (True, run, "")


@pytest.mark.parametrize(
    ("operation", "found", "asks"),
    [
        (TAKE, b.facts(b.disk(*OLD)), True),
        (replace(TAKE, run="7"), b.facts(b.disk(*OLD), run="7"), True),
        (replace(TAKE, run="7"), b.facts(b.disk(*OLD), run="8"), False),
        (TAKE, b.facts(b.disk(*OLD), opened=in_qemu(*OLD)), False),
        (TAKE, b.facts(None, inactive=as_persistent(*OLD)), False),
        (COMMIT, b.facts(b.disk(*OLD)), True),
        (COMMIT, b.facts(b.disk("c", "base")), False),
        (ACTIVE, b.facts(b.disk("a", "base")), True),
        (PIVOTING, b.facts(b.disk("a", "base")), False),
        (ACTIVE, b.facts(b.disk(*OLD, mirror=SWITCHING)), True),
        (ACTIVE, b.facts(mirrored("a", ready=True), job=running(JobKind.ACTIVE_COMMIT)), False),
    ],
)
def test_a2_qemu_is_asked_only_where_libvirt_may_be_wrong(
    operation: Operation, found: DiskFacts, asks: bool
) -> None:
    assert asks_qemu(operation, found, outcome(operation, found)) is asks


@pytest.mark.parametrize(
    ("operation", "found", "expected"),
    [
        (TAKE, b.facts(b.disk(*OLD), opened=in_qemu("new", *OLD)), ("new", *OLD)),
        (ACTIVE, b.facts(b.disk(*OLD), opened=in_qemu("a", "base")), ("a", "base")),
        (ACTIVE, b.facts(b.disk("a", "base"), opened=in_qemu(*OLD)), OLD),
        (COMMIT, b.facts(b.disk("c", "base")), ("c", "base")),
        (TAKE, b.facts(b.disk(*OLD), opened=in_qemu("stranger", "new", *OLD)), ()),
    ],
)
def test_a2_the_chain_that_the_definition_must_name(
    operation: Operation, found: DiskFacts, expected: tuple[str, ...]
) -> None:
    assert [one.key for one in real_chain(operation, found)] == [b.key(name) for name in expected]


@pytest.mark.parametrize("begun", [COMMIT, ACTIVE, PULL])
def test_a_failed_merge_removes_nothing(begun: Operation) -> None:
    left = abandoned(b.record(*POINTS, operation=begun), begun, b.facts(b.disk(*OLD)))
    assert (left.operation, left.removals, left.images) == (None, (), b.record(*POINTS).images)
    assert [point.overlay for point in left.points] == [point.overlay for point in POINTS]
