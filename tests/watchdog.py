"""Ends a test that hangs where pytest's timeout does not reach.

That timeout is a signal, which Python looks at between two of its own instructions: a call that never comes
back from C (a lock of libvirt's client, a read of a server that is gone) is not ended by it. Some time after
it, this one shows where every thread is and ends the process. A worker of pytest-xdist is replaced, and the
others go on.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Generator

import pytest

_GRACE = "watchdog_grace"
_stderr = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long after its timeout a test is ended with its process."""
    parser.addini(_GRACE, "seconds from a test's timeout to the end of its process", default="60")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the real stderr: what a test writes there is captured, and would go down with the process."""
    config.stash[_stderr] = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give it back."""
    faulthandler.cancel_dump_traceback_later()
    os.close(config.stash[_stderr])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch one test, its fixtures included, as its timeout does."""
    seconds = _timeout(item)
    if seconds > 0:
        seconds += float(item.config.getini(_GRACE))
        faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[_stderr])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _timeout(item: pytest.Item) -> float:
    """The timeout as pytest-timeout has it: the test's, the command line's, the configured one; 0: none."""
    marker = item.get_closest_marker("timeout")
    if marker is not None and marker.args:
        return float(marker.args[0])
    given = item.config.getoption("timeout", None)
    return float(item.config.getini("timeout") or 0 if given is None else given)
