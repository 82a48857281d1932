"""What a tenant is told: a place is in use or cannot be reached, not whose it is or what answers there."""

from __future__ import annotations

import json
import re
import socket
import threading

import pytest

from tests.e2e.stage import Stage
from tests.security.conftest import Rules
from tests.security.tenant import Tenant

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def everything(tenant: Tenant) -> str:
    """All that the tenant can read of what the controller wrote."""
    found = json.loads(tenant.kubectl("get", "vvs,vvc,events.events.k8s.io", "-o", "json"))["items"]
    return json.dumps([[one.get("status"), one.get("note")] for one in found])


def at(port: int, name: str = "x") -> dict[str, object]:
    host = {"name": "127.0.0.1", "port": port}
    return {"source": {"protocol": "nbd", "name": name, "hosts": [host]}}


def test_the_machines_and_images_of_others_are_not_told(stage: Stage, tenant: Tenant, rules: Rules) -> None:
    """A place that somebody uses, one whose header names his image, and a base that his machine reads."""
    mine = stage.machine("file", name="tenants-own")
    theirs = stage.machine("file", name="victims-machine")
    rules(
        {"namespaces": ["shop"], "domains": ["*"]},
        {"namespaces": [tenant.namespace], "domains": [mine.name], "overlays": ["*"]},
    )
    image = theirs.chain()[0].source.name
    tenant.snapshot("used", mine.name, overlay={"source": {"path": image}})
    tenant.waits_for("used", "OverlayUnusable")
    tenant.snapshot("header", mine.name, overlay={"source": {"path": image, "content": "Prepared"}})
    tenant.waits_for("header", "OverlayUnusable")
    assert theirs.name not in everything(tenant).replace(image, "the place that the tenant has named")
    stage.shop.wait_detail(theirs.name)
    described = stage.controller.plane.kubectl("describe", "hypervisor/host-a").stdout
    assert theirs.name in described, "whoever looks after the hypervisors finds who it is"


def test_ports_are_not_scanned_for_a_tenant(stage: Stage, tenant: Tenant, rules: Rules) -> None:
    """Closed, open and silent, and open with another protocol: one answer for all."""
    mine = stage.machine("file", name="scanner")
    rules({"namespaces": ["shop", tenant.namespace], "domains": ["*"], "overlays": ["*"]})
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=_speak, args=(other,), daemon=True).start()
        with socket.create_server(("127.0.0.1", 0)) as gone:
            closed = gone.getsockname()[1]
        ports = {"closed": closed, "silent": silent.getsockname()[1], "other": other.getsockname()[1]}
        for name, port in ports.items():
            tenant.snapshot(name, mine.name, overlay=at(port))
        told = {
            name: re.sub(r":\d+", ":PORT", tenant.waits_for(name, "StorageUnreachable")) for name in ports
        }
    assert len(set(told.values())) == 1, told
    assert "cannot be reached" in told["closed"]
    for words in ("refuse", "answer ", "accepts", "strange"):
        assert words not in told["closed"]
    stage.shop.wait_detail("refuses connections")
    stage.shop.snapshot("honest", mine.name)
    stage.shop.ready("honest", timeout=10)


def _speak(server: socket.socket) -> None:
    """A server of another protocol; ends with its socket."""
    try:
        while True:
            client, _ = server.accept()
            with client:
                client.sendall(b"SSH-2.0-whatever, and more than a greeting of NBD has\r\n")
    except OSError:
        return
