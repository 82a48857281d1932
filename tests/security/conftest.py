"""One lab with a controller, as the tests of the whole stack have it, and tenants.

The namespace `shop` belongs to an honest neighbour, whom tests see through `stage.shop` with all rights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from lab.controller import hypervisor
from tests.e2e.fixtures import (
    controller,
    installed_controller,
    other_host,
    pytest_runtest_makereport,
    stage,
)
from tests.e2e.shop import Shop
from tests.e2e.stage import Stage
from tests.security.tenant import Tenant

__all__ = ["controller", "installed_controller", "other_host", "pytest_runtest_makereport", "stage"]


class TenantFactory(Protocol):
    """Makes tenants; what they leave is taken away after the test."""

    def __call__(self, namespace: str = "mallory") -> Tenant:
        """The tenant of this namespace."""


class Rules(Protocol):
    """Sets the access rules of Hypervisor host-a until the test ends."""

    def __call__(self, *access: dict[str, object]) -> None:
        """These rules and no others."""


@pytest.fixture
def tenants(stage: Stage) -> Iterator[TenantFactory]:
    """Makes tenants for one test."""
    made: list[Tenant] = []

    def make(namespace: str = "mallory") -> Tenant:
        made.append(Tenant.of(stage.controller.plane, namespace))
        return made[-1]

    yield make
    for namespace in {tenant.namespace for tenant in made}:
        Shop(stage.controller.plane, namespace).clear()


@pytest.fixture
def tenant(tenants: TenantFactory) -> Tenant:
    """The tenant of the namespace `mallory`."""
    return tenants()


@pytest.fixture
def rules(stage: Stage) -> Iterator[Rules]:
    """Sets the access rules of Hypervisor host-a; afterwards it is open to everybody again."""

    def apply(*access: dict[str, object]) -> None:
        stage.shop.apply(hypervisor("host-a", stage.host.uri, list(access)))

    yield apply
    stage.shop.apply(hypervisor("host-a", stage.host.uri))
