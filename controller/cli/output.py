"""Where a page goes: rich to a terminal, plain to everything else, or the report as JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from controller.cli import plain
from controller.cli.page import Page
from controller.cli.report import Report

if TYPE_CHECKING:
    from rich.console import Console


class Output(Protocol):
    """Takes what a command has to say."""

    json: bool
    """Whether it writes reports, and no pages."""
    live: bool
    """Whether a page can be replaced by the next one."""

    def show(self, report: Report, page: Callable[[], Page]) -> None:
        """Write the report, or the page that is made of it."""
        ...

    def text(self, text: str) -> None:
        """Write what is neither, as it is."""
        ...

    def replace(self, page: Page) -> None:
        """Write a page over the one before; only where ``live``."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


@dataclass
class Plain:
    """To a pipe, a file, or a terminal without rich."""

    stream: TextIO
    json: bool = False
    live: bool = False

    def show(self, report: Report, page: Callable[[], Page]) -> None:
        """See :class:`Output`."""
        self.text(report.text() if self.json else plain.text(page()))

    def text(self, text: str) -> None:
        """See :class:`Output`."""
        self.stream.write(text)
        self.stream.flush()

    def replace(self, page: Page) -> None:
        """See :class:`Output`."""
        self.text(plain.text(page))

    def close(self) -> None:
        """Nothing to do."""


class Rich:
    """To a terminal, with colours unless NO_COLOR is set, which rich sees to."""

    json = False
    live = True

    def __init__(self, console: Console) -> None:
        """``console`` is where to draw."""
        from rich.live import Live  # noqa: PLC0415  # rich is optional

        self._console = console
        self._live = Live(console=console, auto_refresh=False)  # drawn when something changed, not by a clock

    def show(self, report: Report, page: Callable[[], Page]) -> None:
        """See :class:`Output`."""
        from controller.cli.colour import draw  # noqa: PLC0415  # rich is optional

        draw(page(), self._console)

    def text(self, text: str) -> None:
        """See :class:`Output`."""
        self._console.out(text, end="", highlight=False)

    def replace(self, page: Page) -> None:
        """See :class:`Output`."""
        from controller.cli.colour import drawing  # noqa: PLC0415  # rich is optional

        if not self._live.is_started:
            self._live.start()
        self._live.update(drawing(page), refresh=True)

    def close(self) -> None:
        """See :class:`Output`."""
        if self._live.is_started:
            self._live.stop()


def output(wanted: str, stream: TextIO, environment: Mapping[str, str]) -> Output:
    """``wanted`` is json, plain, or empty for what suits ``stream``."""
    if wanted or not stream.isatty() or environment.get("TERM") == "dumb":
        return Plain(stream, json=wanted == "json")
    try:
        from rich.console import Console  # noqa: PLC0415  # the extra `cli`: without it, plain
    except ImportError:
        return Plain(stream)
    return Rich(Console(file=stream, highlight=False))


def ask(question: str) -> bool:
    """Ask at the terminal; anything but y or yes is no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
