"""A tenant makes thousands of objects, and objects as large as the API server takes them: the controller
stays within its memory, keeps its Lease, and the neighbours take their points as before.

Sizes: `VARVE_FLOOD` objects of each kind (5,000 are promised), a fifth of that with 255 kB of annotations.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.controller import Controller, snapshot
from tests.e2e.stage import Stage
from tests.security.flood import Client, Takes, clients
from tests.security.limits import Group, deployed_limit, limited
from tests.security.tenant import Tenant

pytestmark = [pytest.mark.real, pytest.mark.cluster]

COUNT = int(os.environ.get("VARVE_FLOOD", "120"))
LARGE = max(1, COUNT // 5)
NEIGHBOURS_WAIT = 2.0
"""Seconds that half of the takes of somebody else may take, on a machine that has nothing else to do: the API
server, the machines and the tenant himself share its processors."""
BUSY = 20
"""Or so many times as long as without the flood, where the machine is busy with other things."""
SNAPSHOTS, CHAINS = "volumesnapshots", "volumechains"


@pytest.fixture
def confined(stage: Stage) -> Iterator[tuple[Controller, Group]]:
    """A controller with the memory that the Deployment gives it, instead of the one of the other tests."""
    assert stage.controller.stop() == 0
    with limited(deployed_limit()) as group:
        controller = Controller(stage.lab, name="confined", program=group.program)
        controller.start()
        yield controller, group
        if controller.running:
            controller.stop()
    stage.controller.start()


def objects(
    kind: str, domain: str, count: int = COUNT, prefix: str = "flood", **metadata: Any
) -> Iterator[dict[str, Any]]:
    for number in range(count):
        body = json.loads(snapshot(f"{prefix}-{number}", domain, namespace="mallory"))
        body["metadata"] |= metadata
        yield {**body, "kind": kind}


def note(what: str, controller: Controller, group: Group, takes: Takes) -> None:
    """What was measured, for docs/performance.md."""
    lag = [line for line in controller.metrics().splitlines() if "loop_lag_seconds_bucket" in line]
    shown = ", ".join(f"{line.split(chr(34))[1]}: {line.rsplit(' ', 1)[1]}" for line in lag)
    half, most = takes.percentile(0.5), takes.percentile(0.99)
    text = f"{what}: {group.peak(controller.pid) >> 20} MiB at most, takes {half:.2f} s, p99 {most:.2f} s of "
    text += f"{len(takes.seconds)}; lag {shown}\n"
    if path := os.environ.get("VARVE_FLOOD_NOTES"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


async def flood(mallory: Client, takes: Takes, confined: tuple[Controller, Group], domain: str) -> None:
    """Each flood with the neighbour beside it, and what comes of it all at the next start."""
    controller, group = confined
    await takes.beside(mallory.create_all(SNAPSHOTS, objects("VolumeSnapshot", domain)), at_least=3)
    note(f"{COUNT} VolumeSnapshots", controller, group, takes)
    await takes.beside(mallory.create_all(CHAINS, objects("VolumeChain", domain)), at_least=3)
    note(f"{COUNT} VolumeChains", controller, group, takes)
    note_ = {"note": "x" * 255_000}
    large = objects("VolumeSnapshot", "a-machine-of-others", LARGE, "large", annotations=note_)
    await takes.beside(mallory.create_all(SNAPSHOTS, large), at_least=3)
    note(f"{LARGE} of 255 kB", controller, group, takes)
    assert controller.running, "it stays up"
    assert group.peak(controller.pid) < group.limit
    assert controller.stop() == 0
    controller.start(timeout=60)
    await takes.beside(at_least=3)
    note("the next start", controller, group, takes)
    await takes.beside(mallory.delete_all(SNAPSHOTS), mallory.delete_all(CHAINS), at_least=3)
    await takes.beside(mallory.gone(SNAPSHOTS, 300), mallory.gone(CHAINS, 300))
    note("all deleted", controller, group, takes)
    assert controller.running
    assert group.peak(controller.pid) < group.limit


def test_a_flood_of_objects_ends_nothing_and_the_neighbours_go_on(
    stage: Stage, tenant: Tenant, confined: tuple[Controller, Group]
) -> None:
    plane, theirs, ours = stage.controller.plane, stage.machine("file"), stage.machine("file")

    async def run() -> tuple[Takes, Takes]:
        who = ((tenant.namespace, tenant.token), ("shop", plane.token))
        async with clients(plane, *who) as (mallory, shop):
            before, during = Takes(shop, ours.name), Takes(shop, ours.name)
            await before.beside(at_least=5)
            note("nothing", *confined, before)
            await flood(mallory, during, confined, theirs.name)
            return before, during

    before, during = asyncio.run(run())
    slowest = max(NEIGHBOURS_WAIT, BUSY * before.percentile(0.5))
    assert during.percentile(0.5) < slowest, sorted(during.seconds)
