"""URIs of images: what people read has no secret in it, and what they write is understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from controller.chain.source import Source
from controller.chain.source_uri import NotAnImage
from tests.chain.strategies import SOURCES, TEXT


def source(kind: str, xml: str) -> Source:
    return Source.from_element(kind, etree.fromstring(xml))


@given(SOURCES)
def test_what_is_read_can_be_written(image: Source) -> None:
    """Every URI names its image, in its normal spelling, whatever metacharacters are in the names."""
    assert image.is_called(image.uri)
    again = Source.from_uri(image.uri)
    assert again.uri == image.uri
    assert again.footprint == image.footprint
    unsaid = image.element().get("query") or {child.tag for child in image.element()} & {"slices", "config"}
    if image.type in {"file", "volume", "network"} and not unsaid:
        assert again.key == image.key


@given(SOURCES, SOURCES)
def test_two_network_images_are_called_differently(one: Source, other: Source) -> None:
    if one.type == other.type == "network" and one.uri == other.uri:
        assert one.footprint == other.footprint


@given(TEXT | st.text(max_size=20), SOURCES)
def test_no_text_confuses_the_reader(text: str, image: Source) -> None:
    for typed in (
        text,
        f"/{text}",
        f"nbd://{text}",
        f"rbd://h/{text}",
        f"volume:{text}",
        f"nbd+unix:///{text}",
    ):
        try:
            found = Source.from_uri(typed)
        except NotAnImage:
            assert not image.is_called(typed) or typed == image.uri
            continue
        assert Source.from_uri(found.uri).uri == found.uri
        assert image.is_called(typed) == (found.uri == image.uri)


HOST = "<host name='h'/>"


@pytest.mark.parametrize(
    ("kind", "xml", "uri"),
    [
        ("block", "<source dev='/dev/vg//a'/>", "/dev/vg/a"),
        ("dir", "<source dir='/srv/d/'/>", "/srv/d"),
        ("volume", "<source pool='p' volume='a b'/>", "volume:p/a%20b"),
        (
            "network",
            "<source protocol='rbd' name='p/ns/i'><host name='m1' port='6789'/><host name='M2.'/>"
            "<snapshot name='s'/></source>",
            "rbd://m1:6789,m2/p/ns/i@s",
        ),
        ("network", "<source protocol='rbd' name='p/i'/>", "rbd:///p/i"),
        ("network", f"<source protocol='nbd'>{HOST}</source>", "nbd://h:10809/"),
        ("network", f"<source protocol='nbd' name='/a'>{HOST}</source>", "nbd://h:10809//a"),
        (
            "network",
            f"<source protocol='iscsi' name='iqn.2024-01.lv:t1'>{HOST}</source>",
            "iscsi://h:3260/iqn.2024-01.lv:t1/0",
        ),
        ("network", f"<source protocol='ssh' name='/srv/x'>{HOST}</source>", "ssh://h:22/srv/x"),
        ("network", f"<source protocol='nfs' name='/srv/x'>{HOST}</source>", "nfs://h/srv/x"),
        ("network", f"<source protocol='ftp' name='x'>{HOST}</source>", "ftp://h:21/x"),
        (
            "network",
            "<source protocol='gluster' name='gv0/x'><host name='a'/><host transport='unix' socket='/r/g'/>"
            "<host name='b' transport='rdma'/></source>",
            "gluster://a:24007,unix+%2Fr%2Fg,rdma+b:24007/gv0/x",
        ),
    ],
)
def test_the_uri_of_each_form(kind: str, xml: str, uri: str) -> None:
    image = source(kind, xml)
    assert image.uri == uri
    assert image.is_called(uri)


@pytest.mark.parametrize(
    "typed",
    [
        "gluster://VM/gv0//a",
        "gluster://vm.:24007/gv0/./a",
        "gluster://vm/gv0/%61",
    ],
)
def test_people_may_spell_it_as_they_like(typed: str) -> None:
    assert source("network", "<source protocol='gluster' name='gv0/a'><host name='vm'/></source>").is_called(
        typed
    )


def test_no_secret_is_in_what_people_read() -> None:
    """Not the user, not the secret's name, no cookie and no query: a signed query opens the image."""
    image = source(
        "network",
        "<source protocol='https' name='x' query='X-Amz-Signature=s3cret'><host name='h'/>"
        "<auth username='s3cret'><secret type='iscsi' usage='s3cret'/></auth>"
        "<cookies><cookie name='c'>s3cret</cookie></cookies></source>",
    )
    other = source("vhostuser", "<source type='unix' path='/s3cret'/>")
    assert "s3cret" not in image.uri + other.uri + other.leaf


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "images/a",
        "file:///images/a",
        "nbd://user:s3cret@h/e",
        "http://h/x?token=s3cret",
        "nbd+unix:///e",
        "nbd+unix:///e?socket=/s&x=1",
        "nbd+unix://h/e?socket=/s",
        "rbd://h/p/i#s",
        "volume:p",
        "nbd://h/a%00b",
        "/a\x00b",
        "nbd://h:99999999/e",
    ],
)
def test_what_names_no_image_is_refused_without_repeating_it(typed: str) -> None:
    with pytest.raises(NotAnImage) as caught:
        Source.from_uri(typed)
    assert "s3cret" not in str(caught.value)
    assert not Source.file("/images/a").is_called(typed)
