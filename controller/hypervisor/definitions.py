"""The definitions of all machines of a hypervisor, of which one may not answer.

libvirt 11.0 to 11.4 reads a definition under the machine's job lock, the persistent one as well (measured on
11.3: 30 s, then an error), so one that hangs or migrates in would hold up everybody who must know who else
uses an image. Nothing here goes by versions: whoever does not answer in time is left out and asked again
aside, and what it last said counts meanwhile, unless an event has told since that it may be different.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import libvirt

from controller.hypervisor import reading
from controller.hypervisor.driver import (
    Definitions,
    DeviceChanged,
    JobChanged,
    JobStatus,
    Lifecycle,
    LifecycleKind,
)
from controller.hypervisor.errors import Busy, DomainGone, HypervisorError
from controller.hypervisor.events import RawEvent
from controller.hypervisor.threads import Progress

KEY = "definitions"
"""What a sweep is about while it is about no single machine."""

_MOST_WAITS = 3
"""For so many machines a sweep waits. Each keeps one of few threads; the rest is asked aside."""

_OTHERWISE = {
    LifecycleKind.DEFINED,
    LifecycleKind.UNDEFINED,
    LifecycleKind.STARTED,
    LifecycleKind.STOPPED,
}
"""After these a machine may name other images than before."""


_Documents = tuple[str, ...]


class Ask(Protocol):
    """One call on a thread of the connection, which is given up when a machine does not answer in time."""

    async def __call__(
        self,
        what: str,
        function: Callable[[libvirt.virConnect], _Documents | None],
        *,
        key: str,
        progress: Progress | None = None,
    ) -> _Documents | None: ...


@dataclass(eq=False)
class _Sweep(Progress):
    """Asks one machine after the other, on a thread of the connection."""

    key: str = KEY
    what: str = "reading every domain"
    skipped: frozenset[str] = frozenset()
    wary: bool = False
    """Whether a machine that is known to be busy is left out, because another one kept its answer back."""
    names: dict[str, str] = field(default_factory=dict)
    found: dict[str, _Documents] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def __call__(self, connection: libvirt.virConnect) -> None:
        domains = connection.listAllDomains(0)
        self.names = {domain.UUIDString(): domain.name() for domain in domains}
        for domain in domains:
            uuid = domain.UUIDString()
            if uuid in self.skipped or uuid in self.found or uuid in self.failed:
                continue
            self.at(uuid, f"reading the definition of {domain.name()}")
            documents = self._ask(connection, domain)
            if self.given_up:
                return
            if documents is None:
                self.failed.add(uuid)
            else:
                self.found[uuid] = documents

    def _ask(self, connection: libvirt.virConnect, domain: libvirt.virDomain) -> _Documents | None:
        try:
            if self.wary and not reading.would_answer(domain):
                return None
            return tuple(reading.definitions_of(domain))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return ()
            if not connection.isAlive():
                raise
            return None

    def rest(self) -> _Sweep:
        """Goes on without the machine that this one came to."""
        return _Sweep(
            skipped=self.skipped | {self.key},
            wary=True,
            names=self.names,
            found=dict(self.found),
            failed=set(self.failed),
        )


@dataclass(frozen=True)
class _Kept:
    """What a machine last said; packed, because there may be thousands and hardly one is ever needed."""

    digest: int
    packed: bytes

    @classmethod
    def of(cls, documents: _Documents, before: _Kept | None) -> _Kept:
        digest = hash(documents)
        if before is not None and before.digest == digest:
            return before
        return cls(digest, zlib.compress("\0".join(documents).encode(), 1))

    @property
    def documents(self) -> _Documents:
        return tuple(zlib.decompress(self.packed).decode().split("\0"))


class DefinitionReader:
    """Use from one event loop only; one for each connection, whose events it must be told."""

    def __init__(self, ask: Ask, *, hangs: Callable[[str], bool], answered: Callable[[str], object]) -> None:
        """``hangs``: whether a call about the machine (UUID) has no answer. ``answered`` is told of each
        machine that answers again."""
        self._ask, self._hangs, self._answered = ask, hangs, answered
        self._lock = asyncio.Lock()
        self._due: asyncio.Task[Definitions] | None = None
        """A sweep that has not begun."""
        self._aside: asyncio.Task[None] | None = None
        self._late: set[str] = set()
        self._kept: dict[str, _Kept] = {}
        self._changes: Counter[str] = Counter()

    async def read(self) -> Definitions:
        """Read what all machines name, by a sweep that begins after this call: all who wait share it."""
        if self._due is None:
            self._due = asyncio.get_running_loop().create_task(self._begin())
            # A failure when all who waited were cancelled has no reader: mark it as seen.
            self._due.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._due)

    def saw(self, event: RawEvent) -> None:
        """Forget what the event may have changed."""
        match event:
            case Lifecycle(uuid=uuid, kind=kind) if kind in _OTHERWISE:
                self._changes[uuid] += 1
                self._kept.pop(uuid, None)
            case DeviceChanged(uuid=uuid) | JobChanged(uuid=uuid, status=JobStatus.COMPLETED):
                self._changes[uuid] += 1
                self._kept.pop(uuid, None)

    def close(self) -> None:
        """Ask nobody aside any more. A sweep is not cancelled, or those who wait for it would be cancelled as
        well: it meets the end of the connection, and they are told."""
        if self._aside is not None:
            self._aside.cancel()

    async def _begin(self) -> Definitions:
        async with self._lock:
            self._due = None  # whoever asks from now on needs the next one
            before = Counter(self._changes)
            sweep = _Sweep(skipped=frozenset(self._late))
            for _ in range(_MOST_WAITS):
                if await self._swept(sweep):
                    break
                self._late.add(sweep.key)
                sweep = sweep.rest()
            else:
                sweep.failed |= sweep.names.keys() - sweep.found.keys()
            self._late |= sweep.failed
            for uuid, documents in sweep.found.items():
                self._keep(uuid, documents, before)
            for uuid in {*self._kept, *self._changes, *self._late} - sweep.names.keys():
                self._forget(uuid)
            self._look_aside()
            return self._told(sweep)

    async def _swept(self, sweep: _Sweep) -> bool:
        """Whether the sweep came to its end; False when a machine kept it."""
        try:
            await self._ask(sweep.what, sweep, key=KEY, progress=sweep)
        except Busy:
            if not sweep.given_up or sweep.key == KEY:
                raise
            return False
        return True

    def _told(self, sweep: _Sweep) -> Definitions:
        documents = [document for found in sweep.found.values() for document in found]
        unread = {}
        # Not those that are late by now: one may have answered aside since the sweep left it out.
        for uuid in sweep.names.keys() - sweep.found.keys():
            kept = self._kept.get(uuid)
            if kept is None:
                unread[uuid] = sweep.names[uuid]
            else:
                documents += kept.documents
        return Definitions(tuple(documents), unread)

    def _keep(self, uuid: str, documents: _Documents, before: Counter[str]) -> None:
        if documents and self._changes[uuid] == before[uuid]:
            self._kept[uuid] = _Kept.of(documents, self._kept.get(uuid))

    def _forget(self, uuid: str) -> None:
        self._kept.pop(uuid, None)
        self._changes.pop(uuid, None)
        self._late.discard(uuid)

    # Those that do not answer -------------------------------------------------------------------------

    def _look_aside(self) -> None:
        if self._late and (self._aside is None or self._aside.done()):
            self._aside = asyncio.get_running_loop().create_task(self._ask_again())

    async def _ask_again(self) -> None:
        """Ask those that were late, one after the other, until one is late again: of the few threads that
        there are, at most one waits for them."""
        for uuid in tuple(self._late):
            if self._hangs(uuid):
                continue
            before = Counter(self._changes)
            try:
                documents = await self._ask(f"reading domain {uuid}", partial(_of_one, uuid=uuid), key=uuid)
            except DomainGone:
                self._forget(uuid)
                continue
            except HypervisorError:
                if self._hangs(uuid):
                    return
                continue
            self._keep(uuid, documents or (), before)
            self._late.discard(uuid)
            self._answered(uuid)


def _of_one(connection: libvirt.virConnect, uuid: str) -> _Documents:
    domain = connection.lookupByUUIDString(uuid)
    if not reading.would_answer(domain):
        raise Busy(f"domain {uuid} is busy with another call, or arrives by a migration")
    return tuple(reading.definitions_of(domain))
