"""What the demo says and shows: plain text, so that it reads the same in a terminal, a pipe and a log."""

from __future__ import annotations

import shlex
import sys
import textwrap
import time
from collections.abc import Iterable

_WIDTH = 100


def heading(text: str) -> None:
    """The start of an act."""
    print(f"\n=== {text} {'=' * max(3, _WIDTH - len(text) - 5)}", flush=True)


def tell(text: str) -> None:
    """A paragraph for the reader."""
    print("\n" + textwrap.fill(textwrap.dedent(text).strip().replace("\n", " "), _WIDTH), flush=True)


def command(arguments: Iterable[str], stdin: str | None = None) -> None:
    """A command line that the reader could type."""
    line = f"$ {' '.join(shlex.quote(argument) for argument in arguments)}"
    print(f"\n{line}", flush=True)
    if stdin is not None:
        print(textwrap.indent(stdin.strip(), "  | "), flush=True)


def output(text: str) -> None:
    """What a command printed."""
    if text.strip():
        print(text.rstrip(), flush=True)


class Stopwatch:
    """`with Stopwatch() as watch: …`; then `watch.seconds`."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began


def table(rows: Iterable[tuple[str, ...]]) -> None:
    """Columns, left-aligned; the first row is the heading."""
    lines = list(rows)
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    for row in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    sys.stdout.flush()
