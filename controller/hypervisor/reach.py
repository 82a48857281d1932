"""Whether the storage servers of images answer, asked before QEMU is told to use them.

QEMU 7.2 opens an image, and waits for the I/O of all disks before a snapshot or a merge, in its main loop: a
server that does not answer freezes the guest and the monitor (measured: 300 s for a dead Ceph monitor, for
ever for a stopped NBD server). So the servers are asked first, with a deadline, and without QEMU (ADR 9).

Knows nothing of libvirt. One :class:`Reach` serves all connections to one hypervisor, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

from controller.chain.source import DEFAULT_PORTS, Host, Source
from controller.hypervisor.errors import StorageUnreachable
from controller.hypervisor.reach_bricks import Volume, volume_at
from controller.hypervisor.reach_gluster import Brick, NotUnderstood
from controller.hypervisor.reach_hello import HELLOS, Hello
from controller.hypervisor.reach_progress import Use

_log = logging.getLogger(__name__)

DEADLINE = 3.0
"""Seconds for name, connection and answer together. A server in order needs milliseconds."""

_ANY_HOST_SERVES = {"gluster", "rbd"}
"""With several hosts, their clients go on to the next one. Others have one host."""
_FAIL_AT_ONCE = {"nbd", "http", "https", "gluster"}
"""When such a server is gone, requests of its clients in QEMU 7.2 fail and nothing waits (measured for NBD
and for a brick of gluster); those of iSCSI and RBD connect again and keep the guest's requests meanwhile."""
_NO_ROOM = {
    "nbd": " (or it serves as many clients as it may, and no guest proves that it lives: qemu-nbd wants a "
    "greater --shared)"
}
"""What silence may mean as well, by protocol."""
_GRACE = 0.3
"""Seconds for which a server has the word alone, before its guests are looked at."""
_CEPH_PORTS = ("3300", "6789")
"""What librados tries when no port is given (messenger 2 and 1)."""
_REST = 1024
"""Bytes that end a talk at most."""
_STILL = 1.0
"""Seconds for which a server that did not answer is not asked again: the disks of a machine wait for it one
after the other."""
_NOT_FROM_HERE = 600.0
"""Seconds for which a server that only the hypervisor seems to reach is not asked again."""
_MAP = 60.0
"""Seconds for which it is believed where the bricks of a volume are, as long as they answer."""


class Answer(Enum):
    """What came of asking one server."""

    ANSWERED = "answers"
    SILENT = "accepts connections and does not answer: it hangs, so look at it or restart it"
    STRANGE = "answers in another protocol: look whether the port is right"
    REFUSED = "refuses connections: start it"
    LOST = "cannot be connected to: look at the server, its name and the network"
    UNSEEN = "is not to be seen from here"


@dataclass(frozen=True)
class Server:
    """One address that speaks ``protocol``; ``socket`` is the path of a unix socket."""

    protocol: str
    name: str = ""
    port: str = ""
    socket: str = ""
    brick: str = ""
    """The directory that a gluster server serves, empty for the daemon."""

    def __str__(self) -> str:
        """For people and logs; there is never a secret in it."""
        if self.brick:
            return f"{self.protocol} brick {self.name}:{self.brick}"
        host = Host(self.name, self.port, "unix" if self.socket else "tcp", self.socket)
        return f"{self.protocol} server {host.address(self.protocol)}"

    @property
    def on_the_hypervisor(self) -> bool:
        """Whether the address means another server on each machine."""
        if self.socket or self.name.lower().rstrip(".") in {"localhost", "localhost.localdomain"}:
            return True
        try:
            return ipaddress.ip_address(self.name).is_loopback
        except ValueError:
            return False


