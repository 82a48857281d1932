"""What failed for one VolumeSnapshot is waited out for it alone, whatever else is wanted of the disk."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Circumstances, Hold
from controller.chain.desired import Placement, Want
from controller.chain.plan import Plan, State
from controller.chain.planner import plan
from controller.chain.steps import StartMerge, Take
from tests.chain import builders as b

LATER = b.NOW + timedelta(seconds=30)
NAMES = ("a", "b", "c", "d", "e", "f")


def hold(name: str, *, due: bool = False) -> Hold:
    return Hold(b.NOW if due else LATER, Blocked(Why.FAILED, f"only {name} is told this"))


def placed(name: str) -> Want:
    return replace(b.want(name), placement=Placement(template=b.layer(f"in-{name}").source))


def planned(*wants: Want, held: dict[str, Hold] | None = None, overlays: int = 0) -> Plan:
    """A disk whose first wants have points, one above the other."""
    tops = [f"o{number}" for number in range(overlays, 0, -1)]
    points = [b.point(f"o{number}", want.owner) for number, want in enumerate(wants[:overlays], 1)][::-1]
    observation = b.observation(b.facts(b.disk(*tops, "base")), records=[b.record(*points)])
    holds = {b.owner(name): one for name, one in (held or {}).items()}
    return plan(observation, wants, Circumstances(now=b.NOW, holds=holds))


def said(found: Plan) -> dict[str, str]:
    return {
        one.want.owner.name: one.blocked.message if one.blocked is not None else "" for one in found.standings
    }


def test_the_others_are_taken_at_once() -> None:
    found = planned(b.want("a"), b.want("b"), held={"a": hold("a")})
    (step,) = found.steps
    assert isinstance(step, Take)
    assert [owner.name for owner in step.disks[0].operation.owners] == ["b"]
    assert said(found)["a"] == "only a is told this"
    assert said(found)["b"] == ""


def test_what_is_waited_out_is_looked_at_again_when_it_is_due() -> None:
    soon = Hold(b.NOW + timedelta(seconds=3), Blocked(Why.FAILED, "soon"))
    assert planned(b.want("a"), b.want("b"), held={"a": hold("a"), "b": soon}).wake_at == soon.until


def test_who_has_failed_shares_no_layer_and_no_call_with_who_has_not() -> None:
    found = planned(b.want("a"), b.want("b"), held={"a": hold("a", due=True)})
    (step,) = found.steps
    assert isinstance(step, Take)
    assert [owner.name for owner in step.disks[0].operation.owners] == ["b"]
    disks = [b.facts(replace(b.disk(f"base-{t}"), target=t)) for t in ("vda", "vdb", "vdc")]
    wants = [replace(b.want(n), target=t) for n, t in (("a", "vda"), ("b", "vdb"), ("c", "vdc"))]
    at = Circumstances(now=b.NOW, holds={b.owner("a"): hold("a", due=True)})
    steps = plan(b.observation(*disks), wants, at).steps
    assert [step.targets for step in steps if isinstance(step, Take)] == [("vdb", "vdc"), ("vda",)]


def test_two_that_have_failed_share_a_layer_again() -> None:
    held = {"a": hold("a", due=True), "b": hold("b", due=True)}
    (step,) = planned(b.want("a"), b.want("b"), held=held).steps
    assert isinstance(step, Take)
    assert [owner.name for owner in step.disks[0].operation.owners] == ["a", "b"]


@given(
    held=st.sets(st.sampled_from(NAMES)), leaving=st.sets(st.sampled_from(NAMES)), overlays=st.integers(0, 4)
)
def test_nobody_waits_for_what_failed_for_another(held: set[str], leaving: set[str], overlays: int) -> None:
    """The first have points, some of which are being deleted; the others are to be taken, each elsewhere."""
    wants = [replace(placed(name), deleted_at=b.NOW if name in leaving else None) for name in NAMES]
    found = planned(*wants, held={name: hold(name) for name in held}, overlays=overlays)
    for name, text in said(found).items():
        assert text == f"only {name} is told this" or "told this" not in text
    wanting = [n for n in NAMES[overlays:] if n not in leaving and n not in held]
    takes = [step for step in found.steps if isinstance(step, Take)]
    merges = [step for step in found.steps if isinstance(step, StartMerge)]
    if wanting:
        assert [o.name for t in takes for o in t.disks[0].operation.owners] == wanting[:1]
    elif free := leaving.intersection(NAMES[:overlays]) - held:
        merged = {o.name for merge in merges for o in merge.operation.owners}
        assert merged
        assert merged <= free
    for one in found.standings:
        waits = one.state is State.PENDING or (one.state is State.LEAVING and not found.steps)
        assert one.want.owner.name not in held or not waits or one.blocked is not None
