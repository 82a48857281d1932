"""What a failed test shows besides its assertion: the objects, and the log of the controller."""

from __future__ import annotations

import pytest

from tests.e2e.stage import Stage

_LOG_LINES = 60


def of(stage: Stage) -> list[tuple[str, str]]:
    """Sections for a test report."""
    objects = stage.shop.kubectl("get", "hypervisors,volumesnapshots", "-A", "-o", "yaml", check=False)
    with stage.controller.log.open("rb") as stream:
        stream.seek(stage.log_from)
        lines = stream.read().decode(errors="replace").splitlines()
    return [("objects", objects), ("controller", "\n".join(lines[-_LOG_LINES:]))]


def attach(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add the sections to the report of a test that failed and has a stage."""
    stage = getattr(item, "funcargs", {}).get("stage")
    if report.when == "call" and report.failed and isinstance(stage, Stage):
        report.sections += of(stage)
