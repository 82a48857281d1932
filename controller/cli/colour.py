"""A page as rich draws it in a terminal. Only imported where rich is installed."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from controller.cli.page import Bar, Block, Line, Page, Role, Section, Table

_STYLES = {
    Role.TEXT: "",
    Role.NAME: "bold",
    Role.GOOD: "green",
    Role.BUSY: "yellow",
    Role.BAD: "bold red",
    Role.FAINT: "dim",
    Role.CODE: "cyan",
}
_BAR_WIDTH = 40


def drawing(page: Page) -> RenderableType:
    """The page as one renderable."""
    return Group(*(_block(block) for block in page))


def draw(page: Page, console: Console) -> None:
    """Print the page."""
    console.print(drawing(page))


def _block(block: Block) -> RenderableType:
    match block:
        case Line():
            return _text(block)
        case Table():
            return _grid(block)
        case Bar():
            return _bar(block)
        case Section():
            inner = Group(*(_block(one) for one in block.blocks))
            title = _text(block.title)
            title.stylize_before("not dim")  # as the frame is
            return Panel(inner, title=title, title_align="left", border_style="dim", box=box.ROUNDED)


def _text(line: Line) -> Text:
    return Text.assemble(*((span.text, _STYLES[span.role]) for span in line.spans), overflow="fold")


def _grid(table: Table) -> RenderableType:
    if not table.heading:
        grid = Grid.grid(padding=(0, 2, 0, 0))
        for column in range(len(table.rows[0]) if table.rows else 0):
            grid.add_column(no_wrap=column == 0, overflow="fold")
    else:
        grid = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        for column, name in enumerate(table.heading):
            grid.add_column(name, justify="right" if column in table.right else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*(_text(cell) for cell in row))
    return grid


def _bar(bar: Bar) -> RenderableType:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    known = bar.percent is not None
    grid.add_row(
        ProgressBar(total=100, completed=bar.percent or 0, width=_BAR_WIDTH, pulse=False),
        Text(f"{bar.percent:3d} %" if known else "  ? %", "bold"),
        _text(bar.caption),
    )
    return Padding(grid, (0, 0, 0, 0))
