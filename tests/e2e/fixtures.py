"""Fixtures of the suites that run the whole stack; a `conftest.py` imports what it needs.

The controller is one process per suite (a pytest package), so that it is gone when suites of other parts
work on the same lab. Each test finds it running, and may kill it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from lab.controller import Controller, hypervisor, policy
from lab.hosts.host import Host
from lab.lab import Lab
from lab.pytest_plugin import MachineFactory
from tests.e2e import evidence
from tests.e2e.shop import Shop
from tests.e2e.stage import AT_ONCE, Stage


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
    if not controller.running:
        controller.start()  # which lets go of the classes
    plane.kubectl("delete", "hypervisors,volumesnapshotclasses", "--all")
    assert controller.stop() == 0


@pytest.fixture
def controller(installed_controller: Controller) -> Controller:
    """The controller; started again if the last test killed it."""
    if not installed_controller.running:
        installed_controller.start()
    return installed_controller


@pytest.fixture
def stage(lab: Lab, controller: Controller, machines: MachineFactory, tmp_path: Path) -> Iterator[Stage]:
    """Everything a test of the whole stack needs; its snapshots go before its machines do."""
    log_from = controller.log.stat().st_size
    shop = Shop(controller.plane)
    yield Stage(lab, controller, shop, machines, tmp_path, log_from)
    shop.clear()


@pytest.fixture
def other_host(stage: Stage) -> Iterator[Host]:
    """Host b, as Hypervisor host-b, for a test that stops or hangs its libvirtd."""
    host = stage.lab.host("b")
    if not host.running:
        host.start()
    stage.shop.apply(hypervisor("host-b", host.uri))
    stage.shop.kubectl("wait", "--for=condition=Ready", "hypervisor/host-b", "--timeout=30s")
    yield host
    stage.shop.kubectl("delete", "hypervisor/host-b")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a failed test show more than its assertion."""
    report = yield
    evidence.attach(item, report)
    return report
