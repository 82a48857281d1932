"""Hypervisors that refuse, hang, would run programs, or are none of the namespace's business."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.hypervisor.errors import Unreachable
from controller.kube.kinds import HYPERVISOR
from tests.reconcile.scenes import (
    EVERYBODY,
    ready_within,
    unchanged,
    web,
    with_points,
)
from tests.reconcile.world import NAMESPACE, World

# Access ------------------------------------------------------------------------------------------------


async def test_a_namespace_without_access(world: World) -> None:
    host = world.host(access=[{"namespaces": ["other"], "domains": ["*"]}])
    world.policy()
    web(host)
    await world.start()
    world.snapshot("a")
    await world.says("a", "AccessDenied", f"namespace {NAMESPACE}", "spec.access", stalled=True)
    unchanged(host)
    world.edit_hypervisor("host-a", access=EVERYBODY)
    await ready_within(world, 1, "a")


@pytest.mark.parametrize("by_uuid", [False, True])
@pytest.mark.parametrize("rules", [[], [{"namespaces": ["*"], "domains": ["mine-*"]}]])
async def test_a_refusal_does_not_tell_whether_the_domain_exists(
    world: World, rules: list[Any], by_uuid: bool
) -> None:
    host = world.host(access=rules)
    world.policy()
    uuid = web(host)
    absent = uuid[:-1] + ("0" if uuid[-1] != "0" else "1")
    await world.start()
    told = []
    for name, there, key in (("a", "web-1", uuid), ("b", "web-2", absent)):
        world.snapshot(name, source={"disk": "vda"} | ({"domainUUID": key} if by_uuid else {"domain": there}))
        await world.until(lambda name=name: world.condition(name)[0] == "False", 15)
        told.append([text.replace(there, "X").replace(key, "X") for text in world.condition(name)])
    assert told[0] == told[1]
    unchanged(host)


async def test_access_that_is_taken_away(world: World) -> None:
    """The point stays as it is, and the object says why nobody looks after it."""
    host, _ = await with_points(world, "a")
    world.edit_hypervisor("host-a", access=[])
    await world.says("a", "AccessDenied", "spec.access", stalled=True)
    unchanged(host)
    world.edit_hypervisor("host-a", access=EVERYBODY)
    await ready_within(world, 1, "a")


# Hypervisors -------------------------------------------------------------------------------------------


async def test_a_hypervisor_that_refuses_connections(world: World) -> None:
    host = world.host()
    world.policy()
    web(host)
    host.stop_libvirtd()
    await world.start()
    world.snapshot("a")
    await world.says("a", "HypervisorUnreachable", "cannot be asked", "kubectl get hypervisors")
    ready = world.hypervisor("host-a")["status"]["conditions"][0]
    assert (ready["status"], ready["reason"]) == ("False", "HypervisorUnreachable")
    assert "Connection refused" in ready["message"]
    unchanged(host)
    host.start_libvirtd()
    await ready_within(world, 30, "a")


async def test_a_hypervisor_that_hangs(world: World) -> None:
    """It accepts and never answers. Others go on, and it goes on itself when it answers again."""
    hung, other = world.host("host-a"), world.host("host-b")
    world.policy()
    web(hung, "web-1")
    web(other, "web-2")
    connect, answers = hung.connect, False

    async def hang(sink: Any) -> Any:
        if answers:
            return await connect(sink)
        await asyncio.sleep(10)  # the deadline of a connection
        raise Unreachable("no answer within 10 s: the daemon hangs, or something drops its packets")

    hung.connect = hang  # type: ignore[method-assign]
    await world.start()
    world.snapshot("a")
    world.snapshot("b", domain="web-2")
    await ready_within(world, 1, "b")
    await world.until(lambda: world.condition("a")[1] == "HypervisorUnreachable", 15)
    ready = world.hypervisor("host-a")["status"]["conditions"][0]
    assert "no answer within 10 s" in ready["message"]
    unchanged(hung)
    answers = True
    await ready_within(world, 60, "a")


async def test_domains_of_a_hung_hypervisor_do_not_use_up_the_workers(world: World) -> None:
    hung, other = world.host("host-a"), world.host("host-b")
    world.policy()
    names = [f"web-{number}" for number in range(12)]
    for name in names:
        web(hung, name)
    web(other, "db")
    await world.start()
    for name in names:
        world.snapshot(name, domain=name)
    world.snapshot("db", domain="db")
    await world.ready(*names, "db")
    world.delete("db")
    await world.gone("db")
    [driver] = hung._drivers
    answered = asyncio.Event()
    read = driver.read

    async def hang(*args: Any) -> Any:
        await answered.wait()
        return await read(*args)

    driver.read = hang  # type: ignore[method-assign]
    for name in names:
        world.edit(name, deletionPolicy="Retain")
    await asyncio.sleep(0.1)
    world.snapshot("db-2", domain="db")
    await ready_within(world, 1, "db-2")
    answered.set()


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ext:///system?command=/bin/sh",
        "qemu+ssh://root@host/system?netcat=/tmp/x",
        "qemu+ssh://root@host/system?command=%2fbin%2fsh",
        "qemu+libssh2://root@host/system",
        "test:///default",
        "qemu+tcp://host/system",
    ],
)
async def test_a_uri_that_would_run_a_program(world: World, uri: str) -> None:
    asked: list[str] = []
    world.make_connector = asked.append
    world.kube.create_object(
        HYPERVISOR, {"metadata": {"name": "host-a"}, "spec": {"uri": uri, "access": EVERYBODY}}
    )
    world.policy()
    await world.start()
    world.snapshot("a")
    await world.until(lambda: world.hypervisor("host-a")["status"].get("conditions"))
    conditions = {one["type"]: one for one in world.hypervisor("host-a")["status"]["conditions"]}
    assert conditions["Stalled"]["status"] == "True"
    assert conditions["Ready"]["reason"] == "InvalidURI"
    assert "write" in conditions["Ready"]["message"] or "leave" in conditions["Ready"]["message"]
    await world.says("a", "HypervisorUnreachable", "cannot be asked", "kubectl get hypervisors")
    assert not asked
    world.make_connector = None
    host = world.add_host("host-a")
    web(host)
    world.edit_hypervisor("host-a", uri="qemu+unix:///system?socket=/run/host-a")
    await ready_within(world, 1, "a")
