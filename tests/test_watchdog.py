"""A test that hangs in C ends, and with it nothing but its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HANGS = """
import ctypes

def test_before():
    pass

def test_hangs():
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # no signal gets it out of here

def test_after():
    pass
"""


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest on a file whose second test hangs."""
    (directory / "test_it.py").write_text(HANGS, encoding="ascii")
    (directory / "pytest.ini").write_text("[pytest]\nwatchdog_grace = 1\n", encoding="ascii")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.watchdog", "--timeout=1", *arguments, "."]
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )


def test_a_hang_in_c_is_shown_and_ended(tmp_path: Path) -> None:
    """B25: pytest's own timeout does not end it."""
    found = run(tmp_path)
    assert found.returncode != 0
    assert "in test_hangs" in found.stderr, "it must be seen where it hangs"


def test_the_tests_after_it_are_run(tmp_path: Path) -> None:
    """B25: with workers, as in the whole suite."""
    found = run(tmp_path, "-n", "1")
    assert "1 failed, 2 passed" in found.stdout, found.stdout
    assert "crashed while running 'test_it.py::test_hangs'" in found.stdout
