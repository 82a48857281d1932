"""Fixtures of the suites that run the whole stack; a `conftest.py` imports what it needs.

The controller is one process per suite (a pytest package), so that it is gone when suites of other parts
work on the same lab. Each test finds it running, and may kill it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator

import pytest

from lab.controller import Controller, hypervisor, policy
from lab.hosts.host import Host
from lab.lab import Lab
from lab.machines.machine import Machine
from lab.pytest_plugin import MachineFactory
from lab.reader import Reader
from tests.e2e import evidence
from tests.e2e.points import Points
from tests.e2e.shop import Shop

AT_ONCE = {"settleSeconds": 0}
"""How the tests merge unless they say otherwise: nothing waits for company."""

MakePoints = Callable[..., Points]


@pytest.fixture(scope="package")
def installed_controller(lab: Lab, host: Host) -> Iterator[Controller]:
    """The shipped manifests, a controller, a Hypervisor for host a, a default class, the namespace shop."""
    plane = lab.control_plane()
    controller = Controller(lab)
    controller.start()
    if plane.kubectl("get", "namespace", "shop", check=False).returncode != 0:
        plane.kubectl("create", "namespace", "shop")
    plane.kubectl("apply", "-f", "-", stdin=policy(merge=AT_ONCE))
    plane.kubectl("apply", "-f", "-", stdin=hypervisor("host-a", host.uri))
    plane.kubectl("wait", "--for=condition=Ready", "hypervisor/host-a", "--timeout=30s")
    yield controller
    plane.kubectl("delete", "hypervisors,volumesnapshotclasses", "--all")
    if controller.running:
        assert controller.stop() == 0


@pytest.fixture
def controller(installed_controller: Controller) -> Controller:
    """The controller; started again if the last test killed it."""
    if not installed_controller.running:
        installed_controller.start()
    return installed_controller


@pytest.fixture
def log_from(controller: Controller) -> int:
    """How long the controller's log was when the test began (bytes), for the evidence of a failure."""
    return controller.log.stat().st_size


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a failed test show more than its assertion."""
    report = yield
    evidence.attach(item, report)
    return report


@pytest.fixture
def shop(controller: Controller, log_from: int, machines: MachineFactory) -> Iterator[Shop]:
    """The namespace shop; emptied after the test, before its machines go."""
    found = Shop(controller.plane)
    yield found
    found.clear()


@pytest.fixture
def points(shop: Shop, reader: Reader) -> MakePoints:
    """Makes `Points` of a machine's disk."""

    def make(machine: Machine, disk: str = "vda") -> Points:
        return Points(shop, reader, machine, disk)

    return make


@pytest.fixture
def other_host(lab: Lab, controller: Controller) -> Iterator[Host]:
    """Host b, as Hypervisor host-b, for a test that stops or hangs its libvirtd."""
    host = lab.host("b")
    if not host.running:
        host.start()
    plane = controller.plane
    plane.kubectl("apply", "-f", "-", stdin=hypervisor("host-b", host.uri))
    plane.kubectl("wait", "--for=condition=Ready", "hypervisor/host-b", "--timeout=30s")
    yield host
    plane.kubectl("delete", "hypervisor/host-b")


def other_class(name: str, **spec: object) -> str:
    """A VolumeSnapshotClass that is not the default, as JSON for `kubectl apply -f -`."""
    return json.dumps(
        {
            "apiVersion": "varve.dev/v1alpha1",
            "kind": "VolumeSnapshotClass",
            "metadata": {"name": name},
            "spec": spec,
        }
    )
