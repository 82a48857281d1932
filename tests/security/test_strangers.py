"""What is verified is what is used: a server that shows one image to the look and another one to QEMU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import libvirt_qemu
import pytest

from lab.deadline import wait_until
from lab.machines.machine import Machine
from lab.storage.image import run_qemu_tool
from tests.e2e.points import Points
from tests.e2e.stage import Stage
from tests.security.conftest import Rules
from tests.security.nbd_server import TwoFaces
from tests.security.tenant import Tenant

pytestmark = [pytest.mark.real, pytest.mark.cluster]

ROOM = 64 << 20
"""Of an export, bytes."""


def overlay(path: Path, machine: Machine, *, size: int = 0, **options: str) -> Path:
    """An empty overlay of the machine's disk as it is now, with room to grow."""
    below = machine.chain()[0].source.name
    virtual = json.loads(run_qemu_tool("qemu-img", "info", "-U", "--output=json", below))["virtual-size"]
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    made = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", below, "-F", "qcow2", *words, str(path)]
    run_qemu_tool(*made, str(size or virtual))
    with path.open("r+b") as file:
        file.truncate(ROOM)
    return path


def opened(machine: Machine) -> str:
    """All that the machine's QEMU has open."""
    asked = json.dumps({"execute": "query-named-block-nodes", "arguments": {"flat": True}})
    return str(libvirt_qemu.qemuMonitorCommand(machine.domain, asked, 0))


def place(server: TwoFaces, content: str = "Prepared") -> dict[str, Any]:
    host = {"name": "127.0.0.1", "port": server.port}
    return {"source": {"protocol": "nbd", "name": "x", "hosts": [host], "content": content}}


def test_the_disk_of_another_machine_is_not_kept_open(stage: Stage, tenant: Tenant, rules: Rules) -> None:
    """The second image keeps its data in a file of somebody else. The server was given, with all others: the
    message names nothing that is not the tenant's, and the guest loses nothing."""
    machine, scratch = stage.machine("file"), stage.scratch
    rules({"namespaces": [tenant.namespace], "domains": [machine.name], "overlays": ["*"]})
    points = Points(tenant, stage.lab.reader, machine)
    points.take("before")
    victim = scratch / "victim"
    faces = [overlay(scratch / "right", machine), overlay(scratch / "wrong", machine, data_file=str(victim))]
    with TwoFaces(faces) as server:
        tenant.snapshot("a", machine.name, overlay=place(server))
        message = tenant.waits_for("a", "OverlayNotAsVerified")
        assert str(victim) not in json.dumps(tenant.get("a"))
        assert "name another one" in message
        wait_until(lambda: len(machine.chain()) == 2, timeout=30, what="the stranger is merged away")
        assert str(victim) not in opened(machine)
        assert str(victim) in stage.controller.log.read_text(), "the administrator is told"
        machine.wait_writing()
        points.verify()
        tenant.snapshot("honest", machine.name)
        tenant.ready("honest")
        assert tenant.condition("a", "Ready")["reason"] == "OverlayNotAsVerified"
        tenant.delete("a", "honest", "before")
    assert len(machine.chain()) == 1
    machine.destroy()
    machine.start()
    machine.wait_writing()


@pytest.mark.parametrize("content", ["Prepared", "Format"])
def test_a_server_of_the_tenants_own_that_serves_what_it_says(
    stage: Stage, tenant: Tenant, rules: Rules, content: str
) -> None:
    """The honest use beside it."""
    machine = stage.machine("file")
    with TwoFaces([overlay(stage.scratch / "one", machine)]) as server:
        given = [f"nbd://127.0.0.1:{server.port}/*"]
        rules({"namespaces": [tenant.namespace], "domains": [machine.name], "overlays": given})
        points = Points(tenant, stage.lab.reader, machine)
        points.take("a", overlay=place(server, content))
        machine.wait_writing()
        points.verify()
        tenant.delete("a")
        assert len(machine.chain()) == 1


def test_another_size_is_a_stranger_too(stage: Stage, tenant: Tenant, rules: Rules) -> None:
    machine, scratch = stage.machine("file"), stage.scratch
    rules({"namespaces": [tenant.namespace], "domains": [machine.name], "overlays": ["*"]})
    faces = [overlay(scratch / "right", machine), overlay(scratch / "wrong", machine, size=32 << 20)]
    with TwoFaces(faces) as server:
        tenant.snapshot("a", machine.name, overlay=place(server))
        tenant.waits_for("a", "OverlayNotAsVerified")
        wait_until(lambda: len(machine.chain()) == 1, timeout=30, what="the stranger is merged away")
        machine.wait_writing()
        tenant.delete("a")
