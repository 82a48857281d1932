"""What a failed test shows besides its assertion: the objects, and the log of the controller."""

from __future__ import annotations

import pytest

from lab.controller import Controller

_LOG_LINES = 60


def of(controller: Controller, *, log_from: int) -> list[tuple[str, str]]:
    """Sections for a test report. `log_from`: where the log was when the test began (bytes)."""
    objects = controller.plane.kubectl(
        *("get", "hypervisors,volumesnapshots", "-A", "-o", "yaml"), check=False
    ).stdout
    with controller.log.open("rb") as stream:
        stream.seek(log_from)
        lines = stream.read().decode(errors="replace").splitlines()
    return [("objects", objects), ("controller", "\n".join(lines[-_LOG_LINES:]))]


def attach(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add the sections to the report of a test that failed and has a controller."""
    values = getattr(item, "funcargs", {})
    controller = values.get("controller")
    if report.when == "call" and report.failed and isinstance(controller, Controller):
        report.sections += of(controller, log_from=values.get("log_from", 0))
