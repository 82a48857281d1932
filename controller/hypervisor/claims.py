"""Who has a claim to an image: before one that was made beforehand is written over, nobody may have; and
before one on the network is merged into or removed, nobody on another hypervisor may."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from controller.chain.disk import Disk, DomainDefinition, Layer
from controller.chain.journal_codec import JournalError, decode
from controller.chain.mentions import mentions
from controller.chain.observation import Observation
from controller.chain.parse import parse_domain
from controller.chain.source import Source
from controller.chain.source_uri import NotAnImage
from controller.chain.upkeep import is_leftover

_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
"""Characters that neither XML nor a URI writes in another way."""


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
    """All claims in the definitions of this hypervisor and of others (by name): those of disks and records,
    and whatever else a definition names.

    A record that cannot be read claims nothing: the machine's definition is what is left. Raises ParseError.
    """
    return (
        *(claim for document in here for claim in _all_claims(document, "")),
        *(
            claim
            for hypervisor, documents in elsewhere.items()
            for document in documents
            for claim in _all_claims(document, f" on Hypervisor {hypervisor}")
        ),
    )


def network_images(observation: Observation) -> tuple[Source, ...]:
    """Images on the network in the chains and records of the disks that varve cares for, and beside them:
    those that it may write to or remove, or takes for unused, and machines of other hypervisors may read."""
    found: dict[str, Source] = {}
    for record in observation.journal.disks:
        facts = observation.disks.get(record.target)
        chains = (facts.live, facts.inactive) if facts is not None else ()
        layers = [layer for chain in chains if chain is not None for layer in chain.layers]
        sources = [layer.source for layer in (*layers, *record.layers)]
        for source in (*sources, *unused_images(observation, record.target)):
            if source.type == "network":
                found[source.key] = source
    return tuple(found.values())


def unused_images(observation: Observation, target: str) -> tuple[Source, ...]:
    """Images beside this disk's chain that are taken for nobody's: leftovers of the disk itself, and what
    people say is not in use. Whether that is true the definitions tell."""
    removals = observation.journal.disk(target).removals
    left = [removal.layer.source for removal in removals if is_leftover(removal)]
    for text in observation.not_in_use.get(target, ()):
        with contextlib.suppress(NotAnImage):  # then it is nobody's name
            left.append(Source.from_uri(text))
    return tuple(left)


def users_elsewhere(
    elsewhere: Mapping[str, Iterable[str]], images: Iterable[Source], observation: Observation
) -> dict[str, str]:
    """Who uses one of ``images`` on another hypervisor: its footprint to a phrase for people.

    ``elsewhere`` are all definitions there, by the hypervisor's name. A definition of the observed machine
    itself, as a migration leaves one behind, is nobody else's as long as it names nothing that the machine
    does not have here. Raises ParseError.
    """
    images = tuple(images)
    wanted = {name: image.footprint for image in images for name in (image.key, image.footprint)}
    words = {_word(image) for image in images}
    own = _own_names(observation)
    users: dict[str, str] = {}
    for hypervisor, documents in elsewhere.items():
        for document in documents:
            if not any(word in document for word in words):
                continue  # parsing takes a millisecond, and there may be thousands
            definition, where = parse_domain(document), f" on Hypervisor {hypervisor}"
            found = tuple(_claims(definition, where))
            named = {claim.name for claim in found if not claim.recorded}
            if definition.uuid == observation.uuid and named <= own:
                continue
            for claim in (*found, *_mentioned(document, definition, where)):
                if claim.name in wanted:
                    users.setdefault(wanted[claim.name], claim.user)
    return users


def _word(image: Source) -> str:
    """What stands in every document that names the image, however it is spelled: the last part of its name,
    unless that may be left out (a LUN) or written in other characters."""
    return image.leaf if image.protocol != "iscsi" and _PLAIN.fullmatch(image.leaf) else ""


def _own_names(observation: Observation) -> set[str]:
    """All names of images that the machine has here."""
    names: set[str] = set()
    for facts in observation.disks.values():
        for chain in (facts.live, facts.inactive):
            if chain is not None:
                names |= {*_names(chain.layers), *_mirrored(chain)}
    for record in observation.journal.disks:
        names |= {*record.keys, *_names(record.layers)}
    return names


def _all_claims(document: str, where: str) -> Iterator[Claim]:
    """Claims of disks and records first, so that they are what people are told."""
    definition = parse_domain(document)
    yield from _claims(definition, where)
    yield from _mentioned(document, definition, where)


def _mentioned(document: str, definition: DomainDefinition, where: str) -> Iterator[Claim]:
    user = f"the definition of {definition.name}{where}"
    for name in mentions(document):
        yield Claim(name, definition.uuid, "", user, recorded=False)


def _claims(definition: DomainDefinition, where: str) -> Iterator[Claim]:
    for disk in definition.disks:
        user = f"disk {disk.target} of {definition.name}{where}"
        for name in {*_names(disk.layers), *_mirrored(disk)}:
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
        yield from layer.source.footprints


def _mirrored(disk: Disk) -> Iterator[str]:
    if disk.mirror is not None:
        yield disk.mirror.source_key
        if disk.mirror.footprint:
            yield disk.mirror.footprint
