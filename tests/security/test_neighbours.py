"""What fails for a tenant is the tenant's: his neighbours on the same disk take and delete all the while."""

from __future__ import annotations

import pytest

from tests.e2e.stage import Stage
from tests.security.conftest import Rules
from tests.security.tenant import Tenant

pytestmark = [pytest.mark.real, pytest.mark.cluster]

EVERYWHERE = {"domains": ["*"], "overlays": ["*"]}


def said(stage: Stage, namespace: str) -> str:
    """All that is told in a namespace: every status and every event."""
    kinds = "vvs,vvc,events.events.k8s.io"
    return stage.controller.plane.kubectl("-n", namespace, "get", kinds, "-o", "json").stdout


def test_places_that_cannot_be_used_hold_up_nobody_else(stage: Stage, tenant: Tenant, rules: Rules) -> None:
    """A file is in the way of one, another is no overlay, of a third there is no directory."""
    rules({"namespaces": ["shop", tenant.namespace], **EVERYWHERE})
    machine = stage.machine("file")
    stage.shop.snapshot("before", machine.name)
    stage.shop.ready("before")
    in_the_way = stage.scratch / "mallorys-file"
    in_the_way.write_bytes(b"kept")
    tenant.snapshot("bad-1", machine.name, overlay={"source": {"path": str(in_the_way)}})
    tenant.snapshot(
        "bad-2", machine.name, overlay={"source": {"path": str(in_the_way), "content": "Prepared"}}
    )
    tenant.snapshot("bad-3", machine.name, overlay={"directory": str(stage.scratch / "mallorys-nowhere")})
    for name, reason in (("bad-1", "OverlayUnusable"), ("bad-2", "OverlayUnusable"), ("bad-3", "Failed")):
        assert "mallorys-" in tenant.waits_for(name, reason), "his own failures are told to him"
    stage.shop.snapshot("after", machine.name)
    stage.shop.ready("after", timeout=10)
    stage.shop.delete("before", timeout=10)
    assert len(machine.chain()) == 2
    stage.shop.delete("after", timeout=10)
    assert "mallorys-" not in said(stage, "shop")
    assert in_the_way.read_bytes() == b"kept"
    good = {"directory": str(machine.host.images)}
    tenant.snapshot("good", machine.name, overlay=good)
    tenant.ready("good", timeout=10)
    tenant.delete("good", "bad-1", "bad-2", "bad-3")
