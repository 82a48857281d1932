"""Servers that serve as many clients as they may: their guests prove that they live, or nobody does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest

from controller.chain.source import Host, Source
from controller.hypervisor.driver import Running
from controller.hypervisor.errors import Busy, StorageUnreachable
from controller.hypervisor.reach import Reach
from controller.hypervisor.reach_progress import Use

SOON = 0.9
"""Seconds; only for those that never answer."""
FILE = Source.file("/images/overlay.qcow2")


class Guest:
    """Counts as it is told to."""

    def __init__(self, *targets: str) -> None:
        self.targets = targets
        self.asked = 0

    async def requests(self) -> Mapping[str, int]:
        """One more for each target that gets on."""
        self.asked += 1
        return {"vda": 7, "vdb": 7} | dict.fromkeys(self.targets, 7 + self.asked)


def nbd(port: int, name: str = "e", host: str = "127.0.0.1") -> Source:
    """An export."""
    return Source.network("nbd", name, [Host(host, str(port))])


async def asked(
    reach: Reach, guest: Guest, *sources: Source, beside: tuple[Source, ...] = (), **disks: tuple[Source, ...]
) -> str:
    """What is wrong, empty when nothing is."""
    try:
        await reach.ask(sources, beside, Use(disks, guest.requests))
    except StorageUnreachable as error:
        return error.message
    return ""


@pytest.fixture
def full() -> Iterator[int]:
    """The port of a server that has no room: the kernel accepts, nobody else does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def reach() -> Reach:
    """The hypervisor is here."""
    return Reach(local=True, deadline=SOON)


async def test_a_guest_that_gets_on_proves_its_server(reach: Reach, full: int) -> None:
    image = nbd(full)
    assert await asked(reach, Guest("vda"), image, vda=(image,)) == ""
    assert await asked(reach, Guest("vda"), beside=(image,), vda=(image,)) == ""


async def test_a_guest_that_stands_still_or_another_one_proves_nothing(reach: Reach, full: int) -> None:
    image = nbd(full)
    for guest in (Guest(), Guest("vdb"), Guest("vdc")):
        assert "does not answer" in await asked(reach, guest, image, vda=(image,), vdb=(FILE,))
    assert "--shared" in await asked(reach, Guest(), image, vda=(image,))


async def test_a_machine_that_does_not_tell_proves_nothing(reach: Reach, full: int) -> None:
    async def busy() -> Mapping[str, int]:
        raise Busy("a pull runs")

    async def hangs() -> Mapping[str, int]:
        await asyncio.Event().wait()
        return {}

    for requests in (busy, hangs):
        with pytest.raises(StorageUnreachable, match="does not answer"):
            await reach.ask([nbd(full)], use=Use({"vda": (nbd(full),)}, requests))


async def test_a_new_image_needs_room_whatever_the_guest_does(reach: Reach, full: int) -> None:
    new = nbd(full, "new")
    assert "does not answer" in await asked(reach, Guest("vda"), nbd(full), new, vda=(nbd(full),))


async def test_a_disk_above_counts_when_no_disk_writes_there(reach: Reach, full: int) -> None:
    image = nbd(full)
    assert await asked(reach, Guest("vda"), image, vda=(FILE, image)) == ""
    other = Reach(local=True, deadline=SOON)
    assert "does not answer" in await asked(other, Guest("vda"), image, vda=(FILE, image), vdb=(image,))


async def test_a_guest_above_says_nothing_of_a_job(reach: Reach, full: int) -> None:
    image = nbd(full)
    written = Running("u", {"vda": (FILE, image), "vdb": (image, FILE)}).written()
    assert written == Running("u", {"vda": (FILE,), "vdb": (image,)})
    assert "does not answer" in await asked(reach, Guest("vda"), image, vda=written.disks["vda"])


@pytest.fixture
async def roomy() -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """A server that answers until it is told to hang; its port."""
    hangs = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not hangs.is_set():
            writer.write(b"NBDMAGICIHAVEOPT\x00\x03")

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield listener.sockets[0].getsockname()[1], hangs.set
    listener.close()


async def test_a_server_that_answers_has_the_word(
    reach: Reach, roomy: tuple[int, Callable[[], None]]
) -> None:
    port, _ = roomy
    guest = Guest("vda")
    assert await asked(reach, guest, nbd(port), vda=(nbd(port),)) == ""
    assert guest.asked == 0, "what is well costs the hypervisor nothing"


async def test_one_that_had_room_and_is_silent_hangs_though_the_guest_writes_elsewhere(
    reach: Reach, roomy: tuple[int, Callable[[], None]]
) -> None:
    port, hang = roomy
    image = nbd(port)
    assert await asked(reach, Guest("vda"), image, vda=(FILE, image)) == ""
    hang()
    assert "does not answer" in await asked(reach, Guest("vda"), image, vda=(FILE, image))
    assert await asked(reach, Guest("vda"), image, vda=(image,)) == "", "this one writes there"


async def test_a_full_server_is_not_asked_while_its_guest_gets_on(reach: Reach) -> None:
    """What it cannot serve stays in its queue of connections, which is short."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        image = nbd(listener.getsockname()[1])
        for _ in range(3):
            assert await asked(reach, Guest("vda"), image, vda=(image,)) == ""
        listener.setblocking(False)
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert "does not answer" in await asked(reach, Guest(), image, vda=(image,))


async def test_a_queue_that_is_full_as_well(reach: Reach) -> None:
    """Then not even the kernel accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        image = nbd(listener.getsockname()[1])
        with socket.create_connection(listener.getsockname()):
            assert await asked(reach, Guest("vda"), image, vda=(image,)) == ""
            assert "cannot be connected to" in await asked(reach, Guest(), image, vda=(image,))


async def test_one_that_refuses_is_down_whatever_the_guest_did(reach: Reach) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        image = nbd(one.getsockname()[1])
    assert "refuses connections" in await asked(reach, Guest("vda"), image, vda=(image,))


async def test_other_protocols_have_room(reach: Reach, full: int) -> None:
    image = Source.network("iscsi", "iqn.x/0", [Host("127.0.0.1", str(full))])
    assert "does not answer" in await asked(reach, Guest("vda"), image, vda=(image,))
