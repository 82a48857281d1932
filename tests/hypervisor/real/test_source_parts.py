"""B18 and A5 on real parts: what libvirt makes of the parts of a source that an overlay inherits."""

from __future__ import annotations

import pytest
from lxml import etree

from controller.chain.source import Source
from controller.chain.source_parts import CHILDREN, Of
from controller.hypervisor import errors
from tests.chain.test_source_parts import CHILD
from tests.hypervisor.real.subject import Subject

pytestmark = pytest.mark.real

LABELLED = '<seclabel model="dac" relabel="no"/>'


def with_part(overlay: Source, part: str) -> Source:
    """The overlay with one more attribute (``@name``) or child of its source."""
    element = overlay.element()
    if part.startswith("@"):
        element.set(part[1:], "handed-in")
    else:
        element.append(etree.fromstring(CHILD[part]))
    return Source.from_element(overlay.type, element)


@pytest.mark.parametrize("part", ["@fdgroup", "slices", "encryption", "reservations"])
async def test_an_overlay_that_inherits_these_is_refused(subject: Subject, part: str) -> None:
    overlay = subject.overlay((await subject.layers())[0].source)
    before = await subject.keys()
    with pytest.raises(errors.HypervisorError):
        await subject.driver.create_snapshot(subject.uuid, subject.snapshot_xml(with_part(overlay, part)))
    assert await subject.keys() == before


async def test_a_label_would_be_inherited(subject: Subject) -> None:
    """libvirt keeps it and labels the new file not at all, which a QEMU without root cannot open then."""
    overlay = subject.overlay((await subject.layers())[0].source)
    await subject.driver.create_snapshot(subject.uuid, subject.snapshot_xml(with_part(overlay, "seclabel")))
    assert LABELLED in (await subject.layers())[0].source.xml


@pytest.mark.parametrize("part", [tag for tag, of in CHILDREN.items() if of is Of.SERVER and tag != "auth"])
async def test_what_is_of_a_server_does_no_harm_to_a_file(subject: Subject, part: str) -> None:
    overlay = subject.overlay((await subject.layers())[0].source)
    await subject.driver.create_snapshot(subject.uuid, subject.snapshot_xml(with_part(overlay, part)))
    assert (await subject.layers())[0].source == overlay


async def test_a_disk_with_a_label_has_points_and_keeps_it(subject: Subject) -> None:
    """B18: libvirt labels the overlay as it would any image, and the frozen layer stays as somebody wants."""
    domain, connection = subject.machine.domain, subject.machine.domain.connect()
    domain.destroy()
    root = etree.fromstring(domain.XMLDesc(0))
    source = root.find("devices/disk/source")
    assert source is not None
    source.append(etree.fromstring(LABELLED))
    source.set("startupPolicy", "optional")
    connection.defineXML(etree.tostring(root, encoding="unicode"))
    domain.create()
    (base,) = await subject.layers()
    assert LABELLED in base.source.xml
    overlay = await subject.take()
    top, below = await subject.layers()
    assert top.key == overlay.key
    assert top.source.element().find("seclabel") is None
    assert below.key == base.key
    assert LABELLED in below.source.xml
