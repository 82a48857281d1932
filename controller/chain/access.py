"""How to get in at a server: copied from an image of the disk to another image on the same server.

A VolumeSnapshot names places, never credentials. What a server asks for (TLS, a reference to a libvirt
secret, an initiator's name) is known to the disk that is there already, so a new image on the same server
gets it from there. What belongs to one image and not to its server (slices, encryption, a snapshot's name)
is left behind.
"""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from controller.chain.source import Source
from controller.chain.source_parts import ATTRIBUTES, CHILDREN, Of

_ATTRIBUTES = tuple(name for name, of in ATTRIBUTES.items() if of is Of.SERVER and name != "protocol")
_ELEMENTS = tuple(name for name, of in CHILDREN.items() if of is Of.SERVER and name != "host")


def with_access(target: Source, known: Iterable[Source]) -> Source:
    """``target`` with what its server asks for, taken from the first of ``known`` on the same server.

    The same server: the same protocol and a host of the same name (one with the same port is preferred:
    TLS is an export's own matter). An rbd target without hosts is on the first Ceph cluster that is known. A
    target that is not on the network, or on a server of which nothing is known, is returned as it is.
    """
    model = model_of(target, known)
    return target if model is None else _combined(target, model)


def model_of(target: Source, known: Iterable[Source]) -> Source | None:
    """The one of ``known`` whose way in :func:`with_access` takes."""
    if target.type != "network":
        return None
    candidates = [source for source in known if source.protocol == target.protocol]
    if not target.hosts:
        return candidates[0] if candidates and target.protocol == "rbd" else None
    addresses = {host.identity(target.protocol) for host in target.hosts}
    names = {host.name.lower() for host in target.hosts if host.name}
    exact = [s for s in candidates if addresses & {host.identity(s.protocol) for host in s.hosts}]
    near = [s for s in candidates if names & {host.name.lower() for host in s.hosts}]
    return next(iter([*exact, *near]), None)


def at_servers_of(source: Source, model: Source) -> Source:
    """``source`` reached as ``model`` is, an image of the same protocol: its servers, and its way in."""
    element = source.element()
    for name in [str(name) for name in element.attrib if str(name) in _ATTRIBUTES]:
        del element.attrib[name]
    for child in [child for child in element if child.tag in {"host", *_ELEMENTS}]:
        element.remove(child)
    for host in model.element().findall("host"):
        element.append(_copy(host))
    return _combined(Source.from_element(source.type, element), model)


def _combined(target: Source, model: Source) -> Source:
    element, known = target.element(), model.element()
    for attribute in _ATTRIBUTES:
        value = known.get(attribute)
        if value is not None and element.get(attribute) is None:
            element.set(attribute, value)
    if not target.hosts:
        for host in known.findall("host"):
            element.append(_copy(host))
    for tag in _ELEMENTS:
        if element.find(tag) is None:
            for found in known.findall(tag):
                element.append(_copy(found))
    return Source.from_element(target.type, element)


def _copy(element: etree._Element) -> etree._Element:
    return etree.fromstring(etree.tostring(element, with_tail=False))
