"""What a command shows, before it is known where: text with meanings instead of colours.

The same page is written to a pipe (:mod:`controller.cli.plain`) and to a terminal
(:mod:`controller.cli.colour`), so that the two never tell different things.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a piece of text is."""

    TEXT = "text"
    NAME = "name"
    GOOD = "good"
    BUSY = "busy"
    BAD = "bad"
    FAINT = "faint"
    CODE = "code"
    """Something to type."""


@dataclass(frozen=True)
class Span:
    """A piece of text. What comes from a cluster or a hypervisor may be anything, so control characters, with
    which a name could rewrite a terminal, become ``?``."""

    text: str
    role: Role = Role.TEXT

    def __post_init__(self) -> None:
        clean = "".join(c if c.isprintable() else "?" for c in self.text)
        object.__setattr__(self, "text", clean)


@dataclass(frozen=True)
class Line:
    """Spans side by side."""

    spans: tuple[Span, ...]

    @property
    def text(self) -> str:
        """Without the roles."""
        return "".join(span.text for span in self.spans)


def line(*parts: str | Span | tuple[str, Role]) -> Line:
    """A line of strings, spans, and strings with a role."""
    spans = (
        Span(part) if isinstance(part, str) else Span(*part) if isinstance(part, tuple) else part
        for part in parts
    )
    return Line(tuple(span for span in spans if span.text))


@dataclass(frozen=True)
class Table:
    """Rows of equally many cells; ``right`` are the columns that are aligned to the right."""

    rows: tuple[tuple[Line, ...], ...]
    heading: tuple[str, ...] = ()
    right: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Bar:
    """How far a job is: percent, or None when that is not known."""

    percent: int | None
    caption: Line


@dataclass(frozen=True)
class Section:
    """Blocks under a title."""

    title: Line
    blocks: tuple[Block, ...] = ()


Block = Line | Table | Bar | Section
Page = tuple[Block, ...]


def facts(rows: Iterable[tuple[str, Line]]) -> Table:
    """Labels with what is to be said of each."""
    return Table(tuple((line((label, Role.FAINT)), value) for label, value in rows))
