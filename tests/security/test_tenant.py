"""What a tenant of the other tests is worth: without this, a refusal there could be one of RBAC's."""

from __future__ import annotations

import pytest

from tests.e2e.stage import Stage
from tests.security.tenant import Tenant

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def test_a_tenant_has_the_shipped_roles_in_one_namespace(stage: Stage, tenant: Tenant) -> None:
    assert all(tenant.may(verb, "vvs") for verb in ("get", "create", "update", "patch", "delete"))
    assert not tenant.may("create", "hypervisors.varve.dev")
    assert not tenant.may("get", "hypervisors.varve.dev")
    assert not tenant.may("update", "volumesnapshotclasses.varve.dev")
    assert not tenant.may("patch", "vvs", "--subresource=status")
    assert not tenant.may("create", "vvs", "--namespace=shop")
    machine = stage.machine("file")
    tenant.snapshot("mine", machine.name)
    tenant.ready("mine")
    tenant.delete("mine")
