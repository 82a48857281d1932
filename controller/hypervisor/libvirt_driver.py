"""The port to a hypervisor over libvirt.

Every method is one hop to a thread of this driver (:mod:`controller.hypervisor.threads`), where the libvirt
calls are made one after the other and their errors translated.

libvirt objects never leave the thread that got them: dropping the last reference to one closes the
connection, which can hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial

import libvirt
from lxml import etree

from controller.chain.parse import JOURNAL_NAMESPACE
from controller.chain.prepared import Examined
from controller.chain.qcow2 import Inside
from controller.chain.source import Source
from controller.hypervisor import changing, definition, examine, monitor, places, probe, reading, storage
from controller.hypervisor.aliases import Aliases
from controller.hypervisor.calls import Calls
from controller.hypervisor.definitions import DefinitionReader
from controller.hypervisor.doorbell import doorbell
from controller.hypervisor.driver import (
    Answered,
    Definitions,
    DeviceChanged,
    DomainReading,
    DomainRef,
    Driver,
    EventSink,
    Facts,
    Opened,
    Pool,
    Removal,
    Running,
    Surroundings,
)
from controller.hypervisor.errors import HypervisorError, Unreachable
from controller.hypervisor.events import DeviceFailed, RawEvent
from controller.hypervisor.listings import Listings
from controller.hypervisor.reach import Reach, is_local
from controller.hypervisor.reach_progress import Use
from controller.hypervisor.threads import CONNECTION, Unanswered
from controller.hypervisor.timing import DEFAULT_TIMING, Timing

_log = logging.getLogger(__name__)

_PREFIX = "varve"
_LOST_FOR_GOOD = 600.0
"""Seconds after which an attempt to connect that got no answer no longer keeps another one from being made:
a machine that lost its power in mid-sentence never answers the old one."""


def connect_libvirt(uri: str, *, timing: Timing = DEFAULT_TIMING) -> LibvirtConnector:
    """A connector for ``uri``, which is opened as it is."""
    return LibvirtConnector(uri, timing)


class LibvirtConnector:
    """Opens connections to one daemon.

    What hangs is remembered over reconnections: while an attempt to connect or a call about the connection
    has no answer, the next attempt raises Unreachable without sending anything.
    """

    def __init__(self, uri: str, timing: Timing) -> None:
        self._uri, self._timing = uri, timing
        self._unanswered, self._reach = Unanswered(), Reach(local=is_local(uri))
        self.doorbell = doorbell(uri, hangs=lambda: bool(self._unanswered.calls(CONNECTION)))
        """Whether there is somebody to connect to; None when only an attempt can tell."""

    async def __call__(self, sink: EventSink) -> Driver:
        return await LibvirtDriver.open(
            self._uri, sink, unanswered=self._unanswered, reach=self._reach, timing=self._timing
        )


class LibvirtDriver:
    """:class:`controller.hypervisor.driver.Driver` for one libvirt daemon. Made by :meth:`open`."""

    def __init__(
        self, uri: str, sink: EventSink, unanswered: Unanswered, reach: Reach, timing: Timing
    ) -> None:
        self._uri = uri
        self._reach = reach
        self._sink = sink
        self._timing = timing
        self._loop = asyncio.get_running_loop()
        self._calls = Calls(uri, unanswered, timing, late=self._answered)
        self._ask, self._change, self._run = self._calls.ask, self._calls.change, self._calls.run
        self._aliases = Aliases(self._target, self._emit)
        self._listings = Listings(self._list)
        self._definitions = DefinitionReader(
            self._calls.definitions,
            hangs=lambda uuid: bool(unanswered.calls(uuid)),
            answered=lambda uuid: self._emit(Answered(uuid)),
        )

    @classmethod
    async def open(
        cls,
        uri: str,
        sink: EventSink,
        *,
        unanswered: Unanswered,
        reach: Reach,
        timing: Timing = DEFAULT_TIMING,
    ) -> LibvirtDriver:
        """Connect. Raises Unreachable, with what was wrong, after ``timing.connect`` seconds at most."""
        self = cls(uri, sink, unanswered, reach, timing)
        try:
            await self._calls.open(self._take, retry_after=_LOST_FOR_GOOD)
        except BaseException as error:
            self._calls.end()
            hanging = unanswered.calls(CONNECTION)
            if isinstance(error, Unreachable) and hanging:
                since = f"{hanging[0].began:%Y-%m-%d %H:%M:%S} UTC"
                raise Unreachable(f"the daemon does not answer (no reply since {since})") from None
            raise
        return self

    # Reading ------------------------------------------------------------------------------------------

    async def facts(self) -> Facts:
        # A daemon that has just started answers when it has probed its QEMU: 8 s the first time (measured).
        return await self._ask("asking for its capabilities", probe.probe, deadline=self._timing.sweep)

    async def domains(self) -> tuple[DomainRef, ...]:
        return await self._ask("the list of domains", reading.list_domains)

    async def read(self, uuid: str, *, sizes: bool = True) -> DomainReading:
        look = partial(reading.read_domain, uuid=uuid, sizes=sizes)
        return await self._ask(f"reading domain {uuid}", look, key=uuid)

    async def definitions(self) -> Definitions:
        return await self._definitions.read()

    async def referrers(self, source: Source) -> tuple[str, ...]:
        place = places.neighbourhood_of(source)
        if place is None:
            return ()
        return storage.referrers((await self._listings.of(place)).backings, place, source)

    async def surroundings(self, uuid: str, images: Iterable[Source]) -> Surroundings:
        homes = {image.home: image for image in images}
        marks, free = await asyncio.gather(
            self._ask(f"snapshots of {uuid}", lambda libvirtd: reading.list_marks(libvirtd, uuid), key=uuid),
            asyncio.gather(*(self._free(image) for image in homes.values())),
        )
        known = {home: size for home, size in zip(homes, free, strict=True) if size is not None}
        return Surroundings(marks, known)

    async def present(self, source: Source) -> bool | None:
        place = places.place_of(source)
        if place is None:
            return None
        try:
            await self._reach.ask([source])
            images = (await self._listings.of(place)).images
        except Unreachable:
            raise
        except HypervisorError as error:
            _log.info("a place cannot be listed", extra={"where": place.key, "why": str(error)})
            return None
        return place.name_of(source.leaf) in images

    async def opened(self, uuid: str) -> Opened:
        look = partial(monitor.opened, uuid=uuid)
        return await self._ask(f"asking the QEMU of domain {uuid}", look, key=uuid)

    async def inside(self, images: Iterable[Source]) -> Mapping[str, Inside]:
        wanted = {image.key: image for image in images}
        found = await asyncio.gather(*(self._inside(image) for image in wanted.values()))
        return {key: inside for key, inside in zip(wanted, found, strict=True) if inside is not None}

    async def written(self, images: Iterable[Source]) -> Mapping[str, datetime]:
        found = {}
        for image in images:
            place = places.place_of(image)
            if place is None or not place.shows_headers:
                continue
            try:
                await self._reach.ask([image])
                when = (await self._listings.of(place)).written.get(image.location)
            except Unreachable:
                raise
            except HypervisorError as error:
                _log.info("a place cannot be listed", extra={"where": place.key, "why": str(error)})
                continue
            if when is not None:
                found[image.key] = when
        return found

    async def _inside(self, image: Source) -> Inside | None:
        place = places.place_of(image)
        if place is not None and not place.shows_headers:
            return None  # and a Ceph whose OSD hangs takes half a minute to say nothing (measured)
        try:
            if place is not None:
                await self._reach.ask([image])
                version = (await self._listings.of(place)).versions.get(image.location)
                return None if version is None else Inside(version)
            if image.type != "block":
                return None
            return await self._ask(
                f"reading {image.uri}",
                lambda connection: examine.device(connection, image),
                key=f"device {image.path}",
                deadline=self._timing.change,
            )
        except Unreachable:
            raise
        except HypervisorError as error:
            _log.info("an image cannot be looked into", extra={"image": image.uri, "why": str(error)})
            return None

    async def _free(self, image: Source) -> int | None:
        """Free bytes where the image lies, None when that cannot be told. Of a server that is away nothing is
        asked: libvirt would wait for it, and stop an administrator's pool on it for good (measured)."""
        place = places.place_of(image)
        if place is None:
            return None
        try:
            await self._reach.ask([image])
            return (await self._listings.of(place)).free
        except Unreachable:
            raise
        except HypervisorError as error:  # such as an administrator's pool there that is not active
            _log.info("free space cannot be read", extra={"where": place.key, "why": str(error)})
            return None

    async def _list(self, place: places.Place) -> storage.Listing:
        return await self._ask(
            f"listing {place.key}",
            lambda connection: storage.listing(connection, place),
            key=place.key,
            deadline=self._timing.change,
        )

    async def examine(self, uuid: str, source: Source, *, way_in: int | None) -> Examined:
        place = examine.directory_of(source)
        async with self._listings.lock(place) if place else contextlib.nullcontext():
            return await self._ask(
                f"examining {source.uri}",
                lambda connection: examine.examine(connection, uuid, source, way_in),
                key=uuid,
                deadline=self._timing.change,
            )

    async def pool(self, name: str) -> Pool:
        look = partial(storage.look_up, name=name)
        return await self._ask(f"looking pool {name} up", look, key=f"pool {name}")

    async def reach(
        self, sources: Iterable[Source], *, beside: Iterable[Source] = (), running: Running | None = None
    ) -> None:
        use = Use(running.disks, partial(self._requests, running.uuid)) if running else None
        await self._reach.ask(sources, beside, use)

    async def _requests(self, uuid: str) -> dict[str, int]:
        look = partial(reading.completed_requests, uuid=uuid)
        return await self._ask(f"reading domain {uuid}", look, key=uuid)

    async def definition(self, uuid: str) -> str:
        return await self._ask(f"reading domain {uuid}", lambda found: definition.read(found, uuid), key=uuid)

    # Changing -----------------------------------------------------------------------------------------

    async def set_metadata(self, uuid: str, journal_xml: str | None, *, live: bool, config: bool) -> None:
        if journal_xml is not None:
            # libvirt replaces by namespace: an element of another one would stay for ever beside the next.
            found = etree.QName(etree.fromstring(journal_xml.encode())).namespace
            if found != JOURNAL_NAMESPACE:
                raise ValueError(f"the journal is of namespace {JOURNAL_NAMESPACE}, not {found}")
        flags = (libvirt.VIR_DOMAIN_AFFECT_LIVE if live else 0) | (
            libvirt.VIR_DOMAIN_AFFECT_CONFIG if config else 0
        )
        await self._change(
            uuid,
            "writing the journal",
            lambda domain: domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT, journal_xml, _PREFIX, JOURNAL_NAMESPACE, flags
            ),
        )

    async def define(self, uuid: str, xml: str, *, replacing: str) -> None:
        await self._run(
            f"the definition (domain {uuid})",
            lambda connection: definition.replace(connection, uuid, xml, replacing=replacing),
            key=uuid,
            deadline=self._timing.change,
            changing=True,
        )

    async def create_snapshot(self, uuid: str, xml: str, *, reuse: bool = False) -> None:
        await self._change(uuid, "the snapshot", partial(changing.take, xml=xml, reuse=reuse))

    async def commit(
        self, uuid: str, target: str, *, base: str, top: str | None, relative: bool, bandwidth: int
    ) -> None:
        begin = partial(
            changing.commit, target=target, base=base, top=top, relative=relative, bandwidth=bandwidth
        )
        await self._change(uuid, f"the commit of {target}", begin)

    async def pull(self, uuid: str, target: str, *, base: str | None, relative: bool, bandwidth: int) -> None:
        begin = partial(changing.pull, target=target, base=base, relative=relative, bandwidth=bandwidth)
        await self._change(uuid, f"the pull of {target}", begin)

    async def pivot(self, uuid: str, target: str) -> None:
        await self._change(uuid, f"the pivot of {target}", partial(changing.pivot, target=target))

    async def abort(self, uuid: str, target: str) -> None:
        await self._change(
            uuid, f"the abort of {target}'s job", lambda domain: domain.blockJobAbort(target, 0)
        )

    async def flush(self, uuid: str, target: str, capacity: int) -> None:
        resize = partial(changing.flush, target=target, capacity=capacity)
        await self._change(uuid, f"the flush of {target}", resize)

    async def remove_image(self, source: Source) -> Removal:
        place = places.removable_from(source)
        async with self._listings.lock(place):
            return await self._run(
                f"removing {source.uri}",
                lambda connection: storage.remove(connection, place, source),
                key=place.key,
                deadline=self._timing.change,
                changing=True,
            )

    async def close(self) -> None:
        """Close when the last call has returned; wait for that for ``timing.close`` seconds at most."""
        self._aliases.close()
        self._definitions.close()
        closed = self._calls.end()
        done, _ = await asyncio.wait({closed}, timeout=self._timing.close)
        if not done:
            _log.warning("a call on %s does not return; its connection is closed when it does", self._uri)

    # Events -------------------------------------------------------------------------------------------

    def _take(self, event: RawEvent) -> None:
        """On libvirt's event thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self._emit, event)

    def _answered(self, key: str) -> None:
        """On the thread of a call that had passed its deadline."""
        if key != CONNECTION:
            self._take(Answered(key))

    def _emit(self, event: RawEvent) -> None:
        if self._calls.ended:
            return
        if isinstance(event, DeviceFailed):
            self._aliases.failed(event)
            return
        self._definitions.saw(event)
        if isinstance(event, DeviceChanged):
            self._aliases.forget(event.uuid)
        self._sink(event)

    async def _target(self, uuid: str, alias: str) -> str:
        look = partial(reading.target_of_alias, uuid=uuid, alias=alias)
        return await self._ask(f"reading domain {uuid}", look, key=uuid)
