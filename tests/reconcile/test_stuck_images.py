"""B7: an image that cannot be removed holds nobody up for ever. It is left, told, and in the inventory."""

from __future__ import annotations

import pytest

from controller.chain.source import Source
from controller.hypervisor.errors import Busy, HypervisorError, OperationFailed, StillOpen
from controller.hypervisor.simulated import DiskDefinition, SimulatedHost
from controller.kube.kinds import HYPERVISOR
from tests.reconcile.scenes import base_image, journal
from tests.reconcile.world import World


@pytest.fixture
def host(world: World) -> SimulatedHost:
    world.policy(merge={"direction": "Commit"})
    return world.host()


async def merged_with(world: World, host: SimulatedHost, error: HypervisorError) -> tuple[str, str]:
    """A point that is deleted while its overlay cannot be removed. The machine's UUID, the overlay's key."""
    uuid = host.add_domain("web-1", {"vda": base_image("web-1")})
    await world.start()
    world.snapshot("before")
    await world.ready("before")
    [overlay] = journal(host, uuid).disk("vda").images
    host.storage.kept[overlay] = error
    world.delete("before")
    return uuid, overlay


@pytest.mark.parametrize(
    "error",
    [
        OperationFailed("cannot unlink file '/images/x': Operation not permitted", code=38),
        StillOpen("Ceph does not let it go"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_b7_an_image_that_cannot_be_unlinked_is_left(
    world: World, host: SimulatedHost, error: HypervisorError
) -> None:
    uuid, overlay = await merged_with(world, host, error)
    await world.until(lambda: world.object("before") is None, seconds=600)
    await world.settled()
    [removal] = journal(host, uuid).disk("vda").removals
    assert removal.layer.key == overlay
    assert error.message in removal.left
    raw = world.kube.object(HYPERVISOR, None, "host-a")
    assert raw is not None
    [listed] = raw["status"]["orphanImages"]["images"]
    assert error.message in listed["reason"]
    assert overlay in host.storage.images


async def test_b7_a_lock_that_passes_is_waited_for(world: World, host: SimulatedHost) -> None:
    """Busy says that another job has the place: that ends by itself, and nothing is left behind."""
    _, overlay = await merged_with(world, host, Busy("another storage pool holds it"))
    await world.says("before", "Removing", "cannot be removed yet")
    host.storage.kept.clear()
    await world.until(lambda: world.object("before") is None, seconds=600)
    assert overlay not in host.storage.images


async def test_b7_an_image_that_somebody_else_uses_is_left(world: World, host: SimulatedHost) -> None:
    """The merge is done, so the deletion is. What another machine stands on is not ours to take away."""
    uuid, overlay = await merged_with(world, host, OperationFailed("not yet"))
    await world.says("before", "Removing", "cannot be removed yet")
    host.add_domain(
        "web-2", [DiskDefinition.of("vda", Source.file(overlay.removeprefix("file:")))], running=False
    )
    await world.until(lambda: world.object("before") is None, seconds=600)
    [removal] = journal(host, uuid).disk("vda").removals
    assert "web-2" in removal.left
