"""A1: whether libvirt follows a change of the running chain in the stored definition."""

from __future__ import annotations

import pytest
from lxml import etree

from controller.chain.same_location import difference
from controller.chain.source import Host, Source

A, B = Host("a", "24007"), Host("b", "24007")


def gluster(*hosts: Host, name: str = "gv0/x") -> Source:
    return Source.network("gluster", name, hosts)


def volume(pool: str, name: str) -> Source:
    return Source.from_element("volume", etree.Element("source", pool=pool, volume=name))


@pytest.mark.parametrize(
    ("running", "stored", "words"),
    [
        (Source.file("/images/x"), Source.file("/images/x"), None),
        (Source.file("/images/x"), Source.file("/images/y"), "/images/y is stored"),
        (Source.file("/images/x"), Source.file("/images//x"), "/images//x is stored"),
        (Source.file("/images/x"), volume("default", "x"), "type volume"),
        (volume("default", "x"), volume("default", "x"), None),
        (volume("default", "x"), volume("default", "y"), "default/y"),
        (gluster(A, B), gluster(A, B), None),
        (gluster(A, B), gluster(B, A), "in this order"),
        (gluster(A), gluster(B), "b:24007"),
        (gluster(A), gluster(A, B), "b:24007"),
        (gluster(A), gluster(Host("a")), None),
        (gluster(A), gluster(A, name="gv0/./x"), "gv0/./x"),
        (gluster(A), Source.network("nbd", "gv0/x", [A]), "nbd"),
    ],
)
def test_as_libvirt_compares(running: Source, stored: Source, words: str | None) -> None:
    found = difference(running, stored)
    if words is None:
        assert found == ""
    else:
        assert words in found
