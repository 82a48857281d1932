"""What is made once per machine and kept between labs: built programs, boot sectors, probed capabilities."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_directory() -> Path:
    """`$VARVE_LAB_CACHE`, else `varve-lab` in the user's cache directory. Made if it is missing."""
    given = os.environ.get("VARVE_LAB_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(given) if given else Path(home) / "varve-lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process at a time in here for this path; the kernel lets go if it dies."""
    with path.open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def once(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """The directory `name`-`key` of the cache, filled by `make` if it is not there yet.

    `make` fills a temporary directory that is renamed when it returns, so what an interruption leaves never
    looks finished. Two labs started at once make it once: the second waits for the first.
    """
    target = cache_directory() / f"{name}-{key}"
    if target.is_dir():
        return target
    with _locked(cache_directory() / f"{name}.lock"):
        if target.is_dir():
            return target
        fresh = Path(tempfile.mkdtemp(prefix=f"{name}-unfinished-", dir=cache_directory()))
        try:
            make(fresh)
            fresh.chmod(0o755)
            fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)  # gone already after the rename
    return target
