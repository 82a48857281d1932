"""What libvirt may write into a ``<source>``, and what of it goes over to a new image beside it.

Everything that its schema allows is listed, 9.0 to 11.5. A part that says how the *server* is reached is
taken over; one that is about the *image* itself is not: an overlay that inherits it is refused by libvirt or
cannot be opened by QEMU. What is not listed is not understood, and nothing is written above or into such an
image.
"""

from __future__ import annotations

from enum import StrEnum

from lxml import etree


class Of(StrEnum):
    """What a part of a ``<source>`` is about."""

    SERVER = "server"
    IMAGE = "image"


ATTRIBUTES: dict[str, Of] = {
    "protocol": Of.SERVER,
    "tls": Of.SERVER,
    "tlsHostname": Of.SERVER,
    "file": Of.IMAGE,
    "dev": Of.IMAGE,
    "dir": Of.IMAGE,
    "name": Of.IMAGE,
    "query": Of.IMAGE,
    "pool": Of.IMAGE,
    "volume": Of.IMAGE,
    "mode": Of.IMAGE,
    "type": Of.IMAGE,
    "namespace": Of.IMAGE,
    "managed": Of.IMAGE,
    "path": Of.IMAGE,
    "index": Of.IMAGE,
    "startupPolicy": Of.IMAGE,
    "fdgroup": Of.IMAGE,
}
"""``type``, ``namespace`` and ``managed`` are of NVMe; ``type`` and ``path`` of vhost-user. ``fdgroup`` names
open files that somebody handed to libvirtd. ``startupPolicy`` libvirt moves to the newest layer by itself."""

CHILDREN: dict[str, Of] = {
    "host": Of.SERVER,
    "auth": Of.SERVER,
    "config": Of.SERVER,
    "initiator": Of.SERVER,
    "ssl": Of.SERVER,
    "cookies": Of.SERVER,
    "readahead": Of.SERVER,
    "timeout": Of.SERVER,
    "reconnect": Of.SERVER,
    "identity": Of.SERVER,
    "knownHosts": Of.SERVER,
    "slices": Of.IMAGE,
    "encryption": Of.IMAGE,
    "reservations": Of.IMAGE,
    "snapshot": Of.IMAGE,
    "seclabel": Of.IMAGE,
    "dataStore": Of.IMAGE,
    "address": Of.IMAGE,
    "privateData": Of.IMAGE,
}
"""``seclabel`` with ``relabel='no'`` says that somebody has labelled this file; nobody labels a new one.
``dataStore`` (libvirt 10.10) is the file that holds the data of a qcow2 image. ``address`` is of NVMe."""


def take_over(element: etree._Element) -> None:
    """Leave in ``element``, a ``<source>``, what a new image on the same server needs as well."""
    for name in [name for name in element.attrib if ATTRIBUTES.get(str(name)) is not Of.SERVER]:
        del element.attrib[name]
    for child in [child for child in element if CHILDREN.get(str(child.tag)) is not Of.SERVER]:
        element.remove(child)


def not_understood(element: etree._Element) -> tuple[str, ...]:
    """What a ``<source>`` has that is not listed here: attributes as ``@name``, children as ``<name>``."""
    names = {str(name) for name in element.attrib} - ATTRIBUTES.keys()
    tags = {str(child.tag) for child in element.iterchildren(etree.Element)} - CHILDREN.keys()
    return (*(f"@{name}" for name in sorted(names)), *(f"<{tag}>" for tag in sorted(tags)))
