"""QEMU's names for images, as it was measured to say them (libvirt 9.0, QEMU 7.2)."""

from __future__ import annotations

import json

import pytest

from controller.chain.opened import Opened, OpenedImage, is_same
from controller.chain.source import Host, Source
from tests.chain import builders as b

HOST = Host("127.0.0.1", "24007")
OURS = "web-1.vda.varve-0f3a.qcow2"


def named(**file: object) -> str:
    """A format node whose backing image is not the one of its header."""
    return "json:" + json.dumps({"backing": {"driver": "qcow2"}, "driver": "qcow2", "file": file})


@pytest.mark.parametrize(
    ("name", "source", "same"),
    [
        ("/images/web-1.qcow2", Source.file("/images//web-1.qcow2"), True),
        ("/images/web-2.qcow2", Source.file("/images/web-1.qcow2"), False),
        (named(driver="file", filename="/images/web-1.qcow2"), Source.file("/images/web-1.qcow2"), True),
        ("nbd://127.0.0.1:10809/web-1", Source.file("/images/web-1"), False),
        ("nbd://127.0.0.1:10809/a", Source.network("nbd", "a", [Host("127.0.0.1", "10809")]), True),
        ("nbd://127.0.0.1:10809/b", Source.network("nbd", "a", [Host("127.0.0.1", "10809")]), False),
        (
            named(driver="gluster", volume="gv0", path="x.qcow2", server=[{"host": "h", "port": "24007"}]),
            Source.network("gluster", "gv0/x.qcow2", [HOST]),
            True,
        ),
        (f"json:what-nobody-knows/{OURS}", Source.network("rbd", f"rbd/{OURS}", [HOST]), True),
        ("json:{", Source.network("rbd", "rbd/x", [HOST]), None),
        ("json:{", Source.file("/x"), False),
    ],
)
def test_names(name: str, source: Source, same: bool | None) -> None:
    assert is_same(name, source) is same


def test_an_answer_that_was_not_had_says_nothing() -> None:
    unknown = Opened(problem="access denied")
    assert unknown.writes_to(Source.file("/x")) is None
    assert unknown.has_open(Source.file("/x")) is None
    assert not unknown.differs_from(b.disk("base"))
    assert not unknown.lacks_some(b.disk("base"))


def test_what_is_open_and_belongs_to_no_disk() -> None:
    opened = Opened((OpenedImage("/images/base"),), frozenset({"/images/base", "/images/new"}))
    assert opened.writes_to(Source.file("/images/new")) is False
    assert opened.has_open(Source.file("/images/new")) is True


def test_a2_somebody_elses_snapshot_that_libvirt_did_not_note() -> None:
    opened = Opened(tuple(OpenedImage(f"/images/{name}", "qcow2") for name in ("theirs", "top", "base")))
    shown = b.disk("top", "base")
    assert opened.differs_from(shown)
    top = opened.extra_top(shown)
    assert top is not None
    assert (top.key, top.format) == (b.key("theirs"), "qcow2")
    assert opened.extra_top(b.disk("top", "other")) is None
    assert not opened.lacks_some(shown)
    assert opened.lacks_some(b.disk("top", "other"))
