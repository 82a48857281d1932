"""How long a chain may be (A3): by its class, by libvirt, and by what this libvirt can start again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Circumstances
from controller.chain.depth import depth_guard
from controller.chain.desired import Policy, Want
from controller.chain.disk import ChainEnd, Disk
from controller.chain.forecast import forecast
from controller.chain.gate import UNKNOWN, Gate, gate
from controller.chain.observation import Observation
from controller.chain.plan import Plan, State
from controller.chain.planner import plan
from controller.chain.steps import StartMerge, Take
from tests.chain import builders as b
from tests.chain.verdicts import says

SOUND = gate("9.0.0", "7.2.22")
FAULTY = gate("11.3.0", "10.0.13")
MOST = FAULTY.deepest
LONG_AGO = b.NOW - timedelta(hours=1)


def names(count: int) -> list[str]:
    """Images of a chain, active first."""
    return [f"l{number}" for number in range(count)]


def judged(chain: Disk, policy: Policy, found: Gate = SOUND, *, going: int = 0) -> Blocked | None:
    return depth_guard(b.facts(chain), chain, policy, found, going=going)


@pytest.mark.parametrize(("most", "stops"), [(1, True), (2, True), (3, False), (64, False)])
def test_the_class_has_a_limit(most: int, *, stops: bool) -> None:
    found = judged(b.disk("o", "base"), Policy(max_layers=most))
    if stops:
        words = ("disk vda", "2 layers", f"allows {most}", "delete points", "maxLayers")
        says(found, Why.CHAIN_TOO_LONG, *words)
    else:
        assert found is None


def test_libvirt_opens_no_deeper_chain() -> None:
    words = ("200 layers", "libvirt", "delete points")
    says(judged(b.disk(*names(200)), Policy(max_layers=500)), Why.CHAIN_TOO_LONG, *words)
    assert judged(b.disk(*names(199)), Policy(max_layers=200)) is None


@pytest.mark.parametrize("most", [MOST, MOST + 1, 64, 200])
@pytest.mark.parametrize("found", [FAULTY, UNKNOWN])
def test_what_starts_again_is_the_limit_whatever_the_class_says(most: int, found: Gate) -> None:
    policy = Policy(max_layers=most)
    words = (f"{MOST} layers", "libvirt", f"no machine with more than {MOST}", "delete points", "12.0.0")
    says(judged(b.disk(*names(MOST)), policy, found), Why.CHAIN_TOO_LONG, *words)
    assert judged(b.disk(*names(MOST - 1)), policy, found) is None, "exactly the limit is fine"


def test_a_lower_limit_of_the_class_counts() -> None:
    found = judged(b.disk(*names(5)), Policy(max_layers=5), FAULTY)
    says(found, Why.CHAIN_TOO_LONG, "the class allows 5", "raise maxLayers")


def test_a_layer_that_is_on_its_way_out_is_waited_for() -> None:
    chain, policy = b.disk(*names(MOST)), Policy(max_layers=64)
    found = judged(chain, policy, FAULTY, going=1)
    assert found is not None
    assert found.ends, "nobody has to do anything"
    found = judged(b.disk(*names(MOST + 5)), policy, FAULTY, going=5)
    assert found is not None
    assert not found.ends


def test_layers_that_only_the_definition_names_are_counted() -> None:
    """The next start will have them, and what libvirt shows now is only the top."""
    chain = b.disk(*names(3), end=ChainEnd.UNKNOWN)
    facts = b.facts(chain, inactive=b.plain(b.disk(*names(MOST))))
    says(depth_guard(facts, chain, Policy(), FAULTY), Why.CHAIN_TOO_LONG, f"{MOST} layers")
    assert depth_guard(facts, chain, Policy(), SOUND) is None


def test_layers_that_nobody_can_count_are_not_taken_for_none() -> None:
    """A layer of ours has something below it from its first moment on, and libvirt does not show it."""
    chain = b.disk("web.vda.varve-0a4f4f0e.qcow2", end=ChainEnd.UNKNOWN)
    says(judged(chain, Policy(), FAULTY), Why.CHAIN_UNKNOWN, "more below", "Layers out of sight")
    assert judged(chain, Policy(), SOUND) is None


# A chain that is too long already ------------------------------------------------------------------------


def deep(count: int, owned: Sequence[int], **changes: object) -> Observation:
    """A chain of ``count`` images, of which those at ``owned`` have a VolumeSnapshot of their own."""
    chain = b.disk(*names(count))
    record = b.record(*(b.point(f"l{at}", b.owner(f"p{at}")) for at in owned))
    return b.observation(b.facts(chain), records=[record], **changes)


def planned(observation: Observation, wants: Sequence[Want], found: Gate = FAULTY) -> Plan:
    return plan(observation, wants, Circumstances(now=b.NOW, gate=found))


def test_its_objects_say_so_and_what_to_delete() -> None:
    """A3: a chain of 40, one point of it varve's: named with nothing asked for."""
    found = planned(deep(40, [3]), [b.want("p3")])
    (standing,) = found.standings
    assert standing.state is State.HELD
    words = (
        "40 images",
        "libvirt 11.3.0",
        f"no machine with more than {MOST}",
        "before 18 are gone",
        "shop/p3",
    )
    says(
        standing.blocked,
        Why.CHAIN_TOO_LONG,
        *words,
        "38 layers that are not varve's",
        "virsh blockcommit web-1 vda",
    )
    assert standing.blocked is not None
    assert not standing.blocked.ends
    assert not found.steps


