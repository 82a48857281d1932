"""The bricks of a gluster volume are found and asked: described, odd, huge and missing, byte by byte."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.chain.source import Host, Source
from controller.hypervisor.errors import StorageUnreachable
from controller.hypervisor.reach import Reach
from controller.hypervisor.reach_gluster import (
    MOST,
    MOST_BRICKS,
    Brick,
    NotUnderstood,
    needs_of,
    port_of,
    port_question,
    size_of,
    volume_of,
    volume_question,
)

SOON = 0.6
"""Seconds; only for those that never answer."""
HERE = "127.0.0.1"


def client(name: str, *more: str, host: str = HERE) -> str:
    """A brick as glusterd 10.3 describes it; /bricks/NAME is where it is."""
    options = ("send-gids true", "password 612f27f2", "transport-type tcp", *more)
    options += (f"remote-subvolume /bricks/{name}", f"remote-host {host}", "ping-timeout 42")
    return translator(name, "protocol/client", *options)


def translator(name: str, kind: str, *options: str, below: str = "") -> str:
    """One block of a description."""
    lines = [f"volume {name}", f"    type {kind}", *(f"    option {option}" for option in options)]
    return "\n".join([*lines, *([f"    subvolumes {below}"] if below else []), "end-volume", "", ""])


def topped(text: str, below: str) -> str:
    """What is on top of every volume."""
    text += translator("t-utime", "features/utime", "noatime on", below=below)
    return text + translator("t", "debug/io-stats", "log-level INFO", below="t-utime")


ONE = topped(client("a") + translator("d", "cluster/distribute", "lock-migration off", below="a"), "d")
TWO = topped(client("a") + client("b") + translator("d", "cluster/distribute", below="a b"), "d")
REPLICA = topped(client("a") + client("b") + translator("r", "cluster/replicate", below="a b"), "r")
ARBITER = topped(
    "".join(client(one) for one in "abcdef")
    + translator("r0", "cluster/replicate", "arbiter-count 1", below="a b c")
    + translator("r1", "cluster/replicate", "arbiter-count 1", below="d e f")
    + translator("d", "cluster/distribute", below="r0 r1"),
    "d",
)
DISPERSE = topped(
    "".join(client(one) for one in "abc")
    + translator("e", "cluster/disperse", "redundancy 1", below="a b c"),
    "e",
)


@pytest.mark.parametrize(
    ("description", "answering", "enough"),
    [
        (ONE, "a", True),
        (ONE, "", False),
        (TWO, "ab", True),
        (TWO, "a", False),
        (REPLICA, "b", True),
        (REPLICA, "", False),
        (ARBITER, "ae", True),
        (ARBITER, "ab", False),
        (ARBITER, "cf", False),
        (ARBITER, "acf", False),
        (DISPERSE, "ac", True),
        (DISPERSE, "c", False),
    ],
)
def test_which_bricks_a_volume_needs(description: str, answering: str, enough: bool) -> None:
    assert needs_of(description).met(lambda brick: brick.path[-1] in answering) is enough


@pytest.mark.parametrize(
    "description",
    [
        "",
        "no description at all",
        topped("", "nothing"),
        client("a") + client("b"),  # no top
        topped(client("a") + client("b"), "a b"),  # not known what it does with two
        topped(client("a") + client("b") + translator("x", "cluster/unheard-of", below="a b"), "x"),
        topped(client("a", "transport.socket.ssl-enabled on"), "a"),
        topped(translator("a", "protocol/client", "transport-type rdma", "remote-host h"), "a"),
        topped(translator("a", "protocol/client", "remote-host h"), "a"),
        topped(client("a") + translator("e", "cluster/disperse", "redundancy 1", below="a a"), "e"),
        topped(client("a") + client("b") + translator("e", "cluster/disperse", below="a b"), "e"),
        topped(
            client("a") + client("b") + translator("e", "cluster/disperse", "redundancy x", below="a b"), "e"
        ),
        topped(
            client("a") + client("b") + translator("r", "cluster/replicate", "arbiter-count 2", below="a b"),
            "r",
        ),
        topped(
            "".join(client(f"a{n}") for n in range(MOST_BRICKS + 1))
            + translator("d", "cluster/distribute", below=" ".join(f"a{n}" for n in range(MOST_BRICKS + 1))),
            "d",
        ),
        client("a") + "".join(translator(f"x{n + 1}", "x", below=f"x{n} x{n}") for n in range(60)),
        "end-volume\n" * 3,
    ],
)
def test_what_is_not_understood_is_said_to_be(description: str) -> None:
    with pytest.raises(NotUnderstood):
        needs_of(description)


def test_a_high_tower_is_understood() -> None:
    tower = client("x0") + "".join(translator(f"x{n + 1}", "any/thing", below=f"x{n}") for n in range(20_000))
    assert needs_of(tower).bricks == (Brick(HERE, "/bricks/x0"),)


def reply(question: bytes, result: bytes) -> bytes:
    """A reply to a call, accepted, in one record."""
    body = question[4:8] + struct.pack(">5I", 1, 0, 0, 0, 0) + result
    return struct.pack(">I", 0x80000000 | len(body)) + body


def described(text: str) -> bytes:
    """The result of GETSPEC, as measured with glusterd 10.3."""
    data = text.encode()
    return struct.pack(">3I", len(data), 0, len(data)) + data + bytes(-len(data) % 4 + 4)


PORT_QUESTION = port_question(Brick(HERE, "/bricks/a"))
REFUSED = struct.pack(">iIII", -1, 95, 0, 0)


def test_replies_as_measured() -> None:
    # glusterd 10.3, PORTBYBRICK of a brick that runs, and of one that does not.
    runs = "0000000000000000000000000000d312"
    for result, port in ((bytes(2) + bytes.fromhex(runs), 54034), (b"\xff" * 4 + bytes(12), 0)):
        assert port_of(reply(PORT_QUESTION, result[-16:])[4:]) == port
    assert volume_of(reply(volume_question("t"), described(ONE))[4:]).bricks == (Brick(HERE, "/bricks/a"),)


@pytest.mark.parametrize(
    "result", [REFUSED, b"", b"\0" * 8, described(ONE)[:-200], struct.pack(">3I", 9, 0, MOST)]
)
def test_a_refusal_describes_nothing(result: bytes) -> None:
    with pytest.raises(NotUnderstood):
        volume_of(reply(volume_question("t"), result)[4:])


def test_a_reply_to_another_call_tells_nothing() -> None:
    other = reply(PORT_QUESTION, struct.pack(">4I", 0, 0, 0, 80))[4:]
    assert port_of(other) == 80
    for wrong in (
        b"\0" * 4 + other[4:],
        other[:4] + b"\0\0\0\0" + other[8:],
        other[:8] + b"\0\0\0\1" + other[12:],
        b"",
    ):
        with pytest.raises(NotUnderstood):
            port_of(wrong)
    with pytest.raises(NotUnderstood):
        port_of(reply(PORT_QUESTION, struct.pack(">4I", 0, 0, 0, 1 << 17))[4:])


@pytest.mark.parametrize("mark", [0x00000010, 0x80000000 | MOST + 1, 0xFFFFFFFF])
def test_a_reply_in_pieces_or_without_end_is_not_read(mark: int) -> None:
    with pytest.raises(NotUnderstood):
        size_of(struct.pack(">I", mark))


class Gluster:
    """A daemon and its bricks on loopback. ``ports`` by the last letter of a brick's directory."""

    def __init__(self, description: str, **ports: int) -> None:
        self.description, self.ports = description, ports
        self.asked: list[int] = []
        """Programs, by their numbers."""
        self.mute: set[int] = set()
        self.refuses = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, which may ask several things."""
        try:
            while True:
                question = await reader.readexactly(4)
                question += await reader.readexactly(struct.unpack(">I", question)[0] & 0x7FFFFFFF)
                program = struct.unpack_from(">I", question, 16)[0]
                self.asked.append(program)
                if program in self.mute:
                    continue
                writer.write(reply(question, self._result(program, question)))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _result(self, program: int, question: bytes) -> bytes:
        if program == 14398633:
            return REFUSED if self.refuses else described(self.description)
        if program == 34123456:
            port = self.ports.get(question.rstrip(b"\0")[-1:].decode(), 0)
            return struct.pack(">4I", 0, 0, 0, port) if port else REFUSED
        return b""


@asynccontextmanager
async def listening(server: Gluster) -> AsyncIterator[int]:
    """The port that it listens on."""
    listener = await asyncio.start_server(server.serve, HERE, 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


def image(port: int) -> Source:
    """An image on the volume t."""
    return Source.network("gluster", "t/image", [Host(HERE, str(port))])


async def trouble(reach: Reach, port: int, *, beside: bool = False) -> str:
    """What is told of the volume."""
    try:
        await reach.ask(*(([], [image(port)]) if beside else ([image(port)],)))
    except StorageUnreachable as error:
        return error.message
    return ""


@pytest.fixture
async def brick() -> AsyncIterator[int]:
    """A brick that answers; its port."""
    async with listening(Gluster("")) as port:
        yield port


@pytest.fixture
async def silent() -> AsyncIterator[int]:
    """A brick that does not; its port."""
    with socket.create_server((HERE, 0)) as listener:
        yield listener.getsockname()[1]


async def test_a_brick_that_answers(brick: int) -> None:
    async with listening(Gluster(ONE, a=brick)) as port:
        assert await trouble(Reach(local=True), port) == ""


async def test_a_silent_brick_behind_a_daemon_that_answers(silent: int) -> None:
    async with listening(Gluster(ONE, a=silent)) as port:
        for beside in (False, True):
            message = await trouble(Reach(local=True, deadline=SOON), port, beside=beside)
            assert message.startswith(
                "the gluster brick 127.0.0.1:/bricks/a accepts connections and does not"
            )


async def test_a_brick_that_does_not_run_is_in_the_way_of_its_own_disk_alone(brick: int) -> None:
    """The client of another disk fails at once, so nobody waits for it."""
    for gluster in (Gluster(ONE), Gluster(ONE, a=free_port())):
        async with listening(gluster) as port:
            reach = Reach(local=True, deadline=SOON)
            assert "brick 127.0.0.1:/bricks/a refuses connections" in await trouble(reach, port)
            assert await trouble(reach, port, beside=True) == ""


async def test_one_of_a_replica_is_enough_and_all_that_is_bad_is_named(brick: int, silent: int) -> None:
    async with listening(Gluster(REPLICA, a=silent, b=brick)) as port:
        assert await trouble(Reach(local=True, deadline=SOON), port) == ""
    async with listening(Gluster(TWO, a=silent, b=brick)) as port:
        message = await trouble(Reach(local=True, deadline=SOON), port)
        assert "/bricks/a accepts" in message
        assert "/bricks/b" not in message
    async with listening(Gluster(REPLICA, a=silent)) as port:
        message = await trouble(Reach(local=True, deadline=SOON), port)
        assert "/bricks/a accepts" in message
        assert "/bricks/b refuses" in message


async def test_without_a_description_the_daemon_alone_counts(silent: int) -> None:
    one = Gluster(ONE, a=silent)
    for change in ({"refuses": True}, {"description": "nonsense"}):
        gluster = Gluster(one.description, **one.ports)
        vars(gluster).update(change)
        async with listening(gluster) as port:
            assert await trouble(Reach(local=True, deadline=SOON), port) == ""


@pytest.mark.parametrize("program", [14398633, 34123456])
async def test_a_daemon_that_answers_and_does_not_describe_the_volume(brick: int, program: int) -> None:
    """QEMU's client would wait for the description as we do; one that has it already does not ask again."""
    gluster = Gluster(ONE, a=brick)
    gluster.mute.add(program)
    async with listening(gluster) as port:
        reach = Reach(local=True, deadline=SOON)
        assert f"{port} answers, and does not tell where volume t is" in await trouble(reach, port)
        assert await trouble(reach, port, beside=True) == ""
        gluster.mute.clear()
        assert await trouble(reach, port) == ""