def servers_of(source: Source) -> tuple[Server, ...]:
    """The servers of an image, of which one is enough; empty for what cannot be asked (local images, RDMA,
    hosts from a ceph.conf, other protocols)."""
    protocol = source.protocol
    if protocol not in HELLOS:
        return ()
    found: list[Server] = []
    for host in source.hosts if protocol in _ANY_HOST_SERVES else source.hosts[:1]:
        if host.transport == "unix":
            found.append(Server(protocol, socket=host.socket))
        elif host.transport == "tcp" and host.name:
            default = _CEPH_PORTS if protocol == "rbd" else (DEFAULT_PORTS[protocol],)
            found += [Server(protocol, host.name, port) for port in ((host.port,) if host.port else default)]
    return tuple(found)


def volume_of(source: Source) -> str:
    """The gluster volume of an image, whose bricks are to be asked as well; otherwise empty."""
    return source.location.partition("/")[0] if source.protocol == "gluster" else ""


@dataclass(frozen=True)
class _Guests:
    """The disks of a machine that use one server: targets whose active image is there, and the others."""

    use: Use
    writing: frozenset[str]
    above: frozenset[str]


def _guests(use: Use, sources: Iterable[Source]) -> dict[Server, _Guests]:
    """By server that may have no room; not those that are to serve another image as well."""
    layers = {layer for disk in use.disks.values() for layer in disk}
    new = {server for one in sources if one not in layers for server in servers_of(one)}
    writing: dict[Server, set[str]] = defaultdict(set)
    above: dict[Server, set[str]] = defaultdict(set)
    for target, disk in use.disks.items():
        for place, layer in enumerate(disk):
            if layer.protocol in _NO_ROOM:
                for server in servers_of(layer):
                    (above if place else writing)[server].add(target)
    return {
        server: _Guests(use, frozenset(writing[server]), frozenset(above[server]))
        for server in {*writing, *above} - new
    }


def is_local(uri: str) -> bool:
    """Whether the hypervisor of this libvirt URI is the machine that we run on."""
    parts = urlsplit(uri)
    return parts.scheme in {"qemu", "qemu+unix"} and not parts.netloc


