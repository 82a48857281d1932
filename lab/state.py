"""What a lab writes down about itself: `lab.json` in its directory.

Only the keeper writes it (atomically), so that `down` works from it after any crash.
"""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import process
from lab.errors import LabError
from lab.process import ProcessRecord

STATE_NAME = "lab.json"
SOCKET_NAME = "keeper.sock"
_LONGEST_SOCKET_PATH = 107  # sun_path of unix(7), less the final NUL


@dataclass(slots=True)
class LabState:
    """`processes` run; `exits`: codes of those that ended; `notes` describe the parts to other processes."""

    lab_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    boot_id: str = field(default_factory=process.boot_id)
    remove_directory: bool = True
    keeper: ProcessRecord | None = None
    processes: dict[str, ProcessRecord] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: Path) -> LabState:
        """Read it. Raises LabError if the directory is not a lab's or the file is damaged."""
        path = directory / STATE_NAME
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            keeper = raw.pop("keeper")
            processes = raw.pop("processes")
            return cls(
                keeper=ProcessRecord(**keeper) if keeper else None,
                processes={name: ProcessRecord(**record) for name, record in processes.items()},
                **raw,
            )
        except FileNotFoundError:
            raise LabError(
                f"no lab in {directory}: {STATE_NAME} is missing; `python -m lab up` makes one"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise LabError(f"{path} is not a lab's state: {error}") from error

    def save(self, directory: Path) -> None:
        """Write it in one step: a reader sees the old or the new file, never half of one."""
        path = directory / STATE_NAME
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, path)  # noqa: PTH105 - the same, said with the word of rename(2)

    def alive(self) -> list[ProcessRecord]:
        """Recorded processes that still run, the keeper first. None of an earlier boot."""
        if self.boot_id != process.boot_id():
            return []
        records = ([self.keeper] if self.keeper else []) + list(self.processes.values())
        return [record for record in records if process.is_alive(record)]


def check_directory(directory: Path) -> None:
    """Raise LabError if unix sockets below `directory` would have paths that are too long."""
    longest = directory / "hosts" / "longest-name" / "run" / "libvirt-sock-ro"
    if len(str(longest)) > _LONGEST_SOCKET_PATH:
        raise LabError(f"{directory} is too long a path for unix sockets: choose a shorter one with --dir")
