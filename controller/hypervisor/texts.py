"""Texts of libvirt, whatever bytes are in them.

File names are bytes, and libvirt hands them on as they are: in names of volumes, and in documents that quote
the header of an image. libvirt-python takes every text for UTF-8 and raises UnicodeDecodeError for others,
with the whole text in the error.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_WORD = re.compile(rb"[^\s<>\"']+")


def told(call: Callable[[], str]) -> str:
    r"""What ``call`` answers, with ``\xe9`` for each byte that is not UTF-8.

    Good for comparing and for people. Such a name must not be given back to libvirt: it is another one.
    """
    try:
        return call()
    except UnicodeDecodeError as error:
        return _plain(error.object)


def odd_word(error: UnicodeDecodeError) -> str:
    """The word of the text that is not UTF-8: most often the path of a file."""
    words = (found for found in _WORD.finditer(error.object) if found.end() > error.start)
    found = next(words, None)
    return _plain(error.object if found is None else found.group())


def _plain(text: bytes) -> str:
    return text.decode(errors="backslashreplace")
