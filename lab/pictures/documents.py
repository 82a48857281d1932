"""Texts in documents: between ``<!-- pictures/NAME.txt -->`` and the end of the code block that follows."""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(
    r"(<!-- pictures/(?P<name>[a-z-]+)\.txt -->\n```(?P<kind>[a-z]*)\n).*?(\n```\n)", re.DOTALL
)


def insert(document: Path, directory: Path) -> None:
    """Write the texts of ``directory`` into the blocks of ``document``."""
    before = document.read_text(encoding="utf-8")
    after = inserted(before, directory)
    if after != before:
        document.write_text(after, encoding="utf-8")


def inserted(text: str, directory: Path) -> str:
    """``text`` with each of its blocks as in ``directory``. Raises FileNotFoundError for an unknown one."""

    def block(match: re.Match[str]) -> str:
        content = (directory / f"{match['name']}.txt").read_text(encoding="utf-8").rstrip("\n")
        return f"{match[1]}{content}{match[4]}"

    return _BLOCK.sub(block, text)
