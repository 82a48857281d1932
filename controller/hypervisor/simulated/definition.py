"""``virDomainDefineXML`` on a domain that exists, as far as varve uses it: other chains for its disks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from controller.chain.disk import ChainEnd, Disk
from controller.chain.parse import parse_domain
from controller.hypervisor.errors import OperationFailed
from controller.hypervisor.simulated.machine import DiskDefinition, Link, Machine


def disks_of(machine: Machine, xml: str) -> Iterator[DiskDefinition]:
    """The disks of the document. Raises OperationFailed when it is another domain's."""
    parsed = parse_domain(xml)
    known = machine.definition or {}
    if (parsed.uuid, parsed.name) != (machine.uuid, machine.name) or {d.target for d in parsed.disks} != set(
        known
    ):
        raise OperationFailed("the document is of another domain, or has other disks", code=9)
    for disk in parsed.disks:
        yield _changed(known[disk.target], disk)


def _changed(known: DiskDefinition, disk: Disk) -> DiskDefinition:
    chain = tuple(Link(layer.source, layer.format) for layer in disk.layers)
    written = disk.end is ChainEnd.KNOWN and bool(chain) and chain[-1].format != "raw"
    return replace(known, chain=chain, terminated=known.terminated or written)
