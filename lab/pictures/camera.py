"""Runs commands and keeps what they show: as a pipe gets it, and as a terminal draws it."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from rich.console import Console

from controller.cli import plain
from controller.cli.arguments import parse
from controller.cli.cluster import Cluster
from controller.cli.colour import draw
from controller.cli.commands import Command
from controller.cli.output import Plain
from controller.cli.page import Page
from controller.cli.report import Report
from lab.pictures.fixed import FixedClient

WIDTH = 128
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""rich names fonts on a server of somebody else; a picture must not ask anybody anything."""

_NUMBER = re.compile(r"\d+(\.\d+)?( (bytes|[KMGT]iB))?")
"""How far a job was when somebody looked is chance: what moves and differs in nothing else is kept."""


@dataclass
class Film:
    """What one command showed."""

    pages: list[Page] = field(default_factory=list)
    written: str = ""
    json = False
    live = True

    def show(self, report: Report, page: Callable[[], Page]) -> None:
        """Keep a page."""
        self.replace(page())

    def text(self, text: str) -> None:
        """Keep what is no page."""
        self.written += text

    def replace(self, page: Page) -> None:
        """Keep a page after the one before."""
        self.pages.append(page)

    def close(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class Camera:
    """Keeps ``NAME.txt`` and ``NAME.svg`` in ``directory``."""

    client: FixedClient
    directory: Path
    namespace: str

    async def take(self, name: str, *arguments: str, frame: Callable[[Page], bool] | None = None) -> str:
        """Run one command and keep what it showed at the end, or the first page that ``frame`` is looking
        for; ``NAME.txt`` is all that a pipe got. Returns that."""
        film, stream = Film(), StringIO()
        runs = [self._command(film, arguments).run()]
        if frame is not None:
            runs.append(self._command(Plain(stream), arguments).run())
        await asyncio.gather(*runs)
        text = stream.getvalue() or film.written or "".join(plain.text(page) for page in film.pages)
        pages = film.pages if frame is None else [page for page in film.pages if frame(page)][:1]
        if frame is None or self._tells_more(name, arguments, text):
            self._keep(name, arguments, text, pages)
        return text

    def _command(self, output: Film | Plain, arguments: tuple[str, ...]) -> Command:
        return Command(parse(arguments), Cluster(self.client), self.namespace, output)

    def _tells_more(self, name: str, arguments: tuple[str, ...], text: str) -> bool:
        """Whether what moves differs from what is kept in more than numbers."""
        path = self.directory / f"{name}.txt"
        kept = path.read_text(encoding="utf-8") if path.exists() else ""
        return _NUMBER.sub("#", kept) != _NUMBER.sub("#", _typed(arguments, text))

    def _keep(self, name: str, arguments: tuple[str, ...], text: str, pages: list[Page]) -> None:
        command = shlex.join(("varve", *arguments))
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{name}.txt"
        path.write_text(_typed(arguments, text), encoding="utf-8")
        console = Console(
            record=True,
            width=WIDTH,
            height=25,  # of no meaning; without it rich makes a dumb terminal (TERM) 80 columns wide
            file=StringIO(),
            force_terminal=True,
            color_system="truecolor",
        )
        for page in pages:
            draw(page, console)
        if not pages:
            console.print(text.rstrip("\n"), highlight=False, markup=False)
        svg = _FONTS.sub("", console.export_svg(title=command, unique_id=f"varve-{name}"))
        (self.directory / f"{name}.svg").write_text("\n".join(map(str.rstrip, svg.splitlines())) + "\n")


def _typed(arguments: tuple[str, ...], text: str) -> str:
    return f"$ {shlex.join(('varve', *arguments))}\n{text}"
