"""No status, event or message of a tenant tells of another: his machines, paths, hosts, headers, objects.

Everything of the other has a name that gives it away. What is left out is told to those who look after the
hypervisors.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controller.chain.source import Host, Source
from controller.hypervisor.errors import NotListable, OperationFailed, StorageUnreachable
from controller.hypervisor.simulated import DiskDefinition, SimulatedHost
from controller.hypervisor.simulated.driver import SimulatedDriver
from controller.kube.kinds import VOLUME_CHAIN, VOLUME_SNAPSHOT
from tests.reconcile.scenes import EVERYBODY, web
from tests.reconcile.world import NAMESPACE, World, base_image

WORD = "secret"
THEIRS = "secret-space"
PLACES = [{**EVERYBODY[0], "overlays": ["*"]}]
SIZE = 1 << 20

Scene = Callable[[World, pytest.MonkeyPatch], Awaitable[None]]


def export(name: str) -> Source:
    return Source.network("nbd", name, [Host("127.0.0.1", "10809")])


def at(name: str, **changes: Any) -> dict[str, Any]:
    hosts = [{"name": "127.0.0.1", "port": 10809}]
    return {"source": {"protocol": "nbd", "name": name, "hosts": hosts, **changes}}


def told(world: World) -> list[str]:
    """All that is written in the tenant's namespace."""
    objects = [
        json.dumps(raw.get("status", {}))
        for kind, raw in world.kube._store.everything()
        if kind in (VOLUME_SNAPSHOT, VOLUME_CHAIN) and raw["metadata"]["namespace"] == NAMESPACE
    ]
    events = [json.dumps(e) for e in world.kube.events if e["metadata"]["namespace"] == NAMESPACE]
    return objects + events


def nbd_machine(host: SimulatedHost, name: str, image: str) -> str:
    host.storage.create(export(image), capacity=2 * SIZE, format="raw")
    return host.add_domain(name, [DiskDefinition.of("vda", export(image), "raw")], capacity=SIZE)


async def begin(world: World, **policy: Any) -> SimulatedHost:
    host = world.host("host-a", access=PLACES)
    world.policy(**policy)
    return host


async def theirs(world: World, name: str = "secret-point", **spec: Any) -> None:
    source = {"domain": "web-1", "disk": "vda"}
    meta = {"name": name, "namespace": THEIRS}
    world.kube.create_object(VOLUME_SNAPSHOT, {"metadata": meta, "spec": {"source": source, **spec}})

    def has_status() -> bool:
        raw = world.kube.object(VOLUME_SNAPSHOT, THEIRS, name) or {}
        return bool(raw.get("status", {}).get("conditions"))

    await world.until(has_status)
    await world.settled()


async def a_place_that_a_machine_uses(world: World, _: pytest.MonkeyPatch) -> None:
    host = await begin(world)
    nbd_machine(host, "web-1", "mine")
    nbd_machine(host, "secret-machine", "place")
    await world.start()
    world.snapshot("a", overlay=at("place"))
    await world.says("a", "OverlayUnusable", stalled=True)


async def a_place_that_is_used_on_another_hypervisor(world: World, _: pytest.MonkeyPatch) -> None:
    host, other = await begin(world), world.host("secret-host")
    nbd_machine(host, "web-1", "mine")
    nbd_machine(other, "secret-machine", "place")
    host.storage.create(export("place"), capacity=2 * SIZE, format="raw")
    await world.start()
    world.snapshot("a", overlay=at("place"))
    await world.says("a", "OverlayUnusable", stalled=True)


async def a_hypervisor_that_does_not_answer(world: World, _: pytest.MonkeyPatch) -> None:
    host, other = await begin(world), world.host("secret-host")
    nbd_machine(host, "web-1", "mine")
    host.storage.create(export("place"), capacity=2 * SIZE, format="raw")
    await world.start()
    await world.settled()
    other.stop_libvirtd()
    world.snapshot("a", overlay=at("place"))
    await world.says("a", "HypervisorUnreachable")


async def a_header_of_somebody_else(world: World, _: pytest.MonkeyPatch) -> None:
    """What is prepared is an image of another, whose header is not told."""
    host = await begin(world)
    nbd_machine(host, "web-1", "mine")
    below = host.storage.create(export("secret-base"), capacity=SIZE)
    host.storage.create(export("place"), capacity=SIZE, backing=below)
    await world.start()
    world.snapshot("a", overlay=at("place", content="Prepared"))
    await world.says("a", "OverlayUnusable", stalled=True)


async def a_base_that_another_machine_uses(world: World, _: pytest.MonkeyPatch) -> None:
    host = await begin(world, merge={"direction": "Commit"})
    web(host)
    host.add_domain("secret-machine", {"vda": base_image("web-1")}, running=False)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    world.delete("a")
    await world.says("a", "ImageProtected", stalled=True)


async def a_base_that_an_image_stands_on(world: World, _: pytest.MonkeyPatch) -> None:
    host = await begin(world, merge={"direction": "Commit"})
    web(host)
    base = host.storage.open(base_image("web-1").key)
    host.storage.create(Source.file("/images/secret-clone.qcow2"), capacity=SIZE, backing=base)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    world.delete("a")
    await world.says("a", "ImageProtected", stalled=True)


