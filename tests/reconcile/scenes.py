"""What most stories of these tests begin with, and the questions that they ask."""

from __future__ import annotations

from typing import Any

from controller.chain.journal import Journal
from controller.chain.journal_codec import decode
from controller.chain.parse import JOURNAL_NAMESPACE
from controller.hypervisor.simulated import SimulatedHost
from tests.reconcile.world import World, base_image

EVERYBODY = [{"namespaces": ["*"], "domains": ["*"]}]


def web(host: SimulatedHost, name: str = "web-1", **options: Any) -> str:
    """A machine with one disk, ``vda``; its UUID."""
    return host.add_domain(name, {"vda": base_image(name)}, **options)


async def with_points(world: World, *names: str, **policy: Any) -> tuple[SimulatedHost, str]:
    """A machine with these points: the first holds {1: 1}, the next {1: 1, 2: 2}, and so on. Then the guest
    writes {99: 99}. Calls and writes are counted from here."""
    host = world.host()
    world.policy(**policy)
    uuid = web(host)
    await world.start()
    for number, name in enumerate(names, 1):
        host.guest_write(uuid, "vda", number, number)
        world.snapshot(name)
        await world.ready(name)
    host.guest_write(uuid, "vda", 99, 99)
    await world.settled()
    host.faults.forget()
    world.kube.forget_calls()
    return host, uuid


def journal(host: SimulatedHost, uuid: str) -> Journal:
    """The journal in the persistent definition."""
    return decode(host.machine(uuid).config_metadata.get(JOURNAL_NAMESPACE))


def status(world: World, name: str) -> dict[str, Any]:
    """The status of a VolumeSnapshot that is there."""
    raw = world.object(name)
    assert raw is not None
    found: dict[str, Any] = raw["status"]
    return found


def content(world: World, host: SimulatedHost, uuid: str, name: str) -> dict[int, int]:
    """What reads through the layer that the object says holds its point."""
    return host.point(uuid, "vda", f"file:{status(world, name)['layer']['source']}")


async def ready_within(world: World, seconds: float, *names: str) -> None:
    """What waited goes on by itself, in this time."""
    await world.until(lambda: all(world.is_ready(name) for name in names), seconds)


def unchanged(*hosts: SimulatedHost) -> None:
    """No call was made that may change anything."""
    for host in hosts:
        assert not host.faults.changes