class Reach:
    """Asks servers on behalf of one hypervisor.

    ``local``: that is this machine, and what does not answer here does not answer there. Elsewhere an answer
    still proves life, but that nobody can be connected to proves nothing, because storage networks are
    often closed to others; it counts when the same server has answered before.
    """

    def __init__(self, *, local: bool, deadline: float = DEADLINE) -> None:
        self._local = local
        self._deadline = deadline
        self._asking: dict[Server, asyncio.Task[Answer]] = {}
        self._answered: set[Server] = set()
        self._silenced: dict[Server, float] = {}
        """When to ask again those that only the hypervisor seems to reach (the event loop's time)."""
        self._failed: dict[Server, tuple[float, Answer]] = {}
        """What was not answered just now, and when to ask again."""
        self._volumes: dict[tuple[tuple[Server, ...], str], tuple[float, Volume]] = {}
        """Where the bricks of gluster volumes are, and until when to believe it."""
        self._full: set[Server] = set()
        """Servers without room for a question whose guests proved that they live."""
        self._roomy: set[Server] = set()
        """Servers that answered while a machine used them: silence of theirs is not for want of room."""

    async def ask(
        self, sources: Iterable[Source], beside: Iterable[Source] = (), use: Use | None = None
    ) -> None:
        """Raise StorageUnreachable unless the servers of all images answer, as far as can be told.

        ``beside``: images for which QEMU may wait, but that it is not told to open. A server of theirs that
        refuses connections does not count where QEMU's client then fails at once and for good. ``use``: those
        of them that the machine uses already; a server may have no room for anybody else then.
        """
        sources = tuple(sources)
        wanted = {(found, volume_of(one)): True for one in sources if (found := servers_of(one))}
        for one in beside:
            if found := servers_of(one):
                wanted.setdefault((found, volume_of(one)), found[0].protocol not in _FAIL_AT_ONCE)
        if not wanted:
            return
        guests = _guests(use, sources) if use is not None else {}
        told = await asyncio.gather(
            *(self._trouble(servers, needed, guests) for (servers, _), needed in wanted.items()),
            *(self._bricks(*place, needed) for place, needed in wanted.items() if place[1]),
        )
        troubles = sorted({trouble for trouble in told if trouble})
        if troubles:
            raise StorageUnreachable("; ".join(troubles))

    async def _trouble(
        self, servers: tuple[Server, ...], needed: bool, guests: Mapping[Server, _Guests]
    ) -> str:
        """What is wrong with these servers of one image, for people; empty when one answers or nothing can be
        said, or (unless they are ``needed``) when they refuse connections."""
        answers: dict[Server, Answer] = {}
        pending = {
            asyncio.ensure_future(
                self._used(server, guests[server]) if server in guests else self._one(server)
            ): server
            for server in servers
        }
        try:
            while pending:
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                answers |= {pending.pop(task): task.result() for task in done}
                if Answer.ANSWERED in answers.values():
                    return ""
        finally:
            for task in pending:
                task.cancel()  # only the waiting: what is asked is asked to the end
        if any(not self._counts(server, answer) for server, answer in answers.items()):
            return ""
        if not needed and set(answers.values()) == {Answer.REFUSED}:
            return ""
        return ", ".join(_words(server, answers[server]) for server in servers)

    async def _bricks(self, servers: tuple[Server, ...], name: str, needed: bool) -> str:
        """What is wrong with the bricks of a volume; empty as well when nobody can tell where they are. That
        its daemon does not answer at all is told of the daemon."""
        until, known = self._volumes.get((servers, name), (0.0, None))
        if known is not None and until > asyncio.get_running_loop().time():
            trouble = await self._bricks_of(known, needed)
            if not trouble:
                return ""
        self._volumes.pop((servers, name), None)
        mute = None
        for server in servers:
            if server.socket or (server.on_the_hypervisor and not self._local):
                continue
            try:
                async with asyncio.timeout(self._deadline):
                    volume = await volume_at(server.name, server.port, name)
            except TimeoutError:
                mute = mute or server
            except (NotUnderstood, OSError, ValueError, OverflowError):
                continue
            else:
                until = asyncio.get_running_loop().time() + _MAP
                self._volumes[servers, name] = until, volume
                return await self._bricks_of(volume, needed)
        if mute in self._answered and needed:  # QEMU's client would wait for it as we did
            return f"the {mute} answers, and does not tell where volume {name} is: look at it or restart it"
        return ""

    async def _bricks_of(self, volume: Volume, needed: bool) -> str:
        """What is wrong with the bricks; empty when as many answer as the volume needs."""
        bricks = volume.needs.bricks
        answers = dict(
            zip(bricks, await asyncio.gather(*(self._brick(b, volume) for b in bricks)), strict=True)
        )
        bad = {
            brick: answer
            for brick, answer in answers.items()
            if answer is not Answer.ANSWERED
            and (needed or answer is not Answer.REFUSED)
            and (volume.ports[brick] == 0 or self._counts(_served(brick, volume), answer))
        }
        if volume.needs.met(lambda brick: brick not in bad):
            return ""
        return ", ".join(_words(_served(brick, volume), answer) for brick, answer in bad.items())

    async def _brick(self, brick: Brick, volume: Volume) -> Answer:
        """Ask one brick, or its daemon for it when that did not tell its port."""
        if volume.ports[brick] == 0:
            return Answer.REFUSED
        return await self._one(_served(brick, volume))

    def _counts(self, server: Server, answer: Answer) -> bool:
        """Whether the answer says something of what QEMU would meet."""
        if answer is Answer.UNSEEN:
            return False
        return self._local or answer in {Answer.SILENT, Answer.STRANGE} or server in self._answered

    async def _used(self, server: Server, guests: _Guests) -> Answer:
        """Ask a server that the machine uses already, and look at its guests when it does not answer."""
        if server in self._full and await self._proved(server, guests, within=self._deadline / 2):
            return Answer.ANSWERED  # and no question is left in the queue of those that it cannot serve
        question = asyncio.ensure_future(self._one(server))
        try:
            await asyncio.wait({question}, timeout=_GRACE)
            silent = not question.done() or question.result() in {Answer.SILENT, Answer.LOST}
            if silent and await self._proved(server, guests, within=self._deadline - _GRACE):
                self._full.add(server)
                return Answer.ANSWERED
            answer = await question
        finally:
            question.cancel()  # only the waiting
        self._full.discard(server)
        if answer is Answer.ANSWERED:
            self._roomy.add(server)
        return answer

    async def _proved(self, server: Server, guests: _Guests, *, within: float) -> bool:
        """Whether a guest gets on that could not without this server. When all disks only read through to it,
        whether one gets on shows just that nothing is stuck, which is no proof if it should have answered."""
        if guests.writing:
            return await guests.use.gets_on(guests.writing, within=within)
        return server not in self._roomy and await guests.use.gets_on(guests.above, within=within)

    async def _one(self, server: Server) -> Answer:
        """Ask, together with whoever asks the same at this moment."""
        loop = asyncio.get_running_loop()
        if not self._local and (server.on_the_hypervisor or self._silenced.get(server, 0.0) > loop.time()):
            return Answer.UNSEEN
        until, answer = self._failed.get(server, (0.0, Answer.UNSEEN))
        if until > loop.time():
            return answer
        task = self._asking.get(server)
        if task is None:
            task = self._asking[server] = loop.create_task(_ask(server, self._deadline))
            task.add_done_callback(lambda _: self._asking.pop(server))
        answer = await asyncio.shield(task)
        if answer is Answer.ANSWERED:
            self._answered.add(server)
            return answer
        self._failed[server] = loop.time() + _STILL, answer
        if not self._counts(server, answer):
            _log.info("storage server cannot be asked from here: %s %s", server, answer.value)
            self._silenced[server] = loop.time() + _NOT_FROM_HERE
        return answer


