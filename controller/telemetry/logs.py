"""Structured logs: a message that is always the same words, and what differs as key and value.

Values come from ``extra=`` of a call (where ``logging`` refuses ``name``, ``module`` and ``message``) and
from :func:`log_context` around it, which a pass sets once. Text is one readable line each (logfmt); JSON is
one object each. Secrets do not belong in a log: nothing here removes them, except passwords in URIs, which
other people's error messages quote.
"""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from time import monotonic
from types import MappingProxyType
from typing import Any, Literal, TextIO

Format = Literal["text", "json"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})

_CONTEXT: ContextVar[Mapping[str, Any]] = ContextVar("log_context", default=_NOTHING)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_LEVELS = {"WARNING": "warn", "CRITICAL": "error"}

_PASSWORD = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")

_BARE = re.compile(r"[\w./:@%+-]+")

_QUIET = ("kopf", "asyncio", "aiohttp", "kubernetes", "client")
"""Loggers of libraries: only their warnings are worth reading, unless the level is debug."""


@contextmanager
def log_context(**values: Any) -> Iterator[None]:
    """Add ``values`` to every record logged in this block and in tasks it starts; None is left out."""
    kept = {key: value for key, value in values.items() if value is not None}
    token = _CONTEXT.set({**_CONTEXT.get(), **kept})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def setup_logging(format_: Format, level: str, stream: TextIO | None = None) -> None:
    """Send all records of the process to ``stream`` (default: standard error), as the only handler.

    ``level`` is debug, info, warning or error. Raises ValueError for another one.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter())
    if level != "debug":
        handler.addFilter(Throttle())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else logging.WARNING)


class Throttle(logging.Filter):
    """Lets the same words of a library pass once in a minute: what is retried each second fills no disk."""

    def __init__(self, seconds: float = 60.0, clock: Callable[[], float] = monotonic) -> None:
        """``seconds`` is how long a repetition is held back."""
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the record."""
        if record.name.partition(".")[0] not in _QUIET:
            return True
        words, now = record.getMessage(), self._clock()
        self._passed = {said: at for said, at in self._passed.items() if now - at < self._seconds}
        if words in self._passed:
            return False
        self._passed[words] = now
        return True


class TextFormatter(logging.Formatter):
    """``2026-11-22T16:00:00.123Z info  controller.operator  message  key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, more only for a traceback."""
        message = _clean(record.getMessage()).replace("\n", "\\n")  # nobody else's words start a line
        fields = " ".join(f"{key}={_logfmt(value)}" for key, value in _fields(record).items())
        line = f"{_time(record)} {_level(record):5} {message}  logger={record.name} {fields}"
        trace = _trace(self, record)
        return f"{line.rstrip()}\n{trace}" if trace else line.rstrip()


class JsonFormatter(logging.Formatter):
    """One JSON object per line with ``time``, ``level``, ``logger``, ``message`` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in it."""
        entry = {
            "time": _time(record),
            "level": _level(record),
            "logger": record.name,
            "message": _clean(record.getMessage()),
        }
        entry |= {key: value for key, value in _fields(record).items() if key not in entry}
        trace = _trace(self, record)
        if trace:
            entry["trace"] = trace
        return json.dumps(entry, default=str, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The values of the context, overridden by those of the call."""
    extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    merged = {**_CONTEXT.get(), **extra}
    return {key: _clean(value) if isinstance(value, str) else value for key, value in merged.items()}


def _clean(text: str) -> str:
    return _PASSWORD.sub(r"\1:***@", text)


def _logfmt(value: object) -> str:
    """A value that needs no quotes as it is, any other in JSON, so that it stays on its line."""
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def _level(record: logging.LogRecord) -> str:
    return _LEVELS.get(record.levelname, record.levelname.lower())


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return _clean(formatter.formatException(record.exc_info)) if record.exc_info else ""
