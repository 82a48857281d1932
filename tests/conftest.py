"""Fixtures of all suites: the lab's, from `lab.pytest_plugin`."""

pytest_plugins = ["lab.pytest_plugin", "tests.watchdog"]
