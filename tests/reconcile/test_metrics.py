"""The numbers that docs/operations.md tells people to watch are really counted by a controller at work."""

from __future__ import annotations

import inspect

import pytest

from controller.hypervisor.driver import Driver
from tests.reconcile.scenes import with_points
from tests.reconcile.world import World

ABOVE_ZERO = """
workqueue_adds_total workqueue_queue_duration_seconds_count workqueue_work_duration_seconds_count
varve_reconcile_total varve_reconcile_seconds_count varve_step_seconds_count varve_chain_layers_count
varve_libvirt_up varve_libvirt_call_seconds_count
"""


async def test_a_life_leaves_its_traces_in_the_metrics(world: World) -> None:
    await with_points(world, "a", "b", merge={"direction": "Commit"})
    world.delete("a")
    await world.gone("a")
    await world.settled()
    assert world.engine is not None
    found: dict[str, float] = {}
    calls = set()
    for family in world.engine._metrics.registry.collect():
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
            if sample.name == "varve_libvirt_call_seconds_count":
                calls.add(sample.labels["call"])
    assert [name for name in ABOVE_ZERO.split() if not found.get(name)] == []
    assert {"read", "create_snapshot", "commit", "remove_image", "set_metadata"} <= calls
    assert found["workqueue_longest_running_processor_seconds"] == 0
    assert found["workqueue_depth"] == 0


@pytest.mark.parametrize("name", [name for name in vars(Driver) if not name.startswith("_")])
def test_every_method_of_the_port_can_be_timed(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(Driver, name))
