"""The planner in every situation that can be drawn: it always comes to rest at what was wanted, and nothing
that is kept changes on the way, whatever is lost, late or killed in between."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import event, given
from hypothesis import strategies as st

from controller.chain.blocked import Why
from controller.chain.desired import Direction, Placement, Policy, Want
from controller.chain.plan import State
from controller.chain.source import Source
from tests.chain import builders as b
from tests.chain.loop import Loop
from tests.chain.model import Blocks, Fault, Machine


@dataclass
class Scenario:
    """A machine with a history, what people want of it, and what goes wrong."""

    machine: Machine
    wants: list[Want]
    later: list[frozenset[str]]
    """Objects whose deletion is asked for after each time that the loop came to rest."""
    faults: list[Fault]
    writes: bool
    unmanaged: list[Blocks]
    """Contents of boundaries that nobody owns, newest first."""
    untouchable: set[str] = field(default_factory=set)


POLICIES = st.builds(
    Policy,
    direction=st.sampled_from(Direction),
    settle_seconds=st.sampled_from([0, 0, 1, 30]),
    max_layers=st.just(64),
)
PLACES = st.sampled_from([Placement(), Placement(), Placement(Source.file("/fast/any"))])


@st.composite
def scenarios(draw: st.DrawFn, *, guarded: bool = False) -> Scenario:
    depth = draw(st.integers(1, 8))
    allocations = draw(st.lists(st.sampled_from([0, 1, 10, 11, 500]), min_size=depth, max_size=depth))
    machine = Machine.with_layers([b.layer(f"l{n}") for n in range(depth)], allocations)
    points, wants, unmanaged = [], [], []
    for position in range(depth - 1):
        owners = [
            b.owner(f"p{position}{letter}") for letter in "ab"[: draw(st.sampled_from([0, 1, 1, 1, 2]))]
        ]
        moment = machine.content(position + 1)
        if not owners:
            unmanaged.append(moment)
            continue
        points.append(b.point(f"l{position}", *owners))
        merge = draw(st.sampled_from([True, True, True, False]))
        for who in owners:
            machine.moments[who] = moment
            wants.append(b.want(who, merge=merge, policy=draw(POLICIES)))
    new = [f"new{number}" for number in range(draw(st.integers(0, 2)))]
    wants += [b.want(name, policy=draw(POLICIES), placement=draw(PLACES)) for name in new]
    made = draw(st.sets(st.sampled_from([f"l{n}" for n in range(depth)])))
    machine.set_record(b.record(*points, images=made))
    names = [one.owner.name for one in wants]
    wants = [replace(one, suspended=draw(st.sampled_from([False] * 7 + [True]))) for one in wants]
    later = draw(st.lists(st.frozensets(st.sampled_from(names)), max_size=4)) if names else []
    scenario = Scenario(
        machine,
        wants,
        later,
        draw(st.lists(st.sampled_from(Fault), max_size=12)),
        draw(st.booleans()),
        unmanaged,
    )
    if guarded:
        _guard(draw, scenario)
    return scenario


def _guard(draw: st.DrawFn, scenario: Scenario) -> None:
    """Some images are used by others, some are protected by the class."""
    layers = list(scenario.machine.chain)
    shared = draw(st.sets(st.sampled_from(layers), max_size=2))
    protected = draw(st.sets(st.sampled_from(layers), max_size=2))
    scenario.machine.elsewhere = dict.fromkeys(shared, "disk vdb of web-2")
    patterns = tuple(scenario.machine.storage[key].layer.source.uri for key in protected)
    scenario.wants = [replace(one, policy=replace(one.policy, protected=patterns)) for one in scenario.wants]
    scenario.untouchable = shared | protected


def play(scenario: Scenario) -> Loop:
    """Apply, delete in rounds, and run to rest after each."""
    loop = Loop(scenario.machine, scenario.wants, faults=iter(scenario.faults))

    def between() -> None:
        if scenario.writes:
            scenario.machine.write()

    loop.run(between)
    for names in scenario.later:
        loop.delete(names)
        loop.run(between)
    return loop


def in_order(some: list[Blocks], all_: list[Blocks]) -> bool:
    """``some`` are in ``all_``, in the same order."""
    rest = iter(all_)
    return all(any(one == other for other in rest) for one in some)


@given(scenarios())
def test_what_is_wanted_is_there_and_the_rest_is_gone(scenario: Scenario) -> None:
    loop = play(scenario)
    machine = loop.machine
    found = loop.plan()
    event(f"{len(machine.jobs)} jobs")
    for standing in found.standings:
        want = standing.want
        if want.suspended:
            continue
        assert not want.deleting, f"{want.owner.name} is {standing.state} for ever"
        assert standing.state is State.HELD, f"{want.owner.name} is {standing.state}"
        assert standing.frozen is not None
        position = machine.chain.index(standing.frozen.key)
        assert machine.content(position) == machine.moments[want.owner]
    record = machine.record
    living = {want.owner for want in loop.wants}
    assert all(set(point.owners) & living for point in record.points), "a point that nobody wants is left"
    assert in_order(scenario.unmanaged, machine.contents), "a layer that nobody manages changed"
    retained = [want.owner for want in loop.released if not want.merge and want.owner in machine.moments]
    for owner in retained:
        assert machine.moments[owner] in machine.contents, f"{owner.name} was to be retained"
    surplus = len(machine.chain) - 1 - len(record.points) - len(scenario.unmanaged)
    held = {str(machine.moments[owner]) for point in record.points for owner in point.owners}
    assert surplus == len({str(machine.moments[owner]) for owner in retained} - held)
    assert record.operation is None
    assert all(removal.left for removal in record.removals), "an image of varve's own waits to be removed"
    made = {key for key in machine.storage if "varve-" in key}
    assert made <= set(machine.chain), "an image of varve's own is left over"


@given(scenarios())
def test_at_rest_there_is_nothing_to_do(scenario: Scenario) -> None:
    loop = play(scenario)
    journal, chain, steps = loop.machine.journal_xml, list(loop.machine.chain), len(loop.steps)
    loop.run()
    assert (loop.machine.journal_xml, loop.machine.chain, len(loop.steps)) == (journal, chain, steps)
    assert not loop.plan().steps


@given(scenarios(guarded=True))
def test_nothing_that_others_use_or_the_class_protects_is_written_to(scenario: Scenario) -> None:
    before = {key: dict(scenario.machine.storage[key].blocks) for key in scenario.untouchable}
    loop = play(scenario)
    machine = loop.machine
    assert not scenario.untouchable & set(machine.written)
    assert not set(machine.elsewhere) & set(machine.removed)
    for key, blocks in before.items():
        if key in machine.storage and key != machine.chain[0] and key not in _was_active(scenario):
            assert machine.storage[key].blocks == blocks, f"{key} changed"
    assert in_order(scenario.unmanaged, machine.contents)
    for standing in loop.plan().standings:
        want = standing.want
        if standing.state is State.REMOVING:
            mine = [one for one in machine.record.removals if want.owner in one.owners]
            assert any(removal.layer.key in machine.elsewhere for removal in mine)
        elif want.deleting and not want.suspended:
            assert standing.blocked is not None, f"{want.owner.name} waits and does not say for what"
            assert standing.blocked.why is Why.IMAGE_PROTECTED


def _was_active(scenario: Scenario) -> set[str]:
    """The layer that the guest wrote to at first."""
    return {b.key("l0")}


@given(scenarios(), st.integers(0, 40))
def test_the_journal_may_be_lost_at_any_time(scenario: Scenario, at: int) -> None:
    """Somebody defines the domain anew from an old XML. Nothing that the guest has may change, and no point
    may be taken a second time."""
    wants = [replace(want, suspended=False) for want in scenario.wants]
    loop = Loop(scenario.machine, wants, steady=False)
    scenario.later.insert(0, frozenset())
    steps = 0

    def between() -> None:
        nonlocal steps
        steps += 1
        if steps == at and loop.machine.record.operation is None:
            loop.machine.journal_xml = None

    for names in scenario.later:
        loop.delete(names)
        loop.run(between)
    assert in_order(scenario.unmanaged, loop.machine.contents)
