"""The items of a list, one after the other as its bytes come in: a page is never in memory as a whole. Pure.

A page of 100 objects of 1.5 MiB would be 150 MiB of text, and as much again decoded, in one go that stops
everything else for seconds.
"""

from __future__ import annotations

import json
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from typing import Any

_SPACE = " \t\r\n"
_SCALAR = frozenset("0123456789+-.eEtrufalsn")


class NotAList(ValueError):
    """What came is not the JSON of a list of objects."""


class _More(Exception):
    """What is there ends before the value does."""


class ListScanner:
    """Feed it bytes; it gives the items. Everything else of the list is in :attr:`rest` in the end."""

    def __init__(self) -> None:
        self.rest: dict[str, Any] = {}
        """The other fields of the list, such as ``kind`` and ``metadata``."""
        self.done = False
        """Whether the list has ended. If not when no more bytes come, it was cut."""
        self._decoder = getincrementaldecoder("utf-8")()
        self._value = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._needed = 0
        self._where: Callable[[], dict[str, Any] | None] = self._begin

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """The items that end in what has come until now. Raises NotAList.

        One that has not ended is tried again only when twice as much has come, so that a long one costs its
        length a few times over and not the square of it.
        """
        try:
            self._text = self._text[self._at :] + self._decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise NotAList(str(error)) from error
        self._at = 0
        if len(self._text) < self._needed:
            return
        self._needed = 0
        while not self.done:
            try:
                found = self._where()
            except _More:
                self._needed = 2 * (len(self._text) - self._at)
                return
            if found is not None:
                yield found

    def end(self) -> Iterator[dict[str, Any]]:
        """The items that are left when no more bytes will come. Raises NotAList when the list was cut."""
        self._needed = 0
        yield from self.feed(b"")
        if not self.done:
            raise NotAList("the list was cut")

    # Where it is: each reads one step, and says where it goes on.

    def _begin(self) -> None:
        self._take("{")
        self._where = self._field

    def _field(self) -> None:
        start = self._at
        try:
            following = self._look()
            if following == "}":
                self._at += 1
                self.done = True
                return
            if following == ",":
                self._at += 1
            name = self._decoded()
            self._take(":")
            if name == "items" and self._look() == "[":
                self._at += 1
                self._where = self._next
                return
            self.rest[str(name)] = self._decoded()
        except _More:
            self._at = start
            raise

    def _next(self) -> dict[str, Any] | None:
        start = self._at
        try:
            following = self._look()
            if following == "]":
                self._at += 1
                self._where = self._field
                return None
            if following == ",":
                self._at += 1
            return self._item()
        except _More:
            self._at = start
            raise

    def _item(self) -> dict[str, Any]:
        found = self._decoded()
        if not isinstance(found, dict):
            raise NotAList("an item is not an object")
        return found

    # The text.

    def _look(self) -> str:
        """The next character that is no space."""
        text, at = self._text, self._at
        while at < len(text) and text[at] in _SPACE:
            at += 1
        self._at = at
        if at == len(text):
            raise _More
        return text[at]

    def _take(self, character: str) -> None:
        if self._look() != character:
            raise NotAList(f"{character} was expected, not {self._text[self._at : self._at + 20]!r}")
        self._at += 1

    def _decoded(self) -> Any:
        """The next value."""
        first = self._look()
        try:
            value, end = self._value(self._text, self._at)
        except json.JSONDecodeError as error:
            if first in '{["' or set(self._text[self._at :]) <= _SCALAR:
                raise _More from error
            raise NotAList(str(error)) from error
        if first not in '{["' and set(self._text[end:]) <= _SCALAR:
            raise _More  # a number or a word may go on: of 0.5 there may be no more than 0. so far
        self._at = end
        return value
