"""What a pass asks of a hypervisor, and no more: calls to it are most of what an act takes."""

from __future__ import annotations

import asyncio

from controller.chain.disk import Layer
from controller.chain.parse import parse_domain
from controller.hypervisor.observe import observe, with_usage
from controller.hypervisor.simulated import SimulatedHost
from controller.hypervisor.snapshot_xml import snapshot_xml
from tests.reconcile.world import World, base_image

TAKE = ["read", "set_metadata", "read", "create_snapshot", "read", "set_metadata"]
"""Look; the intent; look again; the call; see what came of it; record it."""

MERGE = ["read", "definitions", "surroundings", "referrers", "referrers", "set_metadata", "read", "commit"]
"""Look; who else uses the images, what libvirt keeps of them and how much is free; who else names them in a
header (asked for both at once, which is one listing); the intent; look again; the call."""

PIVOT = ["set_metadata", "read", "pivot"]
END = ["read", "set_metadata", "definitions", "referrers", "remove_image", "set_metadata"]
"""See what came of it; record it; who else uses the image; remove it; record that."""


def calls(host: SimulatedHost) -> list[str]:
    """The calls so far, those of the supervision left out; forgets them."""
    found = [call.name for call in host.faults.calls if call.name not in {"domains", "facts"}]
    host.faults.forget()
    return found


async def test_a_take_reads_as_often_as_something_has_changed(world: World) -> None:
    host = world.host()
    world.policy()
    host.add_domain("web-1", {"vda": base_image("web-1")})
    await world.start()
    await world.settled()
    calls(host)
    world.snapshot("before")
    await world.ready("before")
    await world.settled()
    found = calls(host)
    assert found[: len(TAKE)] == TAKE
    # How much is free is read when all is told, and the echo of a status may come before its answer.
    assert found[len(TAKE) :] in (["surroundings"], ["surroundings", "read"], ["read", "surroundings"])


async def test_a_merge_reads_as_often_as_something_has_changed(world: World) -> None:
    host = world.host()
    world.policy(merge={"direction": "Commit"})
    host.add_domain("web-1", {"vda": base_image("web-1")})
    await world.start()
    world.snapshot("before")
    await world.ready("before")
    await world.settled()
    calls(host)
    world.delete("before")
    await world.gone("before")
    await world.settled()
    found = calls(host)
    looks = found[len(MERGE) : -len(PIVOT + END)]
    assert found[: len(MERGE)] == MERGE
    assert found[-len(PIVOT + END) :] == PIVOT + END
    assert set(looks) <= {"read"}
    assert len(looks) <= 2, "a running job is looked at when it begins and when it is ready"


async def test_a_merge_that_ends_wakes_the_next_one_and_not_all_that_wait(world: World) -> None:
    host = world.host()
    world.policy(merge={"direction": "Commit", "maxConcurrentPerHypervisor": 1})
    names = [f"web-{number}" for number in range(12)]
    for name in names:
        host.guest_write(host.add_domain(name, {"vda": base_image(name)}), "vda", 1, 1)
    await world.start()
    for name in names:
        world.snapshot(name, domain=name)
    await world.ready(*names)
    host.auto = False
    for name in names:
        world.delete(name)
    await world.until(lambda: host.jobs() and sum(world.condition(n)[1] == "Queued" for n in names) == 11)
    await world.settled()
    host.faults.forget()
    (ended, *_), *_ = host.jobs()
    host.finish_jobs()
    await world.until(lambda: {machine.uuid for machine, *_ in host.jobs()} - {ended.uuid})
    looked_at = {call.arguments["uuid"] for call in host.faults.calls if call.name == "read"}
    assert looked_at == {ended.uuid, *(machine.uuid for machine, *_ in host.jobs())}


async def test_the_resync_looks_a_few_times_at_a_domain_however_many_objects_mean_it(world: World) -> None:
    host = world.host()
    world.policy()
    host.add_domain("web-1", {"vda": base_image("web-1")})
    names = [f"point-{number}" for number in range(30)]
    for name in names:
        world.snapshot(name)
    await world.start()
    await world.ready(*names)
    await world.told()
    calls(host)
    world.kube.forget_calls()
    await asyncio.sleep(3600 * 1.65)  # one period and the half in which its work is spread
    await world.settled()
    found = calls(host)
    assert set(found) == {"read", "surroundings"}
    assert found.count("surroundings") <= found.count("read")
    assert len(found) <= 5, "30 objects are taken from the queue in two or three lots"
    assert not sum(world.kube.writes.values())


async def test_a_look_at_the_users_sees_what_the_domain_itself_has_named_since() -> None:
    host = SimulatedHost("host-a", auto=True)
    uuid = host.add_domain("web-1", {"vda": base_image("web-1")})
    driver = host.by_hand()
    observation = await observe(driver, uuid, identities={"cluster-a"})
    assert (await with_usage(driver, observation)).in_use_elsewhere == {}
    definition = parse_domain((await driver.read(uuid)).live_xml or "")
    by_hand = base_image("web-1").beside("by-hand.qcow2")
    assert by_hand is not None
    await driver.create_snapshot(uuid, snapshot_xml(definition, {"vda": Layer(by_hand, "qcow2")}))
    assert (await with_usage(driver, observation)).in_use_elsewhere == {by_hand.key: "disk vda of web-1"}
