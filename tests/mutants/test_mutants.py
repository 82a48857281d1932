"""Each planted fault is found by the test that is named for it, and without the fault that test passes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutants.planted import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
_NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*", "node_modules")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the sources, so that nobody ever sees a fault in the tree itself."""
    root = tmp_path_factory.mktemp("mutants")
    for name in ("controller", "lab", "tests", "bench", "crds"):
        shutil.copytree(ROOT / name, root / name, ignore=_NOT_COPIED)
    shutil.copy(ROOT / "pyproject.toml", root)
    yield root
    shutil.rmtree(root)


def run(root: Path, test: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", test]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**kept, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        argv, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_found(copy: Path, mutant: Mutant) -> None:
    path = copy / mutant.file
    whole = path.read_text()
    assert whole.count(mutant.right) == 1, f"{mutant.file} was changed: say anew where this fault goes"
    path.write_text(whole.replace(mutant.right, mutant.wrong))
    try:
        found = run(copy, mutant.test)
    finally:
        path.write_text(whole)
    # 1: tests failed. Anything else (2: not collected, 4: no such test) finds nothing.
    assert found.returncode == 1, found.stdout[-2000:] + found.stderr[-2000:]


@pytest.mark.parametrize("test", sorted({mutant.test for mutant in MUTANTS}))
def test_without_a_fault_it_passes(copy: Path, test: str) -> None:
    found = run(copy, test)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
