"""Layers back into domain XML: the explicit ``<backingStore>`` chain below an active layer.

libvirt looks for no chain of its own below an image whose chain is written out, so what is written here is
what QEMU opens. An end that is not known is left open: then libvirt looks further, where it can.
"""

from __future__ import annotations

from collections.abc import Sequence

from lxml import etree

from controller.chain.disk import ChainEnd, Layer


def backing_store(below: Sequence[Layer], end: ChainEnd) -> etree._Element | None:
    """The ``<backingStore>`` of a disk with these layers below its active one, the upper first.

    None when nothing may be said: there is no layer, and whether there is one is not known. Indexes are
    QEMU's own and are not written.
    """
    terminator = etree.Element("backingStore") if end is ChainEnd.KNOWN else None
    element = terminator
    for layer in reversed(below):
        upper = etree.Element("backingStore", type=layer.source.type)
        if layer.format:
            etree.SubElement(upper, "format", type=layer.format)
        upper.append(layer.source.element())
        if element is not None:
            upper.append(element)
        element = upper
    return element
