"""Asking storage servers whether they live: right, wrong, odd and missing answers, byte by byte."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from controller.chain.source import Host, Source
from controller.hypervisor.errors import StorageUnreachable
from controller.hypervisor.reach import Reach, is_local, servers_of
from controller.hypervisor.reach_hello import HELLOS

SOON = 0.3
"""Seconds; only for those that never answer."""
NBD = b"NBDMAGICIHAVEOPT\x00\x03"
ISCSI = bytes([0x23, 0x00]).ljust(48, b"\0")


def rpc_reply(question: bytes) -> bytes:
    """A reply of gluster's to the call with this number."""
    return struct.pack(">I", 0x80000018) + question[4:8] + struct.pack(">5I", 1, 0, 0, 0, 0)


class FakeServer:
    """Says ``greeting`` to each client, then answers the first bytes it gets; keeps all it got."""

    def __init__(
        self, greeting: bytes, answer: Callable[[bytes], bytes] | None = None, *, hangs_up: bool = False
    ) -> None:
        self.greeting, self.answer, self.hangs_up = greeting, answer, hangs_up
        self.got: list[bytes] = []
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        got = b""
        writer.write(self.greeting)
        if self.answer is not None:
            got = await reader.read(4096)
            writer.write(self.answer(got))
        if not self.hangs_up:
            got += await reader.read(4096)
        self.got.append(got)
        writer.close()
        self.ended.set()


@asynccontextmanager
async def listening(server: FakeServer) -> AsyncIterator[int]:
    """The port that it listens on."""
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


def image(protocol: str, *ports: int, host: str = "127.0.0.1") -> Source:
    """An image on these servers."""
    return Source.network(protocol, "pool/image", [Host(host, str(port)) for port in ports])


async def asked(source: Source, *, local: bool = True) -> str:
    """What is wrong, empty when nothing is."""
    try:
        await Reach(local=local, deadline=SOON).ask([source])
    except StorageUnreachable as error:
        return error.message
    return ""


