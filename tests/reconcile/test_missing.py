"""B2: what an object names and nobody has. Such an object is Stalled after some seconds, and heals by itself.

Nothing in these tests wakes anybody while they wait: what is told in time is told by a timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from controller.chain.source import Source
from controller.hypervisor.simulated import DiskDefinition, SimulatedHost
from controller.kube.kinds import VOLUME_CHAIN, VOLUME_SNAPSHOT
from tests.api.kstatus import evaluate
from tests.reconcile.scenes import ready_within, web
from tests.reconcile.world import NAMESPACE, World

ELSEWHERE = {"source": {"domain": "web-1", "disk": "vda", "hypervisor": "host-b"}}


def _define(world: World) -> None:
    web(world.hosts["host-a"], "web-9")


def _attach(world: World) -> None:
    host = world.hosts["host-a"]
    host.storage.create(Source.file("/images/second.qcow2"), capacity=1 << 20)
    (uuid,) = (domain.uuid for domain in host.inventory())
    host.attach(uuid, DiskDefinition.of("vdb", Source.file("/images/second.qcow2")))


def _connect(world: World) -> None:
    host = world.hosts["host-a"]
    (machine,) = host.inventory()
    host.shutdown(machine.uuid)
    host.undefine(machine.uuid)
    web(world.host("host-b"))


CASES: dict[str, tuple[dict[str, Any], str, Callable[[World], object]]] = {
    "a domain": ({"domain": "web-9"}, "DomainNotFound", _define),
    "a domain by its UUID": (
        {"source": {"domainUUID": "a" * 8 + "-0000-0000-0000-000000000000", "disk": "vda"}},
        "DomainNotFound",
        lambda world: web(world.hosts["host-a"], "any", uuid="a" * 8 + "-0000-0000-0000-000000000000"),
    ),
    "a disk": ({"disk": "vdb"}, "DiskNotFound", _attach),
    "a hypervisor": (ELSEWHERE, "HypervisorNotFound", _connect),
    "a class": (
        {"volumeSnapshotClassName": "gold"},
        "ClassNotFound",
        lambda world: world.policy("gold", default=False),
    ),
}


async def the_world(world: World) -> SimulatedHost:
    host = world.host()
    web(host)
    await world.start()
    await world.settled()
    return host


def kstatus(world: World, name: str = "a") -> str:
    raw = world.kube.object(VOLUME_SNAPSHOT, NAMESPACE, name)
    assert raw is not None
    return evaluate(raw)


@pytest.mark.parametrize("case", CASES)
async def test_what_is_missing_is_failed_after_some_seconds_and_heals(world: World, case: str) -> None:
    """B2: Stalled after 10 s without it; kstatus says Failed; what comes is used within a second."""
    spec, reason, come = CASES[case]
    await the_world(world)
    world.snapshot("a", **spec)
    await world.says("a", reason)
    assert kstatus(world) == "InProgress"
    await asyncio.sleep(8)
    assert kstatus(world) == "InProgress"
    await asyncio.sleep(3)
    assert kstatus(world) == "Failed"
    message = await world.says("a", reason, stalled=True)
    assert len(world.events(reason)) == 1, "somebody is called once"
    come(world)
    await ready_within(world, 1, "a")
    assert world.condition("a", "Stalled")[0] == "False"
    assert kstatus(world) == "Current"
    assert message


async def test_what_comes_in_time_is_nobodys_business(world: World) -> None:
    """B2: objects of one commit come in any order; nobody is called for that."""
    host = await the_world(world)
    world.snapshot("a", domain="web-9")
    await asyncio.sleep(9)
    web(host, "web-9")
    await ready_within(world, 1, "a")
    await asyncio.sleep(60)
    stalled = [one for one in world.written if _is_stalled(one.status)]
    assert not stalled
    assert not world.events("DomainNotFound")


def _is_stalled(status: dict[str, Any]) -> bool:
    return any(one["type"] == "Stalled" and one["status"] == "True" for one in status["conditions"])


async def test_each_thing_that_is_missing_has_its_own_patience(world: World) -> None:
    """B2: the hypervisor has come, and its machine is expected for some seconds more."""
    await the_world(world)
    world.snapshot("a", **ELSEWHERE)
    await asyncio.sleep(11)
    assert kstatus(world) == "Failed"
    other = world.host("host-b")
    await world.says("a", "DomainNotFound")
    await asyncio.sleep(11)
    await world.says("a", "DomainNotFound", stalled=True)
    web(other)
    await ready_within(world, 1, "a")


async def test_a_restarted_controller_goes_by_what_the_object_says(world: World) -> None:
    """B2: one that is Stalled stays so through a restart; one that waited goes on from when it began."""
    await the_world(world)
    world.snapshot("old", domain="web-8")
    await asyncio.sleep(20)
    world.snapshot("young", domain="web-9")
    await asyncio.sleep(6)
    await world.stop()
    world.written.clear()
    await world.start()
    await asyncio.sleep(2)
    assert (kstatus(world, "old"), kstatus(world, "young")) == ("Failed", "InProgress")
    assert not world.written
    await asyncio.sleep(4)
    assert kstatus(world, "young") == "Failed"


async def test_a_controller_that_dies_again_and_again_still_says_it(world: World) -> None:
    """B2: no process lives for 10 s."""
    await the_world(world)
    world.snapshot("a", domain="web-9")
    for _ in range(4):
        await asyncio.sleep(4)
        await world.stop()
        await world.start()
    await asyncio.sleep(1)
    assert kstatus(world) == "Failed"


async def test_what_is_missing_costs_three_writes_however_long_it_is_missing(world: World) -> None:
    """B2, B14: told when found, told when the patience is over (with one event), and never again."""
    await the_world(world)
    world.kube.forget_calls()
    world.snapshot("a", domain="web-9")
    await asyncio.sleep(3600)
    assert world.kube.writes == {"status": 2, "event": 1}


async def test_a_hypervisor_that_does_not_answer_is_not_a_missing_domain(world: World) -> None:
    """B2: unknown is never absent: what may be on a hypervisor that is away is waited for."""
    host = await the_world(world)
    host.stop_libvirtd()
    await asyncio.sleep(5)
    world.snapshot("a", domain="web-9")
    await asyncio.sleep(60)
    await world.says("a", "HypervisorUnreachable")
    host.start_libvirtd()
    await world.until(lambda: world.condition("a")[1] == "DomainNotFound", 40)
    assert kstatus(world) == "InProgress"
    await asyncio.sleep(11)
    assert kstatus(world) == "Failed"


async def test_volume_chains_too(world: World) -> None:
    """B2: a VolumeChain of nothing is told like a VolumeSnapshot of nothing."""
    host = await the_world(world)
    world.policy_of_chain("domainless", domain="web-9")
    world.policy_of_chain("diskless", disk="vdz")

    def told(name: str) -> str:
        raw = world.chain_object(name)
        assert raw is not None
        return evaluate(raw)

    await world.until(lambda: (world.chain_object("diskless") or {})["status"]["observedGeneration"] == 1)
    assert [told(name) for name in ("domainless", "diskless")] == ["InProgress"] * 2
    await asyncio.sleep(16)
    assert [told(name) for name in ("domainless", "diskless")] == ["Failed"] * 2
    web(host, "web-9")
    await world.until(lambda: told("domainless") == "Current", 10)
    world.kube.delete(VOLUME_CHAIN, NAMESPACE, "diskless")


async def test_a_deleted_object_of_a_disk_that_is_gone_has_a_way_out(world: World) -> None:
    """B2: the disk was detached for good. The deletion is Stalled, and Retain lets the object go."""
    host = await the_world(world)
    host.storage.create(Source.file("/images/second.qcow2"), capacity=1 << 20)
    (machine,) = host.inventory()
    host.attach(machine.uuid, DiskDefinition.of("vdb", Source.file("/images/second.qcow2")))
    world.snapshot("a", disk="vdb")
    await world.ready("a")
    host.detach(machine.uuid, "vdb")
    world.delete("a")
    await asyncio.sleep(50)
    await world.says("a", "DiskNotFound", "deletionPolicy", "Retain", stalled=True)
    images = set(host.storage.images)
    world.edit("a", deletionPolicy="Retain")
    await world.gone("a")
    assert set(host.storage.images) == images


async def test_a_suspended_deletion_needs_somebody(world: World) -> None:
    """B2: only a person sets spec.suspend back."""
    await the_world(world)
    world.snapshot("a")
    await world.ready("a")
    world.edit("a", suspend=True)
    await world.settled()
    world.delete("a")
    await world.says("a", "Suspended", "set it to false", stalled=True)
    world.edit("a", suspend=False)
    await world.gone("a")
