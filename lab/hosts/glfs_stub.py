"""A library that makes glfs_fini() of libgfapi do nothing: a workaround for the lab only.

glfs_fini() of glusterfs 10 waits exactly 10 s each time an image on a volume is closed, so that each take,
merge and probe would take 11 s and freeze the guest (QEMU closes images in its main loop). Preloaded into
libvirtd, whose QEMUs inherit it, and into the reader's qemu-img. It leaks the connection, which is fine for
programs that end soon.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from lab import cache
from lab.errors import LabError

_SOURCE = """
.globl glfs_fini
.type glfs_fini, @function
glfs_fini:
    xorl %eax, %eax
    ret
.section .note.GNU-stack, "", @progbits
"""


def assemble(arguments: list[str]) -> None:
    """Run `as` or `ld`. Raises LabError with what it says."""
    answer = subprocess.run(arguments, check=False, capture_output=True, text=True)
    if answer.returncode != 0:
        raise LabError(f"{arguments[0]} failed (package binutils): {answer.stderr.strip()}")


def glfs_stub() -> Path:
    """Path of the library, made once."""

    def make(directory: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            source, compiled = Path(scratch) / "stub.S", Path(scratch) / "stub.o"
            source.write_text(_SOURCE, encoding="ascii")
            assemble(["as", "--64", "-o", str(compiled), str(source)])
            assemble(["ld", "-shared", "-o", str(directory / "glfs-stub.so"), str(compiled)])

    return cache.once("glfs-stub", "1", make) / "glfs-stub.so"