def _served(brick: Brick, volume: Volume) -> Server:
    """Whom to ask whether a brick answers."""
    port = volume.ports[brick]
    if port is None:
        return Server("gluster", brick.host, DEFAULT_PORTS["gluster"])
    return Server("gluster", brick.host, str(port), brick=brick.path)


def _words(server: Server, answer: Answer) -> str:
    """For people: the same each time, because conditions are compared."""
    more = _NO_ROOM.get(server.protocol, "") if answer is Answer.SILENT else ""
    return f"the {server} {answer.value}{more}"


async def _ask(server: Server, deadline: float) -> Answer:
    """One connection, one question, one answer."""
    hello = HELLOS[server.protocol]
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(deadline):
            reader, writer = await _connect(server)
            return await _talk(hello, reader, writer)
    except TimeoutError:
        return Answer.LOST if writer is None else Answer.SILENT
    except ConnectionError:
        return Answer.ANSWERED if writer is not None and hello.may_close else Answer.REFUSED
    except (FileNotFoundError, PermissionError):
        # A socket that we do not see, being in a container, or that is not there: that makes no QEMU wait.
        return Answer.UNSEEN if server.socket else Answer.LOST
    except (OSError, ValueError, OverflowError):  # the last two: a name or a port that cannot be one
        return Answer.LOST
    finally:
        if writer is not None:
            writer.close()


async def _connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if server.socket:
        return await asyncio.open_unix_connection(server.socket)
    return await asyncio.open_connection(server.name, int(server.port))


async def _talk(hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer:
    writer.write(hello.say)
    try:
        answer = await reader.readexactly(hello.size)
    except asyncio.IncompleteReadError as end:
        if hello.may_close:
            return Answer.ANSWERED
        return Answer.STRANGE if end.partial else Answer.REFUSED
    if not hello.fits(answer):
        return Answer.STRANGE
    if bye := hello.bye(answer):
        writer.write(bye)
        with contextlib.suppress(ConnectionError):
            await reader.read(_REST)  # leaving before the reply would count as rude
    return Answer.ANSWERED
