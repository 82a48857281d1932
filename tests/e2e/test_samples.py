"""The shipped samples, unchanged, and what kubectl prints of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import namespace
from lab.controller import PROGRAM, REPOSITORY, Controller, hypervisor, policy
from tests.e2e.stage import AT_ONCE, Stage

pytestmark = [pytest.mark.real, pytest.mark.cluster]

SAMPLES = REPOSITORY / "manifests" / "samples"
NAME = "web-1-before-upgrade"


@pytest.fixture
def sample_stage(stage: Stage) -> Iterator[Stage]:
    """A controller that sees host a's socket where libvirt has it by default, as the samples write it; and a
    stage that is as before afterwards."""
    assert stage.controller.stop() == 0
    run = stage.host.layout.directory / "run"
    program = namespace.command(list(PROGRAM), binds=[(run, "/run/libvirt")])
    controller = Controller(stage.lab, name="controller-of-samples", program=program)
    controller.start()
    yield stage
    stage.shop.clear()
    assert controller.stop() == 0
    stage.shop.apply(hypervisor("host-a", stage.host.uri), policy(merge=AT_ONCE))


def sample(name: str) -> str:
    return str(SAMPLES / f"{name}.yaml")


def table(text: str) -> list[list[str]]:
    """Header and rows of what `kubectl get` prints, split at blanks."""
    return [line.split() for line in text.splitlines()]


def test_the_samples_work_unchanged(sample_stage: Stage) -> None:
    shop, lab = sample_stage.shop, sample_stage.lab
    disk = lab.disk("file", "web-1", size=20 << 30)
    machine = sample_stage.machine(disk, name="web-1")
    machine.wait_writing()

    for name in ("00-hypervisor", "01-class", "10-snapshot"):
        shop.plane.kubectl("apply", "--validate=strict", "-f", sample(name))
    said = shop.kubectl("wait", "--for=condition=Ready", f"vvs/{NAME}", "--timeout=30s")
    assert said == f"volumesnapshot.varve.dev/{NAME} condition met\n"
    assert len(machine.chain()) == 2

    header, row = table(shop.kubectl("get", "vvs"))
    assert header == ["NAME", "READY", "REASON", "DOMAIN", "DISK", "SIZE", "CREATED", "AGE"]
    assert row[:6] == [NAME, "True", "InSync", "web-1", "vda", "20Gi"]
    header, row = table(shop.kubectl("get", "vvs", "-o", "wide"))
    assert set(header[6:]) == {
        "CREATED",
        "AGE",
        "HYPERVISOR",
        "CONSISTENCY",
        "OPERATION",
        "PROGRESS",
        "LAYER",
    }
    assert "host-a" in row
    assert "CrashConsistent" in row
    assert machine.chain()[1].source.name in row

    shop.wait_event(NAME, "SnapshotTaken")
    described = shop.kubectl("describe", f"vvs/{NAME}")
    for word in ("Ready", "Reconciling", "Stalled", "Resolved", "ChainInSync", "SnapshotTaken", "InSync"):
        assert word in described, described

    header, row = table(shop.kubectl("get", "hypervisors"))
    assert header == ["NAME", "READY", "REASON", "LIBVIRT", "QEMU", "DOMAINS", "AGE"]
    assert row[:3] == ["host-a", "True", "Connected"]
    assert int(row[5]) >= 1

    shop.kubectl("delete", f"vvs/{NAME}", "--timeout=30s")
    assert len(machine.chain()) == 1
    # With the bytes that were copied, unless the image had to be removed in a later pass.
    assert shop.wait_event(NAME, "LayerMerged").startswith("the layer is merged away")
    machine.wait_writing()


@pytest.mark.parametrize(("name", "message"), [("11-snapshot-full", "Required")])
def test_samples_of_later_versions_are_refused_with_what_to_do(stage: Stage, name: str, message: str) -> None:
    answer = stage.shop.plane.kubectl("apply", "-f", sample(name), check=False)
    assert answer.returncode != 0
    assert message in answer.stderr
    assert "comes with a later version" in answer.stderr