async def a_directory_that_cannot_be_listed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def referrers(*_: Any) -> Any:
        raise NotListable("directory /secret-vault cannot be listed: Permission denied")

    monkeypatch.setattr(SimulatedDriver, "referrers", referrers)
    host = await begin(world, merge={"direction": "Commit"})
    web(host)
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    world.delete("a")
    await world.says("a", "UsersUnknown")


async def a_call_that_fails_at_a_named_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def create(*_: Any, **__: Any) -> None:
        raise OperationFailed("Failed to connect to 'secret-server:22': Connection refused")

    host = await begin(world)
    nbd_machine(host, "web-1", "mine")
    host.storage.create(export("place"), capacity=2 * SIZE, format="raw")
    await world.start()
    monkeypatch.setattr(SimulatedDriver, "create_snapshot", create)
    world.snapshot("a", overlay=at("place"))
    await world.says("a", "Failed", "no layer can be made at nbd://127.0.0.1:10809/place")


async def a_server_that_answers_in_some_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, silent or strange: an answer would be a port scan."""

    async def reach(_: Any, sources: Any, **__: Any) -> None:
        if any(source.name == "place" for source in sources):
            raise StorageUnreachable("the NBD server secret-server refuses connections")

    host = await begin(world)
    nbd_machine(host, "web-1", "mine")
    host.storage.create(export("place"), capacity=2 * SIZE, format="raw")
    await world.start()
    monkeypatch.setattr(SimulatedDriver, "reach", reach)
    world.snapshot("a", overlay=at("place"))
    await world.says("a", "StorageUnreachable", "place cannot be reached")


async def a_disk_of_another_cluster(world: World, _: pytest.MonkeyPatch) -> None:
    host = await begin(world)
    web(host)
    world.cluster = "secret-cluster"
    await world.start()
    world.snapshot("a")
    await world.ready("a")
    await world.stop()
    world.cluster = "cluster-b"
    world.snapshot("b")
    await world.start()
    await world.says("b", "ForeignOwner", stalled=True)


WITH_DETAILS: list[Scene] = [
    a_place_that_a_machine_uses,
    a_place_that_is_used_on_another_hypervisor,
    a_hypervisor_that_does_not_answer,
    a_header_of_somebody_else,
    a_base_that_another_machine_uses,
    a_base_that_an_image_stands_on,
    a_directory_that_cannot_be_listed,
    a_call_that_fails_at_a_named_place,
    a_server_that_answers_in_some_way,
    a_disk_of_another_cluster,
]


async def a_machine_that_is_not_found(world: World, _: pytest.MonkeyPatch) -> None:
    await begin(world)
    world.host("secret-host")
    await world.start()
    world.snapshot("a", domain="no-such")
    await world.until(lambda: world.condition("a")[1] == "DomainNotFound")


async def a_machine_that_may_be_on_a_silent_hypervisor(world: World, _: pytest.MonkeyPatch) -> None:
    await begin(world)
    world.host("secret-host").stop_libvirtd()
    await world.start()
    world.snapshot("a", domain="no-such")
    await world.until(lambda: world.condition("a")[1] == "HypervisorUnreachable")


async def a_pool_that_is_not_there(world: World, _: pytest.MonkeyPatch) -> None:
    host = await begin(world)
    web(host)
    await world.start()
    world.snapshot("a", overlay={"pool": "guess"})
    message = await world.says("a", "OverlayRequired", stalled=True)
    assert "not found" not in message
    assert "there is no" not in message
    assert any("guess" in text for text in world.details("OverlayRequired")), "an administrator finds why"


async def a_shared_disk(world: World, _: pytest.MonkeyPatch) -> None:
    """Their points, their failure, their wish to be asked, and a layer of theirs to adopt."""
    host = await begin(world)
    uuid = web(host)
    await world.start()
    world.snapshot("mine")
    await world.ready("mine")
    await theirs(world)
    await theirs(world, "secret-failure", overlay={"source": {"path": "/images/secret-place"}})
    world.policy_of_chain("secret-chain", namespace=THEIRS, approval="Manual")
    layer = f"/images/{world.chain(host, uuid)[1]}"
    world.snapshot("thief", adopt={"layer": layer})
    await world.says("thief", "AccessDenied", stalled=True)
    world.delete("mine")
    await world.says("mine", "AwaitingApproval", stalled=True)


@pytest.mark.parametrize(
    "scene",
    [
        *WITH_DETAILS,
        a_machine_that_is_not_found,
        a_machine_that_may_be_on_a_silent_hypervisor,
        a_pool_that_is_not_there,
        a_shared_disk,
    ],
)
async def test_nothing_of_others_is_told(world: World, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    await scene(world, monkeypatch)
    await world.told()
    found = told(world)
    assert found
    for text in found:
        assert WORD not in text, text[max(0, text.find(WORD) - 200) : text.find(WORD) + 100]
    assert any(WORD in note for note in world.details()) is (scene in WITH_DETAILS)


async def test_details_are_told_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await a_base_that_another_machine_uses(world, monkeypatch)
    await world.told()
    notes = world.details("ImageProtected")
    assert len(notes) == 1
    world.kube.forget_calls()
    assert world.engine is not None
    for key in list(world.engine._context.store.chains.domains()):
        world.engine._queue.add(key)
    await world.told()
    assert not world.kube.writes
    assert not world.details(), "calls were counted anew, and with them the events"
