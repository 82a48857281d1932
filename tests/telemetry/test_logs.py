"""Logs: one line each, with what belongs to it, and without what must not be there."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from controller.telemetry.logs import Format, Throttle, log_context, setup_logging

log = logging.getLogger("controller.test")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def setup(format_: Format = "text", level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    setup_logging(format_, level, stream)
    return stream


def test_text_is_one_readable_line() -> None:
    out = setup()
    log.info("a step begins", extra={"step": "commit", "image": "/a b", "count": 3})
    line = out.getvalue()
    assert line.endswith(
        'Z info  a step begins  logger=controller.test step=commit image="/a b" count=3\n'[1:]
    )
    assert line[:2] == "20"
    assert line.count("\n") == 1


def test_json_is_one_object() -> None:
    out = setup("json")
    with log_context(namespace="shop", domain=None):
        log.warning("it waits", extra={"seconds": 1.5})
    entry = json.loads(out.getvalue())
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warn",
        "logger": "controller.test",
        "message": "it waits",
        "namespace": "shop",
        "seconds": 1.5,
    }


async def test_context_reaches_tasks_and_ends_with_its_block() -> None:
    out = setup("json")

    async def work(number: int) -> None:
        with log_context(snapshot=f"s{number}"):
            await asyncio.sleep(0)
            log.info("inside")

    with log_context(reconcile_id="r1"):
        await asyncio.gather(work(1), work(2))
    log.info("outside")
    entries = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(e.get("snapshot"), e.get("reconcile_id")) for e in entries] == [
        ("s1", "r1"),
        ("s2", "r1"),
        (None, None),
    ]


@pytest.mark.parametrize("format_", ["text", "json"])
def test_other_peoples_words_start_no_line_and_show_no_password(format_: Format) -> None:
    out = setup(format_)
    log.info(
        "from qemu+ssh://root:hunter2@host/x:\n2026 error forged",
        extra={"uri": "tls://u:hunter2@h", "x": "a\nb"},
    )
    assert out.getvalue().count("\n") == 1
    assert "hunter2" not in out.getvalue()
    assert "u:***@h" in out.getvalue()


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_traceback_is_kept(format_: Format) -> None:
    out = setup(format_)
    try:
        int("cause")
    except ValueError:
        log.exception("it broke")
    assert "Traceback" in out.getvalue()
    assert "ValueError: invalid literal" in out.getvalue()
    assert len(out.getvalue().splitlines()) == (1 if format_ == "json" else 5)


def test_levels_and_libraries() -> None:
    out = setup(level="info")
    log.debug("not this")
    logging.getLogger("kopf.objects").info("nor this")
    logging.getLogger("kopf.objects").warning("but this")
    (line,) = out.getvalue().splitlines()
    assert "but this" in line
    out = setup(level="debug")
    logging.getLogger("kopf.objects").info("this too")
    assert "this too" in out.getvalue()


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        setup_logging("text", "loud", io.StringIO())


def test_a_library_says_the_same_only_once_in_a_while() -> None:
    now = [0.0]
    throttle = Throttle(60, clock=lambda: now[0])

    def passes(name: str, words: str) -> bool:
        return throttle.filter(logging.LogRecord(name, logging.ERROR, "", 0, words, None, None))

    assert passes("kopf.clients", "no answer")
    assert not any(passes("kopf.clients", "no answer") for _ in range(3))
    assert passes("kopf.clients", "something else")
    assert all(passes("controller.x", "ours") for _ in range(3))
    now[0] = 60.0
    assert passes("kopf.clients", "no answer")
