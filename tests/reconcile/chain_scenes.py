"""What people see of a VolumeChain, and what they do with virsh behind the controller's back."""

from __future__ import annotations

import asyncio
from typing import Any

from controller.chain.disk import Layer
from controller.chain.parse import parse_domain
from controller.hypervisor.simulated import SimulatedHost
from controller.hypervisor.snapshot_xml import snapshot_xml
from controller.kube.kinds import VOLUME_CHAIN
from tests.reconcile.world import World, base_image

NAME = "web-1-vda"


def told(world: World, name: str = NAME) -> dict[str, Any]:
    """The status of a VolumeChain that is there."""
    raw = world.chain_object(name)
    assert raw is not None
    found: dict[str, Any] = raw["status"]
    return found


def says(world: World, name: str = NAME) -> tuple[str, str]:
    """Reason of Ready, and whether a person is needed."""
    conditions = {
        one["type"]: one for one in (world.chain_object(name) or {}).get("status", {}).get("conditions", [])
    }
    if not conditions:
        return "", ""
    return conditions["Ready"]["reason"], conditions["Stalled"]["status"]


def names(world: World) -> set[str]:
    return {raw["metadata"]["name"] for kind, raw in world.kube._store.everything() if kind == VOLUME_CHAIN}


async def by_hand(host: SimulatedHost, uuid: str, leaf: str) -> None:
    """virsh snapshot-create-as."""
    driver = host.by_hand()
    definition = parse_domain((await driver.read(uuid)).live_xml or "")
    overlay = base_image("web-1").beside(leaf)
    assert overlay is not None
    await driver.create_snapshot(uuid, snapshot_xml(definition, {"vda": Layer(overlay, "qcow2")}))


def label(host: SimulatedHost, uuid: str, position: int) -> str:
    """How virsh names a layer."""
    process = host.machine(uuid).process
    assert process is not None
    return f"vda[{process.disks['vda'].nodes[position].index}]"


async def commit_by_hand(host: SimulatedHost, uuid: str, top: int, base: int) -> None:
    """virsh blockcommit."""
    await host.by_hand().commit(
        uuid, "vda", base=label(host, uuid, base), top=label(host, uuid, top), relative=False, bandwidth=0
    )


async def look_again(world: World) -> None:
    """A resync."""
    await asyncio.sleep(3600 * 1.65)
    await world.told()
