"""The persistent definition as a whole: read with its secrets and replaced, for changes that no other call
makes. Both functions block and run on a thread of the connection."""

from __future__ import annotations

import libvirt

from controller.hypervisor.errors import Busy, Unsupported


def read(connection: libvirt.virConnect, uuid: str) -> str:
    """The persistent XML as libvirt needs it back: a graphics password is in it, so it is never shown."""
    domain = connection.lookupByUUIDString(uuid)
    if not domain.isPersistent():
        raise Unsupported(f"domain {uuid} is transient: it has no persistent definition")
    return _whole(domain)


def replace(connection: libvirt.virConnect, uuid: str, xml: str, *, replacing: str) -> None:
    """Define the domain as ``xml`` if its definition still reads ``replacing``.

    The document carries the UUID, so it cannot become another domain's. Raises Busy when somebody was faster.
    """
    domain = connection.lookupByUUIDString(uuid)
    if not domain.isPersistent() or _whole(domain) != replacing:
        raise Busy(f"the definition of domain {uuid} was changed meanwhile")
    try:
        connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_XML_INVALID_SCHEMA:
            raise
        # The definition was accepted once without this check; what was added to it is libvirt's own.
        connection.defineXML(xml)


def _whole(domain: libvirt.virDomain) -> str:
    flags = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE
    return str(domain.XMLDesc(flags))
