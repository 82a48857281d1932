"""B10: the address of a storage server changes, and the record follows, if it surely is the same storage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.chain.blocked import Why
from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.drift import known
from controller.chain.journal import Approved, DiskJournal, Drift, OperationKind, Owner, Point, Removal
from controller.chain.moved import followed, moved
from controller.chain.observation import RunState
from controller.chain.plan import State
from controller.chain.planner import plan
from controller.chain.source import Host, Source
from controller.chain.steps import Record, RecordWhy
from tests.chain import builders as b
from tests.chain.situations import NOON
from tests.chain.verdicts import says

OLD, NEW = Host("old", "24007"), Host("new", "24007")
OURS = "web-1.vda.varve-uid-a.qcow2"


def gluster(leaf: str, *hosts: Host, volume: str = "gv0") -> Source:
    return Source.network("gluster", f"{volume}/{leaf}", hosts or [OLD])


def nbd(name: str, port: str = "10809") -> Source:
    return Source.network("nbd", name, [Host("san", port)])


def chain(*sources: Source, end: ChainEnd = ChainEnd.KNOWN) -> Disk:
    return Disk("vda", "disk", tuple(Layer(source, "qcow2", n + 1) for n, source in enumerate(sources)), end)


def record(before: Disk, *, ours: bool = True, **changes: Any) -> DiskJournal:
    """Each layer but the base is the overlay of a point; varve made them, or else they are lent."""
    overlays = [layer.key for layer in before.layers[:-1]]
    points = tuple(
        Point(key, (Owner("shop", f"p{n}", f"u{n}"),), b.TAKEN, "") for n, key in enumerate(overlays)
    )
    made, lent = (frozenset(overlays), frozenset()) if ours else (frozenset(), frozenset(overlays))
    return replace(DiskJournal("vda", points=points, images=made, lent=lent, known=known(before)), **changes)


BEFORE = chain(gluster(OURS), gluster("base"))
AFTER = chain(gluster(OURS, NEW), gluster("base", NEW))


def test_a_name_with_a_uid_proves_its_server() -> None:
    move = moved(record(BEFORE), AFTER)
    assert move is not None
    assert (move.proven, move.whole) == (True, True)
    found = followed(record(BEFORE), move)
    assert found == record(AFTER)
    assert move.text == "2 of its layers went from gluster://old:24007 to gluster://new:24007"
    assert moved(found, AFTER) is None


def test_all_of_the_record_follows() -> None:
    old = record(BEFORE)
    whole = replace(
        old,
        operation=replace(
            b.operation(OperationKind.COMMIT, "x", "y"),
            kept=BEFORE.layers[1].lasting,
            merged=(BEFORE.layers[0].lasting,),
            approved=Approved("p", frozenset({BEFORE.layers[0].key})),
        ),
        removals=(
            Removal(Layer(gluster("web-1.vda.varve-uid-z.qcow2"), "qcow2")),
            Removal(Layer(gluster("somebodys"), "qcow2"), left="not ours"),
            Removal(Layer(gluster("web-1.vda.varve-uid-y.qcow2", Host("third")), "qcow2")),
        ),
        drift=Drift(b.TAKEN, added=(BEFORE.layers[1].key,), gone=("file:/x",)),
        approved=Approved("p", frozenset({BEFORE.layers[0].key})),
    )
    move = moved(whole, AFTER)
    assert move is not None
    found = followed(whole, move)
    top, base = (layer.key for layer in AFTER.layers)
    assert found.operation is not None
    assert (found.operation.kept, found.operation.merged) == (
        AFTER.layers[1].lasting,
        (AFTER.layers[0].lasting,),
    )
    assert found.operation.approved == found.approved == Approved("p", frozenset({top}))
    assert found.drift == Drift(b.TAKEN, added=(base,), gone=("file:/x",))
    assert [removal.layer.source for removal in found.removals] == [
        gluster("web-1.vda.varve-uid-z.qcow2", NEW),
        gluster("somebodys"),
        gluster("web-1.vda.varve-uid-y.qcow2", Host("third")),
    ], "what is in no chain follows if its name is ours and its server is the one that moved"


RBD_OLD, RBD_NEW = Host("10.0.0.1", "6789"), Host("10.0.0.2", "6789")


def rbd(image: str, host: Host) -> Source:
    return Source.network("rbd", f"pool/{image}", [host])


MOVES: dict[str, tuple[Disk, Disk, bool, bool]] = {
    "a Ceph monitor": (
        chain(rbd(OURS, RBD_OLD), rbd("base", RBD_OLD), end=ChainEnd.UNKNOWN),
        chain(rbd(OURS, RBD_NEW), rbd("base", RBD_NEW), end=ChainEnd.UNKNOWN),
        True,
        True,
    ),
    "two exports of one server": (
        chain(nbd("spare"), nbd("base"), end=ChainEnd.UNKNOWN),
        chain(nbd("spare", "1"), nbd("base", "1"), end=ChainEnd.UNKNOWN),
        False,
        True,
    ),
    "two exports with a server each": (
        chain(nbd("spare", "1"), nbd("base", "2"), end=ChainEnd.UNKNOWN),
        chain(nbd("spare", "3"), nbd("base", "4"), end=ChainEnd.UNKNOWN),
        False,
        True,
    ),
    "one of two exports": (
        chain(nbd("spare", "1"), nbd("base", "2"), end=ChainEnd.UNKNOWN),
        chain(nbd("spare", "1"), nbd("base", "4"), end=ChainEnd.UNKNOWN),
        False,
        False,
    ),
    "two exports of which one has no name": (
        chain(nbd("spare", "1"), nbd("", "2"), end=ChainEnd.UNKNOWN),
        chain(nbd("spare", "3"), nbd("", "4"), end=ChainEnd.UNKNOWN),
        False,
        False,
    ),
    "two exports below an overlay of ours": (
        chain(Source.file(f"/fast/{OURS}"), nbd("spare"), nbd("base")),
        chain(Source.file(f"/fast/{OURS}"), nbd("spare", "1"), nbd("base", "1")),
        True,
        True,
    ),
    "one export": (
        chain(Source.file(f"/fast/{OURS}"), nbd("base")),
        chain(Source.file(f"/fast/{OURS}"), nbd("base", "1")),
        True,
        False,
    ),
    "one lent export": (
        chain(nbd("spare"), Source.file("/images/base")),
        chain(nbd("spare", "1"), Source.file("/images/base")),
        False,
        False,
    ),
    "a base of gluster below a file": (
        chain(Source.file(f"/fast/{OURS}"), gluster("base")),
        chain(Source.file(f"/fast/{OURS}"), gluster("base", NEW)),
        True,
        False,
    ),
    "overlays that somebody named": (
        chain(gluster("mine.qcow2"), gluster("base")),
        chain(gluster("mine.qcow2", NEW), gluster("base", NEW)),
        True,
        False,
    ),
    "an overlay with a name of ours that is not recorded as made": (BEFORE, AFTER, False, False),
    "two servers, of which one has no name of ours": (
        chain(gluster(OURS), nbd("base")),
        chain(gluster(OURS, NEW), nbd("base", "1")),
        True,
        False,
    ),
}


@pytest.mark.parametrize(("before", "after", "ours", "proven"), MOVES.values(), ids=MOVES)
def test_what_is_proven(before: Disk, after: Disk, *, ours: bool, proven: bool) -> None:
    move = moved(record(before, ours=ours), after)
    assert move is not None
    assert move.proven == proven
    assert followed(record(before, ours=ours), move) == record(after, ours=ours)


NO_MOVES = {
    "nothing changed": (BEFORE, BEFORE),
    "another name": (BEFORE, chain(gluster(OURS, NEW), gluster("other", NEW))),
    "another volume": (BEFORE, chain(gluster(OURS, NEW), gluster("base", NEW, volume="gv1"))),
    "another order": (BEFORE, chain(gluster("base", NEW), gluster(OURS, NEW))),
    "a layer less": (BEFORE, chain(gluster(OURS, NEW))),
    "a layer more": (BEFORE, chain(gluster("x", NEW), gluster(OURS, NEW), gluster("base", NEW))),
    "one server became two": (BEFORE, chain(gluster(OURS, NEW), gluster("base", Host("third")))),
    "a server that stayed and moved": (
        chain(gluster("x"), gluster(OURS), gluster("base")),
        chain(gluster("x", NEW), gluster(OURS, Host("third")), gluster("base", NEW)),
    ),
    "two exports without names": (
        chain(nbd(""), nbd("", "2")),
        chain(nbd("", "3"), nbd("", "4")),
    ),
    "another protocol": (BEFORE, chain(gluster(OURS, NEW), rbd("base", RBD_NEW))),
    "another part of a container": (
        chain(gluster(OURS), Source("file", '<source file="/x"/>')),
        chain(gluster(OURS, NEW), Source("file", '<source file="/y"/>')),
    ),
    "a file": (chain(Source.file("/a"), Source.file("/b")), chain(Source.file("/a"), Source.file("/c"))),
}


@pytest.mark.parametrize(("before", "after"), NO_MOVES.values(), ids=NO_MOVES)
def test_what_is_no_move(before: Disk, after: Disk) -> None:
    assert moved(record(before), after) is None


def test_a_chain_of_before_the_record_knew_it() -> None:
    assert moved(record(BEFORE, known=None), AFTER) is None


def test_a_merge_that_was_under_way_is_seen_through_at_the_new_address() -> None:
    """It ended, and the server moved, before anybody looked."""
    before = chain(gluster("web-1.vda.varve-uid-b.qcow2"), gluster(OURS), gluster("base"))
    after = chain(gluster("web-1.vda.varve-uid-b.qcow2", NEW), gluster("base", NEW))
    operation = replace(
        b.operation(OperationKind.COMMIT, "x", "y"),
        kept=before.layers[2].lasting,
        merged=(before.layers[1].lasting,),
    )
    move = moved(record(before, operation=operation), after)
    assert move is not None
    assert move.proven
    found = followed(record(before, operation=operation), move).operation
    assert found is not None
    assert found.kept == after.layers[1].lasting
    assert found.merged[0].source == gluster(OURS, NEW), "it is to be removed there"


# The planner --------------------------------------------------------------------------------------------


def seen(kept: DiskJournal, now: Disk) -> Any:
    found = b.observation(b.facts(now), records=[kept])
    return replace(found, state=RunState.SHUTOFF)


def test_the_record_follows_in_a_step_of_its_own() -> None:
    want = b.want(record(BEFORE).points[0].owners[0])
    found = plan(seen(record(BEFORE), AFTER), [want], NOON)
    (step,) = found.steps
    assert isinstance(step, Record)
    assert (step.why, step.record) == (RecordWhy.MOVED, record(AFTER))
    assert "from gluster://old:24007 to gluster://new:24007" in step.note
    assert [standing.state for standing in found.standings] == [State.HELD]


ONE_EXPORT = (
    chain(Source.file(f"/fast/{OURS}"), nbd("base")),
    chain(Source.file(f"/fast/{OURS}"), nbd("base", "1")),
)
ALONE = (
    chain(nbd("spare"), Source.file("/images/base")),
    chain(nbd("spare", "1"), Source.file("/images/base")),
)


@pytest.mark.parametrize(("before", "after"), [ONE_EXPORT, ALONE])
@pytest.mark.parametrize("deleting", [False, True])
def test_what_is_not_proven_waits_for_a_person(before: Disk, after: Disk, *, deleting: bool) -> None:
    kept = record(before)
    want = b.want(kept.points[0].owners[0], gone_since=b.NOW if deleting else None)
    found = plan(seen(kept, after), [want], NOON)
    assert not found.steps
    says(
        found.disks[0].blocked, Why.CHAIN_DIVERGED, "nbd://san:1", "onDrift: Adopt", "set the definition back"
    )
    (standing,) = found.standings
    assert standing.state is (State.LEAVING if deleting else State.UNKNOWN)
    assert standing.blocked == found.disks[0].blocked
    agreed = replace(NOON, adopts_drift=frozenset({"vda"}))
    (step,) = plan(seen(kept, after), [want], agreed).steps
    assert isinstance(step, Record)
    assert (step.why, step.record) == (RecordWhy.MOVED, record(after))


def test_a_definition_that_names_the_top_alone_is_not_judged() -> None:
    kept, short = record(BEFORE), chain(gluster(OURS, NEW), end=ChainEnd.UNKNOWN)
    move = moved(kept, short)
    assert move is not None
    assert not move.whole
    found = plan(
        seen(kept, short), [b.want(kept.points[0].owners[0])], replace(NOON, adopts_drift=frozenset({"vda"}))
    )
    assert not found.steps
    says(found.disks[0].blocked, Why.CHAIN_UNKNOWN, "gluster://new:24007", "start the machine")


def test_a_server_that_came_back_to_its_address_is_followed_again() -> None:
    away = moved(record(BEFORE), AFTER)
    assert away is not None
    there = followed(record(BEFORE), away)
    back = moved(there, BEFORE)
    assert back is not None
    assert followed(there, back) == record(BEFORE)
