"""Deaths and losses: of QEMU, of the daemon, of the connection; and the removal of images."""

from __future__ import annotations

import pytest

from controller.chain.observation import JobKind
from controller.hypervisor.driver import Disconnected, Lifecycle, LifecycleKind, Removal
from controller.hypervisor.errors import DomainGone, NotRemovable, OutcomeUnknown, Unreachable
from tests.hypervisor.conformance.workbench import FULL, SLOW, Drive, Kind, Workbench, keys


async def test_qemu_killed_in_a_commit_below(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    layers = await bench.stack(uuid, [{0: 1}, dict.fromkeys(FULL, 2), {0: 3}])
    await bench.commit(uuid, layers[0], layers[1], bandwidth=SLOW)
    await bench.kill_qemu(uuid)
    await bench.seen(lambda e: isinstance(e, Lifecycle) and e.kind is LifecycleKind.STOPPED)
    assert (await bench.inactive(uuid)).keys == keys(*reversed(layers))
    assert await bench.backing_name(layers[2]) == layers[1].uri
    await bench.start(uuid)
    assert (await bench.live(uuid)).keys == keys(*reversed(layers))
    assert not (await bench.driver.read(uuid)).jobs
    assert await bench.visible(uuid, "vda") == dict.fromkeys(FULL, 2) | {0: 3}
    await bench.commit(uuid, layers[0], layers[1])
    await bench.finish(uuid, "vda")
    assert (await bench.live(uuid)).keys == keys(layers[2], layers[0])
    assert await bench.visible(uuid, "vda") == dict.fromkeys(FULL, 2) | {0: 3}


async def test_qemu_killed_between_ready_and_pivot(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    layers = await bench.stack(uuid, [{0: 1, 1: 1}, {0: 2}])
    await bench.commit(uuid, layers[0], None)
    await bench.finish(uuid, "vda")
    await bench.write(uuid, "vda", {5: 5})
    await bench.kill_qemu(uuid)
    assert (await bench.inactive(uuid)).keys == keys(layers[1], layers[0])
    await bench.start(uuid)
    live = await bench.live(uuid)
    assert live.keys == keys(layers[1], layers[0])
    assert live.mirror is None
    assert await bench.visible(uuid, "vda") == {0: 2, 1: 1, 5: 5}


async def test_qemu_killed_in_a_pull(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    layers = await bench.stack(uuid, [{0: 1}, dict.fromkeys(FULL, 2), {0: 3}])
    await bench.pull(uuid, layers[0], bandwidth=SLOW)
    await bench.kill_qemu(uuid)
    assert (await bench.inactive(uuid)).keys == keys(*reversed(layers))
    assert await bench.offline(layers[2]) == dict.fromkeys(FULL, 2) | {0: 3}
    assert await bench.offline(layers[0]) == {0: 1}


async def test_daemon_killed_in_an_active_commit(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    layers = await bench.stack(uuid, [{0: 1}, dict.fromkeys(FULL, 2)])
    await bench.commit(uuid, layers[0], None, bandwidth=SLOW)
    dead = bench.driver
    await bench.restart_libvirtd()
    await bench.seen(lambda e: isinstance(e, Disconnected))
    with pytest.raises(Unreachable):
        await dead.read(uuid)
    with pytest.raises((Unreachable, OutcomeUnknown)):
        await dead.pivot(uuid, "vda")
    await dead.close()
    await bench.connect()
    job = (await bench.driver.read(uuid)).jobs["vda"]
    assert job.kind is JobKind.ACTIVE_COMMIT
    mirror = (await bench.live(uuid)).mirror
    assert mirror is not None
    await bench.finish(uuid, "vda")
    await bench.driver.pivot(uuid, "vda")
    live, inactive = await bench.live(uuid), await bench.inactive(uuid)
    assert live.keys == inactive.keys == keys(layers[0])
    assert await bench.visible(uuid, "vda") == dict.fromkeys(FULL, 2)


async def test_transient_domain_goes_with_its_process(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))}, persistent=False)
    await bench.stop(uuid)
    with pytest.raises(DomainGone):
        await bench.driver.read(uuid)
    assert uuid not in {ref.uuid for ref in await bench.driver.domains()}


async def test_undefined_while_running(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    await bench.undefine(uuid)
    await bench.seen(lambda e: isinstance(e, Lifecycle) and e.kind is LifecycleKind.UNDEFINED)
    reading = await bench.driver.read(uuid)
    assert not reading.persistent
    assert reading.inactive_xml is None
    assert reading.live_xml is not None


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.GLUSTER])
async def test_remove_an_image(bench: Workbench, kind: Kind) -> None:
    base = await bench.image(kind)
    overlay = await bench.image(kind, backing=base)
    assert len(await bench.driver.referrers(base)) == 1
    assert await bench.driver.referrers(overlay) == ()
    assert await bench.driver.remove_image(overlay) is Removal.REMOVED
    assert await bench.driver.referrers(base) == ()
    assert await bench.driver.remove_image(overlay) is Removal.ABSENT
    assert await bench.driver.remove_image(base) is Removal.REMOVED


async def test_an_export_is_never_removed(bench: Workbench) -> None:
    with pytest.raises(NotRemovable):
        await bench.driver.remove_image(await bench.image(Kind.NBD))


async def test_a_closed_connection(bench: Workbench) -> None:
    await bench.driver.close()
    with pytest.raises(Unreachable):
        await bench.driver.domains()
