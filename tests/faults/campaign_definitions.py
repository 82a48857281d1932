"""A1: the stored definition of a running machine names its disk otherwise than the machine does.

libvirt writes a new layer into the stored definition only where both name the disk in the same words.
Elsewhere the layer, and with it what the guest writes, would be missing at the next start.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from controller.chain.journal_codec import decode
from controller.chain.parse import parse_domain
from controller.hypervisor.snapshot_xml import snapshot_xml
from lab.controller import Controller
from lab.deadline import wait_until
from lab.machines.machine import Machine
from lab.reader import Capture
from lab.storage.image import ImageSource
from tests.e2e.launcher import KillPoint, program
from tests.e2e.lent import lent
from tests.e2e.points import Points
from tests.e2e.stage import Stage
from tests.faults.definitions import VARIANTS, Variant, define, stored
from tests.faults.subject import ROOM, WITHIN, image_file, leaves, opened

pytestmark = [pytest.mark.real, pytest.mark.cluster]

DIFFERS = "DefinitionDiffers"
_TAKE = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA


def again(stage: Stage, what: str, machine: Machine) -> None:
    """End it and start it again."""
    match what:
        case "controller":
            if stage.controller.running:
                assert stage.controller.stop() == 0
            stage.controller.start()
        case "libvirtd":
            stage.host.restart()
        case "machine":
            machine.domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
            machine.start()
            machine.wait_writing()


def spec_of(stage: Stage, machine: Machine, number: int) -> dict[str, Any]:
    """Where a layer goes that has no place beside the disk's image."""
    if "protocol='nbd'" not in stored(machine):
        return {}
    return lent(stage.lab.place("nbd", f"{machine.name}-place-{number}", room=ROOM))


def holder(stage: Stage, machine: Machine, found: dict[str, Any]) -> Capture:
    """What the layer holds that an object names, read through QEMU, however its address is spelled."""
    leaf = found["status"]["layer"]["source"].split("?")[0].rsplit("/", 1)[-1]
    position = opened(machine)["vda"].index(leaf)
    return stage.lab.reader.capture(machine, "vda", machine.chain()[position])


def take(stage: Stage, machine: Machine, name: str) -> str:
    """A point that is Ready; the SHA-256 of what it holds."""
    machine.wait_writing()
    stage.shop.snapshot(name, machine.name, **spec_of(stage, machine, 1))
    stage.shop.ready(name)
    capture = holder(stage, machine, stage.shop.get(name))
    assert capture.check_writer().ok
    return capture.sha256


