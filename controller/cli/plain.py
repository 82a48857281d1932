"""A page as plain text: for a pipe, a log, a terminal without rich."""

from __future__ import annotations

from collections.abc import Iterable

from controller.cli.page import Bar, Block, Line, Page, Section, Table

_INDENT = "  "


def text(page: Page) -> str:
    """The page, each line ended by a line break and none by a blank."""
    lines: list[str] = []
    for block in page:
        if lines and isinstance(block, Section):
            lines.append("")
        lines += _block(block)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _block(block: Block) -> Iterable[str]:
    match block:
        case Line():
            return [block.text]
        case Table():
            return _table(block)
        case Bar():
            percent = "" if block.percent is None else f"{block.percent:3d} %  "
            return [f"{percent}{block.caption.text}"]
        case Section():
            inner = (line for one in block.blocks for line in _block(one))
            return [block.title.text, *(f"{_INDENT}{line}" for line in inner)]


def _table(table: Table) -> Iterable[str]:
    rows = [[cell.text for cell in row] for row in table.rows]
    if table.heading:
        rows.insert(0, list(table.heading))
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        _INDENT.join(
            cell.rjust(width) if column in table.right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
