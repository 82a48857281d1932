"""What the versions of a hypervisor are known to do wrong (A3): told of it, and in force for its chains."""

from __future__ import annotations

from controller.hypervisor.simulated import SimulatedHost
from controller.kube.kinds import HYPERVISOR, Raw
from tests.reconcile.chain_scenes import by_hand, commit_by_hand, look_again
from tests.reconcile.scenes import status, web
from tests.reconcile.world import World

MOST = 22


def debian(world: World) -> SimulatedHost:
    """A hypervisor as in Debian 13."""
    host = world.host()
    host.libvirt_version, host.qemu_version = "11.3.0", "10.0.13"
    return host


def faults(world: World) -> dict[str, Raw]:
    raw = world.kube.object(HYPERVISOR, None, "host-a")
    assert raw is not None
    return {one["name"]: one for one in raw["status"].get("knownFaults", [])}


async def test_the_hypervisor_tells_them_once(world: World) -> None:
    debian(world)
    await world.start()
    await world.until(lambda: faults(world))
    found = faults(world)
    assert set(found) == {"ChainDepth", "StatsDepth", "ReadWaits"}
    assert found["ChainDepth"]["limit"] == MOST
    assert found["ChainDepth"]["of"] == "libvirt 11.3.0"
    assert "nesting too deep" in found["ChainDepth"]["fact"]
    assert "limit" not in found["ReadWaits"]
    await world.settled()
    world.kube.forget_calls()
    await world.settled()
    assert not world.kube.writes


async def test_a_sound_hypervisor_tells_of_qemu_alone(world: World) -> None:
    world.host()
    await world.start()
    await world.until(lambda: faults(world))
    assert set(faults(world)) == {"PullWatched"}


async def grown(world: World, host: SimulatedHost, images: int) -> str:
    """A machine with a chain of so many images: one point of ours, the rest made by hand."""
    world.policy()
    uuid = web(host)
    await world.start()
    world.snapshot("mine")
    await world.ready("mine")
    for number in range(images - 2):
        await by_hand(host, uuid, f"by-hand-{number}.qcow2")
    assert len(world.chain(host, uuid)) == images
    return uuid


async def test_a_chain_of_40_is_named_within_one_resync_and_heals(world: World) -> None:
    host = debian(world)
    uuid = await grown(world, host, 40)
    await look_again(world)
    words = (
        "40 images",
        "libvirt 11.3.0",
        "before 18 are gone",
        "shop/mine",
        "38 layers",
        "virsh blockcommit",
    )
    await world.says("mine", "ChainTooLong", *words, stalled=True)
    assert status(world, "mine")["readyToUse"] is True, "the point itself is there"
    await commit_by_hand(host, uuid, 1, 19)
    await world.ready("mine")


async def test_a_point_beyond_the_limit_waits_for_one_to_go(world: World) -> None:
    """The class allows 64. What is being deleted already needs nobody."""
    host = debian(world)
    uuid = await grown(world, host, MOST)
    await look_again(world)
    assert world.is_ready("mine"), "exactly the limit is fine"
    world.snapshot("more")
    await world.says("more", "ChainTooLong", f"no machine with more than {MOST}", "maxLayers", stalled=True)
    assert world.is_ready("mine")
    assert len(world.chain(host, uuid)) == MOST
    world.delete("mine")
    await world.gone("mine")
    await world.ready("more")
    assert len(world.chain(host, uuid)) == MOST


async def test_a_sound_libvirt_has_no_such_limit(world: World) -> None:
    host = world.host()
    await grown(world, host, 40)
    world.snapshot("more")
    await world.ready("mine", "more")
