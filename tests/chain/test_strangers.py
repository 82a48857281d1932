"""What QEMU opened at a place that was lent, compared with what was to be there; and how a stranger goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.chain.blocked import Why
from controller.chain.circumstances import Circumstances
from controller.chain.consent import Approval
from controller.chain.desired import Direction, Placement, Policy
from controller.chain.journal import DiskJournal, Operation, OperationKind
from controller.chain.observation import DiskFacts, Job, JobKind, RunState
from controller.chain.opened import Opened, OpenedImage
from controller.chain.plan import DiskPlan
from controller.chain.planner import plan
from controller.chain.source import Source
from controller.chain.steps import Record, RecordWhy, StartMerge
from controller.chain.strangers import is_strange, stranger
from tests.chain import builders as b

TAKE = b.operation(OperationKind.TAKE, "spare", "base", lent=True, prepared=True)
CHAIN = b.disk("spare", "base")
RIGHT = OpenedImage("/images/spare", "qcow2", capacity=b.CAPACITY)
BELOW = OpenedImage("/images/base", "qcow2", capacity=b.CAPACITY)
PLACE = Placement(target=Source.file("/images/spare"), prepared=True)
VICTIM = "/images/somebody-else"
FACES: list[tuple[dict[str, Any], str]] = [
    ({"data_file": VICTIM}, VICTIM),
    ({"name": VICTIM}, VICTIM),
    ({"capacity": 1}, "virtual size"),
    ({"capacity": b.CAPACITY + 1}, "virtual size"),
    ({"flaws": ("it is encrypted",)}, "encrypted"),
]


def shown(**face: Any) -> DiskFacts:
    return b.facts(CHAIN, opened=Opened((replace(RIGHT, **face), BELOW)))


def planned(
    facts: DiskFacts, record: DiskJournal, at: Circumstances | None = None, **seen: Any
) -> tuple[DiskPlan, Any]:
    want = b.want("a", placement=PLACE)
    found = plan(b.observation(facts, records=[record], **seen), [want], at or Circumstances(now=b.NOW))
    return found.disks[0], found.standings[0]


@pytest.mark.parametrize(("face", "words"), FACES)
def test_what_is_different_is_told(face: dict[str, Any], words: str) -> None:
    assert words in (stranger(TAKE, shown(**face)) or "")


@pytest.mark.parametrize("opened", [None, Opened(problem="no monitor"), Opened()])
def test_what_is_not_told_is_different(opened: Opened | None) -> None:
    assert "does not tell" in (stranger(TAKE, b.facts(CHAIN, opened=opened)) or "")


def test_what_is_right_is_none() -> None:
    assert stranger(TAKE, shown()) is None
    assert stranger(TAKE, shown(capacity=0)) is None, "QEMU may not tell"


def test_a_lent_place_is_believed_when_qemu_was_asked() -> None:
    record = b.record(operation=TAKE)
    before, _ = planned(b.facts(CHAIN), record)
    assert (before.step, before.wants_opened) == (None, True)
    after, _ = planned(shown(), record)
    assert isinstance(after.step, Record)
    assert (after.step.why, after.step.record.points[0].owners) == (RecordWhy.DONE, TAKE.owners)


def test_a_layer_that_libvirt_made_needs_no_question() -> None:
    made = replace(TAKE, lent=False, prepared=False)
    found, _ = planned(b.facts(CHAIN), b.record(operation=made))
    assert isinstance(found.step, Record)


@pytest.mark.parametrize(("face", "words"), FACES)
def test_nobody_gets_the_point_of_a_stranger(face: dict[str, Any], words: str) -> None:
    found, _ = planned(shown(**face), b.record(operation=TAKE))
    assert isinstance(found.step, Record)
    (point,) = found.step.record.points
    assert found.step.why is RecordWhy.STRANGE
    assert is_strange(point, found.step.record)
    assert words in found.step.note


def strange(**more: Any) -> tuple[DiskFacts, DiskJournal]:
    """What the next pass finds."""
    facts = b.facts(CHAIN)
    return facts, b.record(b.point("spare"), images=[], lent=frozenset({b.key("spare")}), **more)


DISTRUSTED = frozenset({("uid-a", Source.file("/images/spare").footprint)})
KNOWN = Circumstances(now=b.NOW, distrusted=DISTRUSTED)


@pytest.mark.parametrize(
    "at",
    [KNOWN, replace(KNOWN, approvals={b.TARGET: (Approval("shop/policy", ""),)})],
    ids=["free", "with approval"],
)
def test_it_is_committed_at_once_and_nobody_is_asked(at: Circumstances) -> None:
    facts, record = strange()
    found, standing = planned(facts, record, at, in_use_elsewhere={})
    assert isinstance(found.step, StartMerge)
    assert found.step.operation.kind is OperationKind.ACTIVE_COMMIT
    assert found.step.operation.kept.key == b.key("base")
    assert standing.blocked.why is Why.OVERLAY_NOT_AS_VERIFIED
    assert "base" not in standing.blocked.message


def test_a_class_that_pulls_does_not_keep_it() -> None:
    facts, record = strange()
    record = replace(record, points=(*record.points, b.point("base", b.owner("b"))))
    chain = b.disk("spare", "base", "bottom")
    facts = b.facts(chain, sizes=b.sizes(chain, [10_000, 10, 10]))  # a pull would cost less
    slow = Policy(direction=Direction.PULL, settle_seconds=3000, bandwidth=1)
    leaving = b.want("b", gone_since=b.NOW, policy=slow)
    seen = b.observation(facts, records=[record], in_use_elsewhere={})
    (found,) = plan(seen, [leaving], KNOWN).disks
    assert isinstance(found.step, StartMerge)
    assert [layer.key for layer in found.step.operation.merged] == [b.key("spare")]
    assert (found.step.operation.kept.key, found.step.bandwidth) == (b.key("base"), 0)


def test_a_controller_that_was_killed_learns_it_from_the_journal() -> None:
    facts, record = strange()
    found, standing = planned(facts, record, Circumstances(now=b.NOW), in_use_elsewhere={})
    assert isinstance(found.step, StartMerge)
    assert standing.blocked.why is Why.OVERLAY_NOT_AS_VERIFIED


def test_the_place_is_not_used_again_and_others_are() -> None:
    gone = b.facts(b.disk("base"))
    record = DiskJournal(b.TARGET)
    found, standing = planned(gone, record, KNOWN, claims={})
    assert (found.step, standing.blocked.why) == (None, Why.OVERLAY_NOT_AS_VERIFIED)
    other = replace(KNOWN, distrusted=frozenset({("uid-b", next(iter(DISTRUSTED))[1])}))
    assert planned(gone, record, other, claims={})[0].step is not None


def test_while_qemu_cannot_be_asked_it_is_waited_for() -> None:
    """A guest that powers itself off does not get by, nor does one whose other disk is pulled."""
    record = b.record(operation=TAKE)
    off = b.facts(None, inactive=b.plain(CHAIN), stop_is_known=True)
    found, standing = planned(off, record, state=RunState.SHUTOFF)
    assert found.step is None
    assert standing.blocked.why is Why.WAITING_FOR_DOMAIN
    pulled = replace(b.facts(replace(b.disk("x"), target="vdb")), target="vdb", job=Job(JobKind.PULL, 0, 1))
    want = b.want("a", placement=PLACE)
    seen = b.observation(b.facts(CHAIN), pulled, records=[record])
    (waiting,) = (one for one in plan(seen, [want], Circumstances(now=b.NOW)).disks if one.target == b.TARGET)
    assert waiting.step is None
    assert not waiting.wants_opened


def test_an_operation_keeps_who_it_was_for() -> None:
    assert isinstance(TAKE, Operation)
    found, standing = planned(shown(data_file=VICTIM), b.record(operation=TAKE))
    assert isinstance(found.step, Record)
    assert found.step.finished == TAKE
    assert standing.blocked is None or VICTIM not in standing.blocked.message