def free_port() -> int:
    """A port that refuses connections."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


ANSWERS: list[tuple[str, bytes, Callable[[bytes], bytes] | None]] = [
    ("nbd", NBD, None),
    ("nbd", b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53" + bytes(136), None),  # the old style
    ("rbd", b"ceph v027" + bytes(272), None),
    ("rbd", b"ceph v2\n\x10\x00" + bytes(16), None),
    ("gluster", b"", rpc_reply),
    ("iscsi", b"", lambda _: ISCSI),
    ("iscsi", b"", lambda _: b"\x3f".ljust(48, b"\0")),  # rejected: alive
    ("http", b"", lambda _: b"HTTP/1.1 404 Not Found\r\n\r\n"),
    ("https", b"", lambda _: b"\x15\x03\x01\x00\x02\x02\x46"),  # a TLS alert
]


@pytest.mark.parametrize(("protocol", "greeting", "answer"), ANSWERS)
async def test_what_servers_say_is_understood(
    protocol: str, greeting: bytes, answer: Callable[[bytes], bytes] | None
) -> None:
    async with listening(FakeServer(greeting, answer)) as port:
        assert await asked(image(protocol, port)) == ""
        assert await asked(image(protocol, port, host="localhost")) == ""


@pytest.mark.parametrize("protocol", [name for name in HELLOS if name != "https"])
@pytest.mark.parametrize(
    "noise", [b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n" + bytes(80), b"NBDMAGI", b"\0" * 64, b"\xff" * 64]
)
async def test_another_protocol_is_told_apart(protocol: str, noise: bytes) -> None:
    if HELLOS[protocol].say:  # read first, or the end would be a reset, which takes the noise with it
        server = FakeServer(b"", lambda _: noise, hangs_up=True)
    else:
        server = FakeServer(noise, hangs_up=True)
    async with listening(server) as port:
        assert "answers in another protocol" in await asked(image(protocol, port))


@pytest.mark.parametrize("protocol", HELLOS)
async def test_a_server_that_only_listens_is_silent(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the kernel accepts, nobody else does
        port = listener.getsockname()[1]
        message = await asked(image(protocol, port))
    assert f"the {protocol} server 127.0.0.1:{port} accepts connections and does not answer" in message


@pytest.mark.parametrize("protocol", ["nbd", "rbd"])
async def test_half_a_greeting_is_silence(protocol: str) -> None:
    async with listening(FakeServer(b"NBDMAGICIHAVE"[:5])) as port:
        assert "does not answer" in await asked(image(protocol, port))


@pytest.mark.parametrize("protocol", HELLOS)
async def test_nobody_listens(protocol: str) -> None:
    message = await asked(image(protocol, port := free_port()))
    assert f"127.0.0.1:{port} refuses connections: start it" in message


async def test_hanging_up_is_an_answer_only_of_https() -> None:
    async with listening(FakeServer(b"", hangs_up=True)) as port:
        assert await asked(image("https", port)) == ""
        assert "refuses connections" in await asked(image("nbd", port))


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 300, "h\0st", "é" * 80])
async def test_a_name_that_means_nothing(name: str) -> None:
    source = Source.network("nbd", "e", [Host("placeholder", "10809")])
    server = servers_of(source)[0]
    reach = Reach(local=True, deadline=5)
    assert (await reach._trouble((type(server)("nbd", name, "10809"),), needed=True, guests={})).endswith(
        "cannot be connected to: look at the server, its name and the network"
    )


async def test_a_port_that_cannot_be_one() -> None:
    assert "cannot be connected to" in await asked(image("nbd", 99999999))


async def test_one_of_several_servers_is_enough_where_the_client_tries_them_all() -> None:
    async with listening(FakeServer(NBD)) as nbd, listening(FakeServer(b"ceph v027")) as rbd:
        assert await asked(image("rbd", free_port(), rbd)) == ""
        assert "refuses" in await asked(image("nbd", free_port(), nbd)), "QEMU knows one NBD server"
    both = await asked(image("rbd", one := free_port(), other := free_port()))
    assert str(one) in both
    assert str(other) in both


async def test_a_disk_beside_matters_only_when_qemu_waits_for_it() -> None:
    reach = Reach(local=True, deadline=SOON)
    await reach.ask([], [image("nbd", free_port()), image("gluster", free_port())])
    for protocol in ("iscsi", "rbd"):
        with pytest.raises(StorageUnreachable, match="refuses"):
            await reach.ask([], [image(protocol, free_port())])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = image("nbd", listener.getsockname()[1])
        with pytest.raises(StorageUnreachable, match="does not answer"):
            await reach.ask([], [silent])
    with pytest.raises(StorageUnreachable, match="refuses"):
        await Reach(local=True).ask([silent], [silent])


async def test_nothing_is_asked_where_nothing_can_be() -> None:
    for source in (
        Source.file("/images/a.qcow2"),
        Source.network("ssh", "image", [Host("127.0.0.1", "1")]),
        Source.network("rbd", "pool/image"),  # hosts from the hypervisor's ceph.conf
        Source.network("gluster", "gv0/image", [Host("127.0.0.1", "1", "rdma")]),
    ):
        assert servers_of(source) == ()
        assert await asked(source) == ""


def test_ports_that_are_not_written() -> None:
    def ports(protocol: str) -> list[str]:
        return [s.port for s in servers_of(Source.network(protocol, "a/b", [Host("server")]))]

    assert ports("nbd") == ["10809"]
    assert ports("gluster") == ["24007"]
    assert ports("rbd") == ["3300", "6789"]


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "nbd.sock"
    source = Source.network("nbd", "e", [Host(transport="unix", socket=str(path))])
    assert await asked(source) == "", "a socket that is not to be seen: a container, or QEMU says so at once"
    listener = await asyncio.start_unix_server(FakeServer(NBD).serve, path)
    assert await asked(source) == ""
    listener.close()
    await listener.wait_closed()
    assert f"the nbd server unix:{path} refuses connections" in await asked(source)
    with socket.socket(socket.AF_UNIX) as silent:
        path.unlink()
        silent.bind(str(path))
        silent.listen()
        assert "does not answer" in await asked(source)


async def test_good_manners() -> None:
    """qemu-nbd prints an error when a client goes without saying so."""
    server = FakeServer(NBD)
    async with listening(server) as port:
        assert await asked(image("nbd", port)) == ""
        await asyncio.wait_for(server.ended.wait(), 30)
    assert server.got == [b"\0\0\0\x03IHAVEOPT\0\0\0\x02\0\0\0\0"]


async def test_those_who_ask_at_once_ask_together() -> None:
    server = FakeServer(NBD)
    async with listening(server) as port:
        reach = Reach(local=True)
        await asyncio.gather(*(reach.ask([image("nbd", port)]) for _ in range(50)))
        await asyncio.wait_for(server.ended.wait(), 30)
        assert len(server.got) == 1
        server.ended.clear()
        await reach.ask([image("nbd", port)])  # and an old answer is no answer
        await asyncio.wait_for(server.ended.wait(), 30)
        assert len(server.got) == 2


async def test_one_that_stops_waiting_does_not_stop_the_others() -> None:
    server = FakeServer(b"", lambda _: ISCSI)
    async with listening(server) as port:
        reach = Reach(local=True)
        first = asyncio.ensure_future(reach.ask([image("iscsi", port)]))
        second = asyncio.ensure_future(reach.ask([image("iscsi", port)]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await second


# A hypervisor that is elsewhere ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("qemu:///system", True),
        ("qemu+unix:///system?socket=/run/libvirt/libvirt-sock", True),
        ("qemu+tls://host/system", False),
        ("qemu+ssh://root@host/system?socket=/run/libvirt/libvirt-sock", False),
        ("qemu+ssh://localhost/system", False),
    ],
)
def test_where_the_hypervisor_is(uri: str, local: bool) -> None:
    assert is_local(uri) is local


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7", "localhost", "::1", "localhost."])
async def test_the_own_addresses_of_another_machine_are_not_asked(host: str) -> None:
    assert await asked(image("rbd", free_port(), host=host), local=False) == ""


@pytest.fixture
async def elsewhere(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncExitStack]:
    """The loopback device, taken for a network."""
    server = type(servers_of(image("nbd", 1))[0])
    monkeypatch.setattr(server, "on_the_hypervisor", False)
    async with AsyncExitStack() as stack:
        yield stack


async def test_what_cannot_be_connected_to_from_here_may_serve_there(elsewhere: AsyncExitStack) -> None:
    reach = Reach(local=False, deadline=SOON)
    await reach.ask([image("nbd", port := free_port())])
    server = FakeServer(b"")  # the next time it would be called silent: it is not asked for a while
    listener = await asyncio.start_server(server.serve, "127.0.0.1", port)
    await reach.ask([image("nbd", port)])
    assert not server.got
    listener.close()


async def test_what_answered_before_and_refuses_now_is_down(elsewhere: AsyncExitStack) -> None:
    reach = Reach(local=False, deadline=SOON)
    async with listening(FakeServer(NBD)) as port:
        await reach.ask([image("nbd", port)])
    with pytest.raises(StorageUnreachable, match="refuses connections"):
        await reach.ask([image("nbd", port)])


async def test_what_accepts_and_does_not_answer_hangs_for_everybody(elsewhere: AsyncExitStack) -> None:
    listener = elsewhere.enter_context(socket.create_server(("127.0.0.1", 0)))
    message = await asked(image("rbd", listener.getsockname()[1]), local=False)
    assert "does not answer" in message
