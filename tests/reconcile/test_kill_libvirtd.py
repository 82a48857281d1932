"""kill -9 of libvirtd in every single call, and at every end of a job: before it, when QEMU has done it and
nothing is noted, when it is noted live alone, and after.

Each scenario is run once to count its calls, then once per call and moment. The guest writes meanwhile; the
controller goes on as far as it can; then the machine is stopped and started once in good order, and the rest
must come by itself. Nothing that QEMU has open may ever be removed, the guest may never lose what it wrote,
and the end must be the one that there is without a kill.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.reconcile.deaths import WHOLE, Death, deaths
from tests.reconcile.kill_scenes import SCENARIOS, End, Scenario, Scene, finish, prepare

AWAY = 1.0
"""Seconds until libvirtd is back."""
REST = 120.0
"""Seconds in which the controller does what it can before the machine is stopped."""
WRITES = ({100: 8, 300: 1}, {100: 9, 301: 2})
"""What the guest writes while libvirtd is away, and when it is back. Cluster 100 is in the active layer
before: a stale layer on top would hide what is written to it."""
STATES = ({}, {100: 7}, {100: 8, 300: 1}, {100: 9, 300: 1, 301: 2})
"""What these clusters hold at any moment."""


async def unharmed(scenario: Scenario, *, retain: bool) -> tuple[End, list[Death]]:
    """The end without a kill, and all that can be killed on the way there."""
    scene = await prepare(scenario, retain=retain)
    before = scene.host.ends
    try:
        scenario.act(scene.world)
        end = await finish(scene, scenario)
        ways = deaths(scene.host.faults.changes, scene.host.ends - before)
        return without_the_writes(end), ways
    finally:
        await scene.world.stop()


async def survived(scenario: Scenario, death: Death, *, retain: bool, controller: bool) -> End:
    """The end after this death. With ``controller``, that is killed as well, while libvirtd is away."""
    scene = await prepare(scenario, retain=retain)
    world, host = scene.world, scene.host
    try:
        host.revives_after = AWAY
        death.arm(host)
        scenario.act(world)
        await world.until(lambda: host.faults.deaths, 20)
        write(scene, WRITES[0])
        if controller:
            await world.crash()
            host.faults.forget()
            await world.start()
        await world.until(lambda: host.libvirtd_runs, 5)
        write(scene, WRITES[1])
        await asyncio.sleep(REST)
        await world.settled()
        says_what_it_waits_for(scene)
        stop_and_start(scene)
        end = await finish(scene, scenario)
        world.check_writes()
        assert apart(end.guest)[1] == STATES[-1]
        return without_the_writes(end)
    finally:
        await world.stop()


def write(scene: Scene, content: dict[int, int]) -> None:
    for cluster, value in content.items():
        scene.host.guest_write(scene.uuid, "vda", cluster, value)


def says_what_it_waits_for(scene: Scene) -> None:
    """Every object is ready, or says why it is not and whether a person is needed."""
    for name, (ready, stalled) in scene.world.conditions().items():
        status, reason, message = ready
        assert status == "True" or (reason and message and stalled[0] in {"True", "False"}), name


def stop_and_start(scene: Scene) -> None:
    """Somebody shuts the machine down and starts it: the guest finds all that it wrote."""
    host, uuid = scene.host, scene.uuid
    wrote = host.visible(uuid, "vda")
    assert STATES[-1].items() <= wrote.items(), "the guest does not find what it has just written"
    host.shutdown(uuid)
    host.start(uuid)
    assert host.visible(uuid, "vda") == wrote, "the next start is from another image"


def apart(content: tuple[tuple[int, int], ...]) -> tuple[tuple[tuple[int, int], ...], dict[int, int]]:
    """A content without the clusters that are written about the kill, and these."""
    written = {cluster: value for cluster, value in content if cluster in STATES[-1]}
    return tuple(one for one in content if one[0] not in written), written


def without_the_writes(end: End) -> End:
    """What the guest wrote about the kill is in a point as it was at some moment."""
    points = [apart(point) for point in end.points]
    assert all(written in STATES for _, written in points), f"a point is of no moment: {end.points}"
    return replace(end, guest=apart(end.guest)[0], points=tuple(rest for rest, _ in points))


@pytest.mark.parametrize("controller", [False, True], ids=["libvirtd", "libvirtd and the controller"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_killed_at_every_moment(name: str, controller: bool) -> None:
    """A2."""
    scenario, retain = SCENARIOS[name], name == "retain"
    expected, ways = await unharmed(scenario, retain=retain)
    assert ways
    if controller:  # what it makes of the rest is told by the tests that kill it alone
        ways = [death for death in ways if death.moment not in WHOLE]
    wrong = {}
    for death in ways:
        try:
            found = await survived(scenario, death, retain=retain, controller=controller)
        except Exception as error:  # noqa: BLE001 - all that goes wrong is told at the end
            wrong[str(death)] = f"{type(error).__name__}: {error}"
        else:
            if found != expected:
                wrong[str(death)] = f"{found}, not {expected}"
    assert not wrong, "\n".join(f"{death}: {what}" for death, what in wrong.items())
