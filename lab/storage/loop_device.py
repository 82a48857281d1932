"""Make a block device of a file and hold it. Standard library only, run as a script.

`python -I loop_device.py FILE NAME_FILE`: attaches FILE to a free loop device, writes the device's path to
NAME_FILE and sleeps. The device goes with the last process that has it open (LO_FLAGS_AUTOCLEAR), so nothing
stays behind however this ends. Structures and numbers: linux/loop.h, loop(4).
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import signal
import struct
from pathlib import Path

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_AUTOCLEAR = 4
_CONTROL = Path("/dev/loop-control")
# struct loop_config: fd, block size, loop_info64 (five u64, four u32, three strings, two u64), eight u64.
_CONFIG = struct.Struct("=II5Q4I64s64s32s2Q8Q")
_TRIES = 20


def free_device() -> str:
    """The path of a loop device that nobody uses. Raises OSError where there is none."""
    with _CONTROL.open("rb") as control:
        return f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"


def why_not() -> str | None:
    """Why this machine has no loop devices for us, None if it has."""
    try:
        os.close(os.open(free_device(), os.O_RDWR))
    except OSError as error:
        return f"no loop devices here: {error}"
    return None


def attach(file: Path) -> tuple[str, int]:
    """Attach a file; the device's path and a descriptor that holds it. Raises OSError."""
    for _ in range(_TRIES):
        device = free_device()
        holder = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        info = [0] * 8 + [LO_FLAGS_AUTOCLEAR, os.fsencode(file)[-63:], b"", b"", 0, 0]
        try:
            fcntl.ioctl(holder, LOOP_CONFIGURE, _CONFIG.pack(backing, 0, *info, *[0] * 8))
        except OSError as error:
            os.close(holder)
            if error.errno != errno.EBUSY:  # someone else took it between the two calls
                raise
        else:
            return device, holder
        finally:
            os.close(backing)
    raise OSError(errno.EBUSY, f"others took {_TRIES} free loop devices before us")


def main() -> None:
    """Attach, say where, hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("name_file", type=Path)
    arguments = parser.parse_args()
    device, _ = attach(arguments.file)
    unfinished = arguments.name_file.with_suffix(".new")
    unfinished.write_text(device, encoding="ascii")
    unfinished.rename(arguments.name_file)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