async def test_a_daemon_that_does_not_tell_ports_is_asked_itself(silent: int) -> None:
    """It is the one on the brick's host, on gluster's own port; here nobody listens there."""
    gluster = Gluster(topped(client("a", host="127.250.251.252"), "a"))
    async with listening(gluster) as port:
        message = await trouble(Reach(local=True, deadline=SOON), port)
    assert "127.250.251.252:24007 refuses connections" in message


async def test_what_is_known_is_not_asked_again_while_all_is_well(brick: int) -> None:
    gluster = Gluster(ONE, a=brick)
    async with listening(gluster) as port:
        reach = Reach(local=True)
        for _ in range(3):
            assert await trouble(reach, port) == ""
    assert gluster.asked.count(14398633) == 1
    assert gluster.asked.count(34123456) == 1
    assert gluster.asked.count(123451501) == 3, "an old answer is no answer"


async def test_a_brick_that_moved_is_found(brick: int) -> None:
    gluster = Gluster(ONE)
    passing = await asyncio.start_server(Gluster("").serve, HERE, 0)
    gluster.ports["a"] = passing.sockets[0].getsockname()[1]
    async with listening(gluster) as port:
        reach = Reach(local=True)
        assert await trouble(reach, port) == ""
        passing.close()
        gluster.ports["a"] = brick
        assert await trouble(reach, port) == ""


async def test_bricks_that_only_the_hypervisor_reaches(silent: int) -> None:
    """From elsewhere, loopback means another machine: neither the daemon nor its bricks are asked."""
    gluster = Gluster(ONE, a=silent)
    async with listening(gluster) as port:
        assert await trouble(Reach(local=False, deadline=SOON), port) == ""
    assert gluster.asked == []


def free_port() -> int:
    """A port that refuses connections."""
    with socket.socket() as one:
        one.bind((HERE, 0))
        return int(one.getsockname()[1])
