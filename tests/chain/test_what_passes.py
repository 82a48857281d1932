"""B20: what passes by itself is no part of what somebody agreed to, and is waited for under an agreement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.chain.blocked import ENDS, Blocked, Ends, Why
from controller.chain.circumstances import Circumstances, Hold
from controller.chain.consent import Approval
from controller.chain.desired import Direction, Policy, Want
from controller.chain.disk import Disk, Layer
from controller.chain.drift import known
from controller.chain.forecast import DiskForecast, forecast
from controller.chain.observation import DiskFacts, Job, JobKind, Observation, RunState, Size
from controller.chain.plan import DiskPlan
from controller.chain.planner import plan
from controller.chain.source import Host, Source
from controller.chain.steps import StartMerge
from tests.chain import builders as b

LONG_AGO = b.NOW - timedelta(hours=1)
GIB = 1 << 30
NAMES = "edcb"
POLICY = Policy(settle_seconds=0, min_free=GIB)


def image(name: str) -> Source:
    """On the network, on storage of a fixed size: every guard has something to look at."""
    return Source.network("nbd", name, [Host("san-a", "10809")])


CHAIN = Disk(
    target=b.TARGET,
    device="disk",
    layers=tuple(Layer(image(name), "qcow2", at) for at, name in enumerate((*NAMES, "a"), 1)),
    end=b.disk("a").end,
)


@dataclass(frozen=True)
class Moment:
    """A disk and the circumstances of one look at it."""

    observation: Observation
    policy: Policy = POLICY
    names: str = NAMES
    circumstances: dict[str, Any] = field(default_factory=dict)

    def wants(self, deleted: str) -> list[Want]:
        return [
            b.want(name, gone_since=LONG_AGO if name in deleted else None, policy=self.policy)
            for name in self.names
        ]

    def ahead(self, deleted: str) -> DiskForecast:
        found = forecast(self.observation, self.wants(deleted), Circumstances(b.NOW, **self.circumstances))
        return next(one for one in found if one.target == b.TARGET)

    def planned(self, deleted: str, agreed: str) -> DiskPlan:
        at = Circumstances(
            b.NOW, approvals={b.TARGET: (Approval("shop/web-1-vda", agreed),)}, **self.circumstances
        )
        found = plan(self.observation, self.wants(deleted), at).disk(b.TARGET)
        assert found is not None
        return found

    def seen(self, **changes: Any) -> Moment:
        return replace(self, observation=replace(self.observation, **changes))

    def under(self, **circumstances: Any) -> Moment:
        return replace(self, circumstances={**self.circumstances, **circumstances})

    def disk(self, **changes: Any) -> Moment:
        facts = replace(self.observation.disks[b.TARGET], **changes)
        return self.seen(disks={**self.observation.disks, b.TARGET: facts})


def calm() -> Moment:
    points = [
        replace(b.point(name, b.owner(name)), overlay=layer.key)
        for name, layer in zip(NAMES, CHAIN.layers, strict=False)
    ]
    sizes = {
        layer.key: Size(100 * at, b.CAPACITY, b.CAPACITY * 2) for at, layer in enumerate(CHAIN.layers, 1)
    }
    written = replace(b.plain(CHAIN), end=CHAIN.end)  # the whole chain of such a disk is written out
    facts = replace(b.facts(CHAIN), sizes=sizes, inactive=written)
    home = image("a").home
    return Moment(
        b.observation(facts, records=[b.record(*points, known=known(CHAIN))], free={home: 100 * GIB})
    )


def other_disk(kind: JobKind) -> DiskFacts:
    return b.facts(replace(b.disk("z"), target="vdb"), target="vdb", job=Job(kind, 1, 2))


def hold(why: Why) -> dict[str, Hold]:
    return {b.TARGET: Hold(b.NOW + timedelta(seconds=5), Blocked(why, "it failed"))}


def short(moment: Moment) -> Moment:
    return moment.seen(free={image("a").home: 1})


def busy(moment: Moment) -> Moment:
    disks = {**moment.observation.disks, "vdb": other_disk(JobKind.COMMIT)}
    return moment.seen(disks=disks)


PASSING: dict[Why, list[Callable[[Moment], Moment]]] = {
    Why.WAITING_FOR_DOMAIN: [
        lambda m: m.seen(state=RunState.SHUTOFF),
        lambda m: m.seen(state=RunState.OTHER),
    ],
    Why.DOMAIN_PAUSED: [lambda m: m.seen(paused_by_io_error=True)],
    Why.MIGRATING: [lambda m: m.seen(domain_job="migration-out")],
    Why.HYPERVISOR_UNREACHABLE: [lambda m: m.seen(unasked=("kvm-2",))],
    Why.USERS_UNKNOWN: [lambda m: m.seen(unread=("web-9",))],
    Why.FOREIGN_BLOCK_JOB: [lambda m: m.disk(job=Job(JobKind.COPY, 1, 2))],
    Why.STORAGE_UNREACHABLE: [lambda m: m.under(holds=hold(Why.STORAGE_UNREACHABLE))],
    Why.QUEUED: [
        lambda m: m.under(merge_slots=0),
        lambda m: m.seen(disks={**m.observation.disks, "vdb": other_disk(JobKind.PULL)}),
        busy,
    ],
    Why.NOT_CONVERGING: [lambda m: m.under(commit_holds=hold(Why.NOT_CONVERGING))],
    Why.INSUFFICIENT_SPACE: [short],
    Why.SETTLING: [lambda m: replace(m, policy=replace(m.policy, settle_seconds=7200))],
    Why.FAILED: [lambda m: m.under(holds=hold(Why.FAILED))],
    Why.SIZE_UNKNOWN: [lambda m: m.disk(sizes={})],
}
"""Ways to bring each reason about that ends by itself."""

WAYS = [way for why, ways in PASSING.items() for way in ways if why is not Why.SIZE_UNKNOWN]
"""Those that leave known which of several ways is the cheapest."""

ONLY_ACTIVE = {Why.NOT_CONVERGING}
"""Told only of merges that reach the active layer."""


def test_every_why_says_what_ends_it() -> None:
    assert set(ENDS) == set(Why)


def test_every_why_that_passes_is_tried_here() -> None:
    assert set(PASSING) == {why for why, ends in ENDS.items() if ends is Ends.ITSELF}


@pytest.mark.parametrize("deleted", ["b", "e", "bd", "cd", "edcb"])
@pytest.mark.parametrize(("why", "way"), [(why, way) for why, ways in PASSING.items() for way in ways])
def test_the_name_is_the_same_with_and_without_it(
    why: Why, way: Callable[[Moment], Moment], deleted: str
) -> None:
    name = calm().ahead(deleted).hash
    assert name
    moment = way(calm())
    assert moment.ahead(deleted).hash == name
    found = moment.planned(deleted, name)
    said = {found.blocked.why} if found.blocked else set()
    said |= {blocked.why for blocked in found.staying.values()}
    assert Why.AWAITING_APPROVAL not in said
    if found.step is None:
        assert why in said
    else:
        assert isinstance(found.step, StartMerge)


@pytest.mark.parametrize("why", PASSING)
def test_each_way_brings_its_reason_about(why: Why) -> None:
    deleted = ("e",) if why in ONLY_ACTIVE else ("b", "e")
    for way in PASSING[why]:
        if way is busy:
            continue  # it is against a pull alone: below
        moment = way(calm())
        for one in deleted:
            found = moment.planned(one, calm().ahead(one).hash)
            assert found.step is None
            assert found.blocked is not None
            assert found.blocked.why is why


def test_a_pull_waits_for_the_job_of_another_disk() -> None:
    moment = replace(calm(), policy=replace(POLICY, direction=Direction.PULL))
    name = moment.ahead("e").hash
    found = busy(moment).planned("e", name)
    assert found.blocked is not None
    assert found.blocked.why is Why.QUEUED
    assert busy(moment).ahead("e").hash == name


@given(
    st.lists(st.sampled_from(WAYS), max_size=3),
    st.sets(st.sampled_from(NAMES), min_size=1),
    st.sampled_from(Direction),
)
def test_nothing_that_passes_changes_what_was_agreed_to(
    ways: list[Callable[[Moment], Moment]], deleted: set[str], direction: Direction
) -> None:
    """However much of it comes together; and what begins meanwhile is a part of what was agreed to."""
    names = "".join(sorted(deleted))
    before = replace(calm(), policy=replace(POLICY, direction=direction))
    moment = before
    for way in ways:
        moment = way(moment)
    name = before.ahead(names).hash
    assert moment.ahead(names).hash == name
    found = moment.planned(names, name)
    assert found.blocked is None or found.blocked.why is not Why.AWAITING_APPROVAL
    if isinstance(found.step, StartMerge):
        agreed = {step.into.key for step in before.ahead(names).steps if step.into is not None}
        assert found.step.operation.kept.key in agreed


def test_no_other_way_is_taken_while_the_agreed_one_waits() -> None:
    """The storage of the base is short of space: pulling up instead is another plan."""
    chain = b.disk("c", "b", "a")
    base = Layer(Source.file("/slow/a"), "qcow2", 9)
    chain = replace(chain, layers=(*chain.layers[:-1], base))
    points = [b.point(name, b.owner(name)) for name in "cb"]
    facts = replace(b.facts(chain), sizes=b.sizes(chain, [500, 100, 900]))
    free = {"/images": 100 * GIB, "/slow": 100 * GIB}
    record = b.record(*points, known=known(chain))
    moment = Moment(b.observation(facts, records=[record], free=free), names="cb")
    name = moment.ahead("cb").hash
    tight = moment.seen(free={**free, "/slow": 1})
    (unasked,) = plan(tight.observation, tight.wants("cb"), Circumstances(b.NOW)).steps
    assert isinstance(unasked, StartMerge), "without approval the other way is taken"
    found = tight.planned("cb", name)
    assert found.step is None
    assert found.blocked is not None
    assert found.blocked.why is Why.INSUFFICIENT_SPACE
    assert isinstance(moment.planned("cb", name).step, StartMerge)


def test_what_a_part_waits_for_is_told_with_it() -> None:
    found = calm().seen(unasked=("kvm-2",)).ahead("b")
    assert found.steps[0].blocked is not None
    assert found.steps[0].blocked.why is Why.HYPERVISOR_UNREACHABLE
    assert found.blocked is not None
