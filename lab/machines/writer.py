"""The guest that writes: its boot sector, and the check of what it must have written."""

from __future__ import annotations

import hashlib
import mmap
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab import cache
from lab.errors import LabError
from lab.hosts.glfs_stub import assemble

SECTOR = 512
Content = bytes | bytearray | memoryview | mmap.mmap
_SOURCE = Path(__file__).with_name("bootsector.S")
_PARAMETERS_AT = 440
_PARAMETERS = struct.Struct("<IIIBBB")
_PAIR = struct.Struct("<II")
_PAIRS_PER_SECTOR = SECTOR // _PAIR.size


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """What the guest does.

    `window_sectors`: how many sectors it writes round and round, a power of two; `base_sector`: the first of
    them.
    `burst`: rounds per tick of its timer (18.2 ticks per second), up to 255; 0 = as fast as it can (some
    1,600 rounds/s and all of a core). `dot_every`: rounds per '.' on the serial port, a power of two up to
    256.
    """

    window_sectors: int = 8192
    base_sector: int = 2048
    burst: int = 4
    dot_every: int = 16

    def __post_init__(self) -> None:
        for name, value, highest in (
            ("window_sectors", self.window_sectors, 1 << 28),
            ("dot_every", self.dot_every, 256),
        ):
            if value < 1 or value > highest or value & (value - 1):
                raise LabError(f"{name} must be a power of two up to {highest}, not {value}")
        if not 0 <= self.burst <= 255:
            raise LabError(f"burst must be 0 to 255, not {self.burst}")

    @property
    def end_bytes(self) -> int:
        """The first byte behind the window: disks must not be smaller."""
        return (self.base_sector + self.window_sectors) * SECTOR


@dataclass(frozen=True, slots=True)
class WriterCheck:
    """What the content of one disk (or of one point of it) says about the writes that reached it.

    `max_counter`: the newest write found (0: none); `torn`: sectors that hold two writes; `wrong`: sectors
    that hold one write, but not the one they must; `checked_sectors`: those that must hold a write.
    """

    max_counter: int
    torn: int
    wrong: int
    checked_sectors: int
    first_bad_sector: int | None

    @property
    def ok(self) -> bool:
        """Something was written, and all of it is right."""
        return self.max_counter > 0 and self.torn == 0 and self.wrong == 0


def boot_sector(options: WriterOptions, *, magic: int, drives: int) -> bytes:
    """The 512 bytes for LBA 0 of a machine with `drives` disks."""
    code = (_assembled() / "bootsector.bin").read_bytes()
    if len(code) != SECTOR or code[-2:] != b"\x55\xaa":
        raise LabError(f"{_SOURCE} does not assemble to a boot sector of {SECTOR} bytes")
    parameters = _PARAMETERS.pack(
        options.base_sector,
        options.window_sectors - 1,
        magic,
        drives,
        options.dot_every - 1,
        options.burst,
    )
    return code[:_PARAMETERS_AT] + parameters + code[_PARAMETERS_AT + len(parameters) :]


def _assembled() -> Path:
    def make(directory: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            compiled = str(Path(scratch) / "bootsector.o")
            assemble(["as", "--32", "-o", compiled, str(_SOURCE)])
            linked = str(directory / "bootsector.bin")
            assemble(
                ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", linked, compiled]
            )

    return cache.once("bootsector", hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16], make)


def expected_sector(counter: int, magic: int, drive: int) -> bytes:
    """What write number `counter` puts into its sector on disk number `drive` (0 = first); 0: zeros."""
    return _PAIR.pack(counter, magic + drive) * _PAIRS_PER_SECTOR if counter else bytes(SECTOR)


def check_writer(content: Content, options: WriterOptions, *, magic: int, drive: int) -> WriterCheck:
    """Check the whole content of a disk, raw.

    The guest writes one sector after the other, so at any instant sector s of the window holds the largest
    counter k up to the newest write with k mod window = s; and zeros if there is none yet. Any point of the
    disk must look like that.
    """
    window = memoryview(content)[options.base_sector * SECTOR : options.end_bytes]
    if window.nbytes != options.window_sectors * SECTOR:
        raise LabError(f"the disk ends inside the writer's window ({options.end_bytes} bytes are needed)")
    size = options.window_sectors
    sectors = [bytes(window[at * SECTOR : (at + 1) * SECTOR]) for at in range(size)]
    newest = max(
        (_PAIR.unpack_from(data)[0] for data in sectors if _plausible(data, magic + drive)), default=0
    )
    torn = wrong = checked = 0
    first_bad: int | None = None
    for at, data in enumerate(sectors):
        wanted = newest - (newest - at) % size
        wanted = max(wanted, 0)
        checked += wanted > 0
        if data == expected_sector(wanted, magic, drive):
            continue
        first_bad = at + options.base_sector if first_bad is None else first_bad
        if data == data[: _PAIR.size] * _PAIRS_PER_SECTOR:
            wrong += 1
        else:
            torn += 1
    return WriterCheck(newest, torn, wrong, checked, first_bad)


def _plausible(data: bytes, tag: int) -> bool:
    """Whether a sector is one whole write of ours: a torn or foreign one must not tell the newest."""
    return _PAIR.unpack_from(data)[1] == tag and data == data[: _PAIR.size] * _PAIRS_PER_SECTOR
