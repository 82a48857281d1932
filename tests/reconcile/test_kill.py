"""kill -9 of the controller before and after every single call, to libvirt and to Kubernetes.

Each scenario is run once to count its calls, then once per call and side with a kill there and a new
controller started afterwards. The end must be the same: contents of the guest and of every kept point, the
length of the chain, the images on the storage, and the objects.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controller.hypervisor.simulated import Killed, Side
from tests.reconcile.kill_scenes import SCENARIOS, End, Scenario, Scene, finish, jobs_of, prepare


async def run(scenario: Scenario, kill: Callable[[Scene], None] | None, *, retain: bool) -> tuple[End, Scene]:
    scene = await prepare(scenario, retain=retain)
    try:
        if kill:
            kill(scene)
        scenario.act(scene.world)
        if kill:
            await scene.world.until(lambda: _was_killed(scene), 10)
            await scene.world.crash()
            scene.world.kube.hook = None
            scene.host.faults.forget()
            await scene.world.start()
        return await finish(scene, scenario), scene
    finally:
        await scene.world.stop()


def _was_killed(scene: Scene) -> bool:
    return bool(scene.host.faults.struck) or (scene.world.mortal is not None and scene.world.mortal.dead)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("side", [Side.BEFORE, Side.AFTER])
async def test_killed_at_every_libvirt_call(name: str, side: Side) -> None:
    scenario, retain = SCENARIOS[name], name == "retain"
    expected, scene = await run(scenario, None, retain=retain)
    calls = scene.host.faults.changes
    assert calls
    assert jobs_of(scene) == scenario.jobs
    assert not expected.pending
    for number, call in enumerate(calls, start=1):
        if side is Side.AFTER and call.arguments.get("relative"):
            continue  # refused by these chains of absolute names: there is no effect to be killed after

        def kill(scene: Scene, number: int = number) -> None:
            (scene.host.kill_before if side is Side.BEFORE else scene.host.kill_after)(number)

        found, _ = await run(scenario, kill, retain=retain)
        assert found == expected, f"killed {side} call {number}: {call}"


@pytest.mark.parametrize("name", ["take", "commit", "active commit", "pull", "retain", "adopt"])
@pytest.mark.parametrize("phase", ["before", "after"])
async def test_killed_at_every_write_to_kubernetes(name: str, phase: str) -> None:
    scenario, retain = SCENARIOS[name], name == "retain"
    expected, scene = await run(scenario, None, retain=retain)
    writes = [call.verb for call in scene.world.kube.calls if call.writes and call.verb != "event"]
    assert writes
    for number in range(1, len(writes) + 1):

        def kill(scene: Scene, number: int = number) -> None:
            seen = 0

            def hook(call, when) -> None:
                nonlocal seen
                if call.writes and call.verb != "event" and when == phase:
                    seen += 1
                    if seen == number:
                        raise Killed

            scene.world.kube.hook = hook

        found, _ = await run(scenario, kill, retain=retain)
        assert found == expected, f"killed {phase} write {number} of {writes}"
