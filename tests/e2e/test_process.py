"""The controller as a process: idle, told to end, replaced by another."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from controller.reconcile.chains import PAUSE_SECONDS, REST_SECONDS
from lab.controller import Controller
from lab.deadline import wait_until
from lab.machines.disk import Disk
from lab.machines.machine import Machine
from lab.machines.writer import WriterOptions
from tests.e2e import launcher
from tests.e2e.stage import QUICK, Stage, gentle

pytestmark = [pytest.mark.real, pytest.mark.cluster]

PASSES = 20
"""So many passes with nothing to do are looked at."""

PERIOD = 2 * (PAUSE_SECONDS + REST_SECONDS)
"""And for so many seconds at least: a VolumeChain is told of with a delay, and not each time."""


GROWING = WriterOptions(window_sectors=1 << 16)
"""So large a window (32 MiB) that the active layer grows through the whole test."""


LARGE = Disk(None, size=64 << 20)


def allocated(machine: Machine) -> int:
    """Bytes that the active layer of vda takes."""
    return int(machine.domain.blockInfo("vda")[1])


@pytest.fixture
def stopped(stage: Stage) -> Stage:
    """A stage whose controller was told to end, without the classes of earlier tests: one that nobody uses is
    let go of after a minute."""
    others = "--field-selector=metadata.name!=standard"
    stage.shop.kubectl("delete", "volumesnapshotclasses", others)
    assert stage.controller.stop() == 0
    return stage


@pytest.fixture
def counted(stopped: Stage) -> Iterator[Controller]:
    """A controller that looks at everything each second and whose changing calls are counted."""
    calls = stopped.scratch / "calls"
    found = Controller(
        stopped.lab, name="counted", program=launcher.program(calls), arguments=("--resync-seconds=1",)
    )
    found.start()
    yield found
    if found.running:
        assert found.stop() == 0


def writes(controller: Controller) -> dict[str, float]:
    """What it wrote to Kubernetes, by the labels of the metric, without the renewals of its Lease."""
    lines = [line for line in controller.metrics().splitlines() if line.startswith("varve_api_writes_total{")]
    assert lines, "the metric is gone"
    counts = (line.rsplit(" ", 1) for line in lines if 'kind="leases"' not in line)
    return {labels: float(count) for labels, count in counts}


def versions(stage: Stage) -> list[tuple[str, str]]:
    """Name and resourceVersion of everything that the controller might write to."""
    items = json.loads(stage.shop.kubectl("get", "volumesnapshots,events.events.k8s.io", "-o", "json"))[
        "items"
    ]
    for kind in ("volumechains", "hypervisors", "volumesnapshotclasses"):
        items += json.loads(stage.shop.kubectl("get", kind, "-o", "json"))["items"]
    return [(one["metadata"]["name"], one["metadata"]["resourceVersion"]) for one in items]


def test_passes_with_nothing_to_do_write_nothing(stopped: Stage, counted: Controller) -> None:
    """B14: though a guest fills its active layer all the time, and other machines are started and stopped."""
    stage, shop = stopped, stopped.shop
    machine, off = stage.machine(LARGE, LARGE, writer=GROWING), stage.machine(start=False)
    other = stage.machine(start=False)
    calls = stage.scratch / "calls"
    first, second = stage.points(machine, "vda"), stage.points(machine, "vdb")
    first.take("idle-1")
    first.take("idle-2")
    second.take("idle-3")
    first.delete("idle-1")
    shop.snapshot("idle-suspended", machine.name, suspend=True)
    shop.waits_for("idle-suspended", "Suspended")
    shop.snapshot("idle-off", off.name)
    shop.waits_for("idle-off", "WaitingForDomain")
    shop.snapshot("idle-nowhere", "no-such-domain")
    shop.waits_for("idle-nowhere", "DomainNotFound")
    # A field that somebody else set is never taken away by ours: what is there never equals what is sent.
    foreign = json.dumps({"status": {"operation": {"kind": "Commit", "percent": 5}}})
    shop.kubectl("patch", "vvs/idle-nowhere", "--subresource=status", "--type=merge", f"--patch={foreign}")
    # Flags of calls about domains are asked for, and shown, once there is a domain.
    shown = ("get", "hypervisors", "-o", "jsonpath={.items[*].status.capabilities}")
    wait_until(lambda: "commit" in shop.kubectl(*shown), timeout=60, what="the capabilities", interval=0.5)
    assert {"create_snapshot", "set_metadata", "remove_image"} <= set(calls.read_text().split())

    def state() -> tuple[dict[str, float], str, list[tuple[str, str]], str]:
        """What was written and called so far, and what is there."""
        return writes(counted), calls.read_text(), versions(stage), machine.domain.XMLDesc(0)

    def look_at_everything() -> None:
        """Let a whole period of it go by."""
        passes, began = counted.metric("varve_reconcile_total"), time.monotonic()
        wait_until(
            lambda: (
                time.monotonic() >= began + PERIOD
                and counted.metric("varve_reconcile_total") >= passes + PASSES
            ),
            timeout=60,
            what="passes",
            interval=0.1,
        )

    def settled() -> bool:
        before = state()
        look_at_everything()
        return state() == before

    wait_until(settled, timeout=90, what="a period without writes")
    at_rest, grown = state(), allocated(machine)
    other.start()
    look_at_everything()
    other.destroy()
    look_at_everything()
    assert state() == at_rest
    assert allocated(machine) > grown, "the guest wrote nothing new, so this says nothing"
    assert counted.metric("varve_reconcile_total") >= 2 * PASSES
    first.verify()


def test_sigterm_ends_with_0_while_a_merge_runs_and_the_next_goes_on(stage: Stage) -> None:
    machine = stage.machine(writer=QUICK)
    points, shop, controller = stage.points(machine), stage.shop, stage.controller
    shop.apply(gentle())
    for name in ("term-1", "term-2", "term-3"):
        points.take(name, rounds=256, volumeSnapshotClassName="gentle")
    del points.kept["term-2"]
    shop.begin_delete("term-2")
    wait_until(lambda: machine.domain.blockJobInfo("vda"), timeout=20, what="the commit runs")
    assert controller.stop(timeout=28) == 0
    assert machine.domain.blockJobInfo("vda"), "the job ended too soon for this test to say anything"
    controller.start()
    shop.gone("term-2")
    assert len(machine.chain()) == 3
    points.verify()


def test_a_second_controller_waits_and_takes_over_from_one_that_was_killed(stage: Stage) -> None:
    machine = stage.machine()
    points = stage.points(machine)
    second = Controller(stage.lab, name="second")
    second.start()  # ready in reserve: a rollout must not wait for it to lead
    try:
        points.take("led-by-the-first")
        assert second.metric("varve_leader") == 0
        assert stage.controller.metric("varve_leader") == 1
        stage.controller.kill()
        wait_until(
            lambda: second.metric("varve_leader") == 1, timeout=20, what="the second leads", interval=0.1
        )
        points.take("led-by-the-second")
        points.delete("led-by-the-first")
        points.verify()
    finally:
        assert second.stop() == 0
