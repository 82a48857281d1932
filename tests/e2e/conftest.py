"""The user's day: kubectl, a real API server, the controller as a process, machines that write all the time."""

from tests.e2e.fixtures import (
    controller,
    installed_controller,
    log_from,
    other_host,
    points,
    pytest_runtest_makereport,
    shop,
)

__all__ = [
    "controller",
    "installed_controller",
    "log_from",
    "other_host",
    "points",
    "pytest_runtest_makereport",
    "shop",
]