def test_at_the_limit_nothing_is_said() -> None:
    (standing,) = planned(deep(MOST, [3]), [b.want("p3")]).standings
    assert (standing.state, standing.blocked) == (State.HELD, None)


@pytest.mark.parametrize("version", ["9.0.0", "10.7.0", "12.0.0"])
def test_where_libvirt_starts_it_nothing_is_said(version: str) -> None:
    (standing,) = planned(deep(40, [3]), [b.want("p3")], gate(version, "10.0.2")).standings
    assert (standing.state, standing.blocked) == (State.HELD, None)


def test_a_point_that_is_refused_says_nothing_against_those_that_are_there() -> None:
    """The chain is as long as may be: who asks for more is told, whose point is there is not."""
    found = planned(deep(MOST, [3]), [b.want("p3"), b.want("new")])
    says(found.standings[0].blocked, Why.CHAIN_TOO_LONG, f"{MOST} layers")
    assert [standing.state for standing in found.standings] == [State.PENDING, State.HELD]
    assert found.standings[1].blocked is None


def test_nothing_is_taken_beyond_it() -> None:
    found = planned(deep(MOST + 1, [3]), [b.want("new")])
    assert not any(isinstance(step, Take) for step in found.steps)


def test_a_deletion_goes_on_and_is_what_helps() -> None:
    wants = [b.want("p3", gone_since=LONG_AGO, policy=b.AT_ONCE), b.want("p9")]
    found = planned(deep(MOST + 1, [3, 9]), wants)
    assert [type(step) for step in found.steps] == [StartMerge]
    kept = next(one for one in found.standings if one.want.owner.name == "p9")
    says(kept.blocked, Why.CHAIN_TOO_LONG, "1 are being merged away")
    assert kept.blocked is not None
    assert kept.blocked.ends, "nobody has to do anything any more"


def test_who_wants_a_new_point_waits_for_a_deletion_that_is_under_way() -> None:
    wants = [b.want("p3", gone_since=LONG_AGO, policy=b.AT_ONCE), b.want("new")]
    found = planned(deep(MOST, [3]), wants)
    assert [type(step) for step in found.steps] == [StartMerge]
    new = next(one for one in found.standings if one.want.owner.name == "new")
    says(new.blocked, Why.CHAIN_TOO_LONG, "is gone")
    assert new.blocked is not None
    assert new.blocked.ends, "nobody has to do anything"


def test_too_few_deletions_do_not_end_it() -> None:
    wants = [b.want("p3", gone_since=LONG_AGO, policy=b.AT_ONCE), b.want("p9")]
    found = planned(deep(MOST + 2, [3, 9]), wants)
    kept = next(one for one in found.standings if one.want.owner.name == "p9")
    assert kept.blocked is not None
    assert not kept.blocked.ends
    assert "p3" not in kept.blocked.message, "it is being deleted already"


def test_a_machine_that_is_off_does_not_start_any_more() -> None:
    observation = deep(40, [3])
    facts = observation.disks["vda"]
    off = replace(observation, disks={"vda": replace(facts, live=None, inactive=b.plain(b.disk(*names(40))))})
    (standing,) = planned(off, [b.want("p3")]).standings
    says(
        standing.blocked, Why.CHAIN_TOO_LONG, "may not start any more", "update libvirt to 12.0.0", "by hand"
    )


def test_many_names_are_cut() -> None:
    owned = list(range(1, 30))
    found = planned(deep(40, owned), [b.want(f"p{at}") for at in owned]).standings[0]
    says(found.blocked, Why.CHAIN_TOO_LONG, "and 24 more")


def test_the_disk_as_a_whole_says_it() -> None:
    """What VolumeChain.status tells comes from the forecast."""
    (disk,) = forecast(deep(40, [3]), [b.want("p3")], Circumstances(now=b.NOW, gate=FAULTY))
    says(disk.too_long, Why.CHAIN_TOO_LONG, "40 images")
    (disk,) = forecast(deep(40, [3]), [b.want("p3")], Circumstances(now=b.NOW, gate=SOUND))
    assert disk.too_long is None