def is_ready(found: dict[str, Any]) -> bool:
    """Whether an object says that its point is there."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions_of(found))


def conditions_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """None while nobody has looked at the object."""
    return list(found.get("status", {}).get("conditions", []))


def only_true_moments(stage: Stage, machine: Machine, kept: dict[str, str]) -> None:
    """An object that is Ready has the content (by SHA-256) that it had when its point was taken."""
    for name, found in stage.shop.objects().items():
        if is_ready(found) and name in kept:
            now = holder(stage, machine, found)
            assert now.sha256 == kept[name], name
            now.path.unlink()


def count_in(points: Points) -> int:
    """The newest write of the guest that the running machine sees; all before it are there."""
    points.machine.domain.suspend()
    try:
        capture = points.reader.capture(points.machine, points.disk)
    finally:
        points.machine.domain.resume()
    check = capture.check_writer()
    capture.path.unlink()
    assert check.ok, check
    return check.max_counter


def mend_as_told(stage: Stage, message: str) -> None:
    """Do what the message says: store what runs."""
    found = re.search(r"(virsh dumpxml .+?--config)", message)
    assert found, message
    for command in found[1].split(" && "):
        words, _, target = command.partition(" > ")
        argv = ["virsh", "-c", stage.host.uri, *shlex.split(words)[1:]]
        output = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=stage.scratch).stdout
        if target:
            stage.scratch.joinpath(target.strip()).write_text(output)


def refused(stage: Stage, variant: Variant, name: str) -> tuple[Machine, Points, str, str, str]:
    """A machine with a point, whose definition was changed then: no further one is taken. Returns also what
    the point holds (SHA-256), what the further object says, and the definition as it was."""
    machine = variant.make(stage, name)
    points = stage.points(machine)
    before = take(stage, machine, "before")
    running, place = opened(machine)["vda"], spec_of(stage, machine, 2)
    original = stored(machine)
    define(machine, variant.change(machine))
    stage.shop.snapshot("later", machine.name, **place)
    message = stage.shop.waits_for("later", DIFFERS, timeout=WITHIN)
    assert opened(machine)["vda"] == running
    return machine, points, before, message, original


@pytest.mark.parametrize("back", [False, True], ids=["left", "set back"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_no_point_is_taken_while_they_differ(stage: Stage, variant: Variant, back: bool) -> None:
    name = f"differs-{variant.slug}-{'back' if back else 'left'}"
    machine, points, before, message, original = refused(stage, variant, name)
    shop, running = stage.shop, opened(machine)["vda"]
    kept = {"before": before}
    least = count_in(points)
    for what in ("controller", "libvirtd"):
        again(stage, what, machine)
        message = shop.waits_for("later", DIFFERS, timeout=WITHIN)
        assert opened(machine)["vda"] == running
    if back:
        define(machine, original)
    else:
        mend_as_told(stage, message)
    shop.ready("later", timeout=WITHIN)
    later = holder(stage, machine, shop.get("later"))
    assert later.check_writer().max_counter >= least
    kept["later"] = later.sha256
    count = count_in(points)
    again(stage, "machine", machine)
    assert count_in(points) >= count
    only_true_moments(stage, machine, kept)
    assert is_ready(shop.get("before"))
    assert is_ready(shop.get("later"))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_machine_starts_on_what_is_stored(stage: Stage, variant: Variant) -> None:
    machine, points, before, _, _ = refused(stage, variant, f"started-{variant.slug}")
    shop, kept = stage.shop, {"before": before}
    least = count_in(points)
    again(stage, "machine", machine)
    if variant.same:
        assert count_in(points) >= least
    if variant.known or not variant.same:
        shop.ready("later", timeout=WITHIN)
        kept["later"] = holder(stage, machine, shop.get("later")).sha256
    else:
        shop.waits_for("later", "OverlayRequired", timeout=WITHIN)
    only_true_moments(stage, machine, kept)
    assert is_ready(shop.get("before")) == variant.known
    count = count_in(points)
    again(stage, "machine", machine)
    assert count_in(points) >= count
    only_true_moments(stage, machine, kept)


def taken_behind_it(
    stage: Stage, machine: Machine, change: Callable[[], None]
) -> tuple[ImageSource, Capture]:
    """The layer exists nevertheless: the definition changes in the very moment of the call, and the
    controller dies in it. Returns the overlay, and the moment that was frozen."""
    assert stage.controller.stop() == 0
    at = KillPoint("before", "create_snapshot", 1)
    victim = Controller(stage.lab, name="mortal", program=program(stage.scratch / "calls", at))
    victim.start()
    stage.shop.snapshot("late", machine.name, **spec_of(stage, machine, 2))
    assert victim.wait_ended() == -signal.SIGKILL
    journal = decode(parse_domain(machine.domain.XMLDesc(0)).journal_xml)
    operation = journal.disk("vda").operation
    assert operation is not None
    change()
    machine.wait_writing()
    snapshot = snapshot_xml(parse_domain(machine.domain.XMLDesc(0)), {"vda": operation.kept})
    machine.domain.snapshotCreateXML(snapshot, _TAKE)
    frozen = stage.lab.reader.capture(machine, "vda", machine.chain()[1])
    machine.wait_writing(rounds=64)
    return ImageSource.from_xml(operation.kept.source.element()), frozen


def decided(stage: Stage, name: str) -> bool:
    """Wait until the object is Ready or is told what is in its way; whether it is Ready."""

    says = {"Lost", "ChainDiverged", "OverlayRequired"}

    def look() -> bool:
        ready = [one for one in conditions_of(stage.shop.get(name)) if one["type"] == "Ready"]
        return bool(ready) and (ready[0]["status"] == "True" or ready[0]["reason"] in says)

    wait_until(look, timeout=WITHIN, what=f"{name} is Ready, or says why not", interval=0.3)
    return is_ready(stage.shop.get(name))


def named_by_objects(stage: Stage, overlay: ImageSource) -> bool:
    """Whether some object of the cluster names the image."""
    everything = stage.shop.kubectl("get", "volumesnapshots,volumechains,hypervisors", "-A", "-o", "yaml")
    return overlay.name.rsplit("/", 1)[-1] in everything


@pytest.mark.parametrize("restart", ["libvirtd", "machine"])
@pytest.mark.parametrize("back", [False, True], ids=["left", "set back"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_layer_that_the_definition_lacks_stays(
    stage: Stage, variant: Variant, back: bool, restart: str
) -> None:
    machine = variant.make(stage, f"late-{variant.slug}-{'back' if back else 'left'}-{restart}")
    points, shop = stage.points(machine), stage.shop
    before = take(stage, machine, "before")
    original, changed = stored(machine), variant.change(machine)
    overlay, frozen = taken_behind_it(stage, machine, lambda: define(machine, changed))
    kept = {"before": before, "late": frozen.sha256}
    least = count_in(points)
    if back:
        define(machine, original)
    again(stage, restart, machine)
    stage.controller.start()
    if decided(stage, "late"):
        if restart == "machine":  # taken anew, which is a moment of its own
            kept["late"] = holder(stage, machine, stage.shop.get("late")).sha256
        only_true_moments(stage, machine, kept)
    if restart == "libvirtd" and (back or (variant.same and variant.known)):
        # The operation is ours, so the definition is made true by us.
        shop.ready("late", timeout=WITHIN)
        wait_until(
            lambda: leaves(machine, "vda", inactive=True) == opened(machine)["vda"],
            timeout=WITHIN,
            what="the definition names what runs",
        )
        again(stage, "machine", machine)
        assert count_in(points) >= least
    elif restart == "libvirtd":  # what is stored may be what somebody wants
        again(stage, "machine", machine)
        wait_until(lambda: not is_ready(shop.get("late")), timeout=WITHIN, what="late is not Ready any more")
    machine.wait_writing()
    assert image_file(stage, overlay).exists()
    if variant.known or not variant.same:
        wait_until(
            lambda: named_by_objects(stage, overlay), timeout=WITHIN, what="the layer is named", interval=0.5
        )
    only_true_moments(stage, machine, kept)
