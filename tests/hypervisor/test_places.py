"""Where images lie: what can be listed there, and what is said where nothing can."""

from __future__ import annotations

import pytest
from lxml import etree

from controller.chain.source import Host, Source
from controller.hypervisor.errors import NotListable, NotRemovable
from controller.hypervisor.places import Directory, neighbourhood_of, removable_from

MONITORS = [Host("mon-a", "6789"), Host("mon-b")]
RDMA = Source.from_element(
    "network",
    etree.fromstring("<source protocol='gluster' name='gv0/a'><host name='a' transport='rdma'/></source>"),
)


def test_b19_the_command_for_an_image_in_a_namespace_of_ceph() -> None:
    """B19: complete, and safe to be copied into a shell."""
    with pytest.raises(NotRemovable, match="namespace") as caught:
        removable_from(Source.network("rbd", "vms/team a/web-1", MONITORS))
    assert caught.value.message.endswith(
        "by hand: rbd rm --pool vms --namespace 'team a' --image web-1 -m mon-a:6789,mon-b"
    )


def test_b16_what_has_no_neighbours_and_what_hides_them() -> None:
    """B16: nothing lies beside an export; beside an image on gluster something may."""
    for source in (
        Source.network("nbd", "export", [Host("a")]),
        Source.network("iscsi", "iqn.2024-01.lv:t1/1", [Host("a")]),
        Source.from_element("block", etree.Element("source", dev="/dev/vg/lv")),
        Source.network("rbd", "vms/web-1", MONITORS),
        Source.network("rbd", "vms/team/web-1", MONITORS),
    ):
        assert neighbourhood_of(source) is None
    assert neighbourhood_of(Source.file("/images/a")) == Directory("/images")
    with pytest.raises(NotListable, match="over tcp only"):
        neighbourhood_of(RDMA)


@pytest.mark.parametrize(
    ("words", "called"),
    [
        ("base", True),
        ("./base", True),
        ("/images/base", True),
        ("/images/sub/../base", True),
        ("file:/images/base", True),
        ("file:base", True),
        ("file:///images/base", True),
        ('json:{"driver":"qcow2","file":{"driver":"file","filename":"/images/base"}}', True),
        (
            'json:{"driver":"raw","file":{"driver":"raw","file":{"driver":"file","filename":"/images/base"}}}',
            True,
        ),
        ('json:{"driver":"new","path":"/images/base"}', True),
        ("fat:/images/base", True),
        ("/images/base2", False),
        ("/other/base", False),
        ("nbd://host:1/base", False),
        ('json:{"driver":"qcow2","file":{"driver":"file","filename":"/images/database"}}', False),
        ('json:{"driver":"new","path":"/images/database"}', False),
        ("/images/bas\\xe9", False),
    ],
)
def test_b16_a_header_is_understood_or_taken_for_what_it_may_mean(words: str, called: bool) -> None:
    """B16: words that are not known here, and have the name of the image in them, may mean it."""
    assert Directory("/images").is_called(words, Source.file("/images/base")) == called
