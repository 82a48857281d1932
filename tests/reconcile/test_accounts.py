"""What a merge copied, beside what the plan foresaw: in the metrics and in the last event of the object."""

from __future__ import annotations

import pytest

from controller.hypervisor.simulated.image import CLUSTER_BYTES, QCOW2_BYTES
from tests.reconcile.scenes import with_points
from tests.reconcile.world import World


def counted(world: World, kind: str) -> tuple[int, int]:
    """Bytes planned and copied so far by jobs of this kind, in clusters."""
    assert world.engine is not None
    registry = world.engine._metrics.registry

    def value(what: str) -> int:
        labels = {"kind": kind, "what": what}
        return int(registry.get_sample_value("varve_merge_bytes_total", labels) or 0) // CLUSTER_BYTES

    return value("planned"), value("copied")


TABLES = QCOW2_BYTES // CLUSTER_BYTES
"""Clusters that an image takes besides what it holds: the plan counts them, nobody copies them."""


# Each layer holds one cluster of its own, the active one as well.
@pytest.mark.parametrize(
    ("direction", "name", "kind"),
    [("Commit", "b", "commit"), ("Commit", "c", "active-commit"), ("Pull", "c", "pull")],
)
async def test_what_was_copied_is_told(world: World, direction: str, name: str, kind: str) -> None:
    await with_points(world, "a", "b", "c", merge={"direction": direction})
    world.delete(name)
    await world.gone(name)
    assert counted(world, kind) == (1 + TABLES, 1)
    foreseen = CLUSTER_BYTES + QCOW2_BYTES
    words = f"{CLUSTER_BYTES} bytes were copied; the plan foresaw {foreseen} at most"
    await world.until(lambda: world.events("LayerMerged"))
    assert words in world.events("LayerMerged")[0]


async def test_an_estimate_that_was_too_high_is_seen(world: World) -> None:
    """The same cluster was written again and again."""
    host, uuid = await with_points(world, "a", "b", merge={"direction": "Commit", "settleSeconds": 5})
    for point in ("c", "d", "e"):
        host.guest_write(uuid, "vda", 1, 7)
        world.snapshot(point)
        await world.ready(point)
    for point in ("b", "c", "d"):
        world.delete(point)
    await world.until(lambda: not any(world.object(point) for point in "bcd"), 30)
    assert counted(world, "commit") == (4 + 3 * TABLES, 2)


async def test_a_controller_that_did_not_begin_a_job_tells_nothing_of_it(world: World) -> None:
    host, uuid = await with_points(world, "a", "b", merge={"direction": "Commit"})
    host.auto = False
    world.delete("a")
    await world.until(lambda: host.jobs(uuid))
    await world.crash()
    await world.start()
    await world.until(lambda: world.condition("a")[1] == "Committing")
    host.finish_jobs(uuid)
    await world.gone("a")
    assert counted(world, "commit") == (0, 0)
    await world.until(lambda: world.events("LayerMerged"))
    assert world.events("LayerMerged") == ["the layer is merged away"]
