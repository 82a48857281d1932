"""Images beside a chain whose headers name a layer of it: users of that layer, unless it is known that nobody
uses them.

A header alone does not say whether its image is in use: a machine that is shut off, or defined nowhere just
now, may start from it. Two kinds are known to be nobody's: leftovers of this very disk (the journal has them,
and what they held is in other images), and what people list in ``spec.notInUse`` of the VolumeChain. Both
count as users again as soon as a definition names them, or another image stands on them that is not known to
be unused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.chain.observation import Observation
from controller.chain.source import Source
from controller.chain.upkeep import is_leftover
from controller.hypervisor.driver import Driver

_MOST_NAMED = 8

WAYS_OUT = (
    "remove each of these that nobody needs, or list it in spec.notInUse of the disk's VolumeChain (merges "
    "by hand leave such images)"
)


@dataclass(frozen=True)
class Referrers:
    """What names the images in question, as people write it."""

    users: Mapping[str, str]
    """With what is known of who uses them, or nothing."""
    leftovers: tuple[str, ...] = ()
    """Images of ours that left the chains of this domain's disks. Nobody uses them."""
    cut_off: bool = False
    """All users are images that snapshot calls of ours named which were cut off. They are looked into, and
    go, when the machine that may have them open has been stopped."""

    @property
    def named(self) -> str:
        """The users, for a message."""
        shown = [f"{name} ({user})" if user else name for name, user in sorted(self.users.items())]
        more = len(shown) - _MOST_NAMED
        return ", ".join(shown[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")

    def objection(self, source: Source) -> str:
        """Why nothing is written to ``source``, or to what is read through it."""
        if self.cut_off:
            return (
                f"{source.uri}, or what would be merged into it, is also the backing image of "
                f"{', '.join(sorted(self.users))}, left by a snapshot call that was cut off: the running "
                f"machine may have that open. Shut the machine down and start it; then it is removed, and "
                f"this goes on"
            )
        return (
            f"{source.uri}, or what would be merged into it, is also the backing image of another image, "
            f"which would change with it: let an administrator look who that is (events of the Hypervisor)"
        )


@dataclass(frozen=True)
class Bystanders:
    """For one domain, as it was observed with who else uses its images."""

    driver: Driver
    observation: Observation

    async def referrers(self, sources: Iterable[Source]) -> Referrers:
        """Who names these images by a header, the chains of the domain itself left out."""
        found = await self._naming(sources)
        own = self._own
        others = {at: source for at, source in found.items() if at not in own}
        unused = await self._unused(others)
        users = {
            at if source is None else source.uri: self._user(source)
            for at, source in others.items()
            if at not in unused
        }
        left = sorted(source.uri for source in unused.values() if not self._is_listed(source))
        using = [source for at, source in others.items() if at not in unused]
        cut_off = all(source is not None and source.footprint in self._cut_off for source in using)
        return Referrers(users, tuple(left), cut_off=bool(using) and cut_off)

    async def _naming(self, sources: Iterable[Source]) -> dict[str, Source | None]:
        """By location, the images whose headers name one of ``sources``."""
        wanted = list(sources)
        answers = await asyncio.gather(*(self.driver.referrers(source) for source in wanted))
        return {
            name: _neighbour(source, name)
            for source, names in zip(wanted, answers, strict=True)
            for name in names
        }

    async def _unused(self, found: Mapping[str, Source | None]) -> dict[str, Source]:
        """Those that nobody uses: no definition names them, and what stands on them is unused as well."""
        standing: dict[str, set[str]] = {}
        known: dict[str, Source] = {}
        level = dict(found)
        while level:
            level_known = {at: s for at, s in level.items() if s is not None and self._may_be_unused(s)}
            known |= level_known
            answers = await asyncio.gather(*(self._naming([source]) for source in level_known.values()))
            level = {}
            for at, above in zip(level_known, answers, strict=True):
                standing[at] = set(above)
                level |= {name: source for name, source in above.items() if name not in known}
        used = {at for at, above in standing.items() if above - known.keys()}
        while more := {at for at, above in standing.items() if above & used} - used:
            used |= more
        return {at: source for at, source in known.items() if at in found and at not in used}

    def _may_be_unused(self, source: Source) -> bool:
        if self._user(source):
            return False
        return self._is_listed(source) or source.footprint in self._leftovers

    def _is_listed(self, source: Source) -> bool:
        lists = self.observation.not_in_use.values()
        return any(source.is_called(text) for texts in lists for text in texts)

    def _user(self, source: Source | None) -> str:
        """What is known, besides headers, of who uses the image, for people; empty for nobody."""
        if source is None:
            return ""
        seen, elsewhere = self.observation, self.observation.in_use_elsewhere
        named = sorted(source.footprints & elsewhere.keys()) if elsewhere is not None else []
        away = ", ".join((*seen.unread, *(seen.unasked if source.type == "network" else ())))
        own = [
            facts.target
            for facts in seen.disks.values()
            for chain in (facts.live, facts.inactive)
            if chain is not None and source.footprints & chain.footprints
        ]
        if own:
            return f"used by disk {own[0]} of {seen.name}"
        if elsewhere is not None and named:
            return f"used by {elsewhere[named[0]]}"
        if elsewhere is None or away:
            return f"perhaps in use by {away}, which does not tell now" if away else "perhaps in use"
        return ""

    @property
    def _leftovers(self) -> frozenset[str]:
        records = self.observation.journal.disks
        removals = (removal for record in records for removal in record.removals if is_leftover(removal))
        return frozenset(removal.layer.source.footprint for removal in removals)

    @property
    def _cut_off(self) -> frozenset[str]:
        records = self.observation.journal.disks
        removals = (removal for record in records for removal in record.removals)
        return frozenset(one.layer.source.footprint for one in removals if one.attempted and not one.left)

    @property
    def _own(self) -> frozenset[str]:
        chains = (disk.chain for disk in self.observation.disks.values())
        return frozenset(layer.source.location for chain in chains if chain for layer in chain.layers)


def _neighbour(source: Source, name: str) -> Source | None:
    """The image called ``name`` beside ``source``, whose header libvirt has read."""
    leaf = name.rpartition("/")[2]
    found = source.beside(leaf) if leaf not in {"", ".", ".."} else None
    return found if found is not None and found.location == name else None
