"""The whole stack again, with kills, hangs, dead servers and full disks."""

from tests.e2e.fixtures import (
    controller,
    installed_controller,
    other_host,
    pytest_runtest_makereport,
    stage,
)

__all__ = ["controller", "installed_controller", "other_host", "pytest_runtest_makereport", "stage"]
