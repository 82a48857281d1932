"""Files of the hypervisor, which is this machine. Small ones: the tests may wait for them."""

from __future__ import annotations

from pathlib import Path


def content(path: str) -> bytes:
    return Path(path).read_bytes()


def write(path: str | bytes, content: bytes) -> None:
    with open(path, "wb") as file:  # noqa: PTH123 (a Path takes no bytes)
        file.write(content)


def remove(path: str) -> None:
    Path(path).unlink()


def inode(path: str) -> int:
    """Tells a file that was kept from one that was made anew."""
    return Path(path).stat().st_ino


def names(directory: str) -> set[str]:
    """What is in a directory."""
    return {path.name for path in Path(directory).iterdir()}


def move(path: str, to: str) -> None:
    Path(path).rename(to)


def make_directory(path: str) -> None:
    Path(path).mkdir()
