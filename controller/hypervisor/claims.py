"""Who has a claim to an image: before one that was made beforehand is written over, nobody may have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from controller.chain.disk import DomainDefinition, Layer
from controller.chain.journal_codec import JournalError, decode
from controller.chain.parse import parse_domain


@dataclass(frozen=True)
class Claim:
    """One disk that names an image, in its definition or in varve's record of it."""

    name: str
    """Its identity or its footprint: a record has the one alone."""
    uuid: str
    target: str
    user: str
    """For people."""
    recorded: bool
    """By varve's record; False: by the definition."""


def claims(here: Iterable[str], elsewhere: Mapping[str, Iterable[str]]) -> tuple[Claim, ...]:
    """All claims in the definitions of this hypervisor and of others (by name).

    A record that cannot be read claims nothing: the machine's definition is what is left. Raises ParseError.
    """
    return (
        *(claim for document in here for claim in _claims(parse_domain(document), "")),
        *(
            claim
            for hypervisor, documents in elsewhere.items()
            for document in documents
            for claim in _claims(parse_domain(document), f" on Hypervisor {hypervisor}")
        ),
    )


def _claims(definition: DomainDefinition, where: str) -> Iterator[Claim]:
    for disk in definition.disks:
        user = f"disk {disk.target} of {definition.name}{where}"
        for name in {*_names(disk.layers), *((disk.mirror.source_key,) if disk.mirror else ())}:
            yield Claim(name, definition.uuid, disk.target, user, recorded=False)
    try:
        journal = decode(definition.journal_xml)
    except JournalError:
        return
    for record in journal.disks:
        user = f"varve's record of disk {record.target} of {definition.name}{where}"
        for name in {*record.keys, *_names(record.layers)}:
            yield Claim(name, definition.uuid, record.target, user, recorded=True)


def _names(layers: Iterable[Layer]) -> Iterator[str]:
    for layer in layers:
        yield layer.key
        yield layer.source.footprint
