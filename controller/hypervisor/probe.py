"""What a daemon can do, found by asking it harmlessly.

A flag of a libvirt call is probed by making the call on a disk that does not exist: a known flag gets as far
as "disk not found", an unknown one is refused before anything else as "unsupported flags" (measured on
libvirt 9.0: both are code 8, so the words decide). Any domain serves; without one such capabilities are
unknown and absent, and asking again later finds them. Blocks; runs on a thread of the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import libvirt
from lxml import etree

from controller.hypervisor.driver import Facts

_NO_DISK = "__probe__"
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)

_FLAGS: dict[str, Callable[[libvirt.virDomain], object]] = {
    "commit-relative": lambda domain: domain.blockCommit(
        _NO_DISK, None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_RELATIVE
    ),
    "commit-active": lambda domain: domain.blockCommit(
        _NO_DISK, None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
    ),
    # RELATIVE needs a base; without one libvirt stops at that and not at the flag.
    "rebase-relative": lambda domain: domain.blockRebase(
        _NO_DISK, _NO_DISK, 0, libvirt.VIR_DOMAIN_BLOCK_REBASE_RELATIVE
    ),
    # Not a <domainsnapshot>: refused as such once the flags were accepted.
    "snapshot-quiesce": lambda domain: domain.snapshotCreateXML(
        "<probe/>",
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE,
    ),
}
_PASSED_THE_FLAGS = {
    libvirt.VIR_ERR_INVALID_ARG,  # no such disk
    libvirt.VIR_ERR_OPERATION_INVALID,  # the domain does not run
    libvirt.VIR_ERR_XML_ERROR,
    libvirt.VIR_ERR_XML_DETAIL,
}


def probe(connection: libvirt.virConnect) -> Facts:
    """Ask for versions, host name and capabilities."""
    flags = _flags(connection)
    return Facts(
        libvirt_version=version(connection.getLibVersion()),
        qemu_version=version(connection.getVersion()),
        hostname=connection.getHostname(),
        capabilities=frozenset(
            [*(flags or ()), *_domain_capabilities(connection), *_storage_capabilities(connection)]
        ),
        flags_asked=flags is not None,
    )


def version(number: int) -> str:
    """libvirt's 1,000,000 × major + 1,000 × minor + release as text."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _flags(connection: libvirt.virConnect) -> list[str] | None:
    """The flags that the daemon knows; None when there is no domain to ask with. One that does not run has
    no QEMU that could keep its lock."""
    for domain in sorted(connection.listAllDomains(0), key=lambda domain: bool(domain.ID() != -1)):
        try:
            if not is_free(domain):
                continue
            return [name for name, ask in _FLAGS.items() if _knows(domain, ask)]
        except libvirt.libvirtError as error:
            if error.get_error_code() not in {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_TIMEOUT}:
                raise
            # Gone meanwhile, or locked by a job that it does not tell of (a migration): unknown.
    return None


def is_free(domain: libvirt.virDomain) -> bool:
    """Whether a call on the domain would be answered at once. One whose QEMU hangs keeps its lock: each
    question would wait 30 s for it. This one needs no lock (measured on 9.0 and 11.3)."""
    try:
        return bool(domain.controlInfo()[0] == libvirt.VIR_DOMAIN_CONTROL_OK)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
            return True  # it does not run
        raise


def _knows(domain: libvirt.virDomain, ask: Callable[[libvirt.virDomain], object]) -> bool:
    try:
        ask(domain)
    except libvirt.libvirtError as error:
        if error.get_error_code() in {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_TIMEOUT}:
            raise
        return "unsupported flags" not in str(error) and error.get_error_code() in _PASSED_THE_FLAGS
    return False


def _domain_capabilities(connection: libvirt.virConnect) -> Iterator[str]:
    try:
        xml = connection.getDomainCapabilities(None, None, None, None, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() in {libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_INVALID_ARG}:
            return  # no emulator for the host's own architecture: nothing is known
        raise
    root = etree.fromstring(xml.encode(), _PARSER)
    if root.find("features/backingStoreInput[@supported='yes']") is not None:
        yield "backing-store-input"


def _storage_capabilities(connection: libvirt.virConnect) -> Iterator[str]:
    try:
        xml = connection.getStoragePoolCapabilities(0)
    except libvirt.libvirtError as error:
        # A daemon without any storage driver says NO_SUPPORT; virtqemud that finds no virtstoraged passes on
        # an error of the line to that one, while the line to itself is well.
        of_the_line = error.get_error_domain() == libvirt.VIR_FROM_RPC
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT or (of_the_line and connection.isAlive()):
            return
        raise
    root = etree.fromstring(xml.encode(), _PARSER)
    for pool in root.iterfind("pool[@supported='yes']"):
        yield f"storage-{pool.get('type')}"
