"""The user's day: kubectl, a real API server, the controller as a process, machines that write all the
time."""

from tests.e2e.fixtures import (
    controller,
    installed_controller,
    other_host,
    pytest_runtest_makereport,
    stage,
)

__all__ = ["controller", "installed_controller", "other_host", "pytest_runtest_makereport", "stage"]
