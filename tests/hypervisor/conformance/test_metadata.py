"""The journal's place: an element of <metadata>, live and persistent."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from controller.chain.disk import Layer
from controller.chain.journal import DiskJournal, Journal, Operation, OperationKind, Owner, Point
from controller.chain.journal_codec import decode, encode
from controller.chain.parse import JOURNAL_NAMESPACE, parse_domain
from controller.chain.source import Source
from controller.hypervisor.errors import DomainGone, NotRunning, OperationFailed
from tests.hypervisor.conformance.workbench import Drive, Kind, Workbench

ABSENT = "00000000-0000-4000-8000-000000000000"


def journal(text: str) -> str:
    return f'<chain xmlns="{JOURNAL_NAMESPACE}"><note text="{text}"/></chain>'


async def recorded(bench: Workbench, uuid: str) -> tuple[str | None, str | None]:
    """The note in the live and in the persistent document."""
    reading = await bench.driver.read(uuid)

    def note(xml: str | None) -> str | None:
        element = None if xml is None else parse_domain(xml).journal_xml
        if element is None:
            return None
        found = etree.fromstring(element.encode()).find(f"{{{JOURNAL_NAMESPACE}}}note")
        assert found is not None
        return found.get("text")

    return note(reading.live_xml), note(reading.inactive_xml)


async def test_set_replace_remove(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    assert await recorded(bench, uuid) == (None, None)
    await bench.driver.set_metadata(uuid, journal("a"), live=True, config=True)
    assert await recorded(bench, uuid) == ("a", "a")
    await bench.driver.set_metadata(uuid, journal("b"), live=True, config=False)
    assert await recorded(bench, uuid) == ("b", "a")
    await bench.driver.set_metadata(uuid, journal("c"), live=False, config=True)
    assert await recorded(bench, uuid) == ("b", "c")
    await bench.driver.set_metadata(uuid, None, live=True, config=True)
    assert await recorded(bench, uuid) == (None, None)
    await bench.driver.set_metadata(uuid, None, live=True, config=True)


async def test_persistent_half_is_what_the_next_start_shows(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    await bench.driver.set_metadata(uuid, journal("live"), live=True, config=False)
    await bench.driver.set_metadata(uuid, journal("kept"), live=False, config=True)
    await bench.stop(uuid)
    assert await recorded(bench, uuid) == (None, "kept")
    with pytest.raises(NotRunning):
        await bench.driver.set_metadata(uuid, journal("x"), live=True, config=True)
    assert await recorded(bench, uuid) == (None, "kept")
    await bench.start(uuid)
    assert await recorded(bench, uuid) == ("kept", "kept")


async def test_survives_the_daemon(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    await bench.driver.set_metadata(uuid, journal("a"), live=True, config=True)
    await bench.restart_libvirtd()
    await bench.connect()
    assert await recorded(bench, uuid) == ("a", "a")


async def test_transient_domain_has_only_the_live_half(bench: Workbench) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))}, persistent=False)
    with pytest.raises(OperationFailed) as error:
        await bench.driver.set_metadata(uuid, journal("a"), live=True, config=True)
    assert error.value.code == 55
    assert await recorded(bench, uuid) == (None, None)
    await bench.driver.set_metadata(uuid, journal("a"), live=True, config=False)
    assert await recorded(bench, uuid) == ("a", None)


async def test_missing_domain(bench: Workbench) -> None:
    with pytest.raises(DomainGone):
        await bench.driver.set_metadata(ABSENT, journal("a"), live=False, config=True)


async def test_another_namespace_is_refused(bench: Workbench) -> None:
    """libvirt would keep it beside the next one for ever: it replaces by namespace."""
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    with pytest.raises(ValueError, match="namespace"):
        await bench.driver.set_metadata(uuid, '<chain xmlns="urn:other"/>', live=True, config=True)
    assert await recorded(bench, uuid) == (None, None)


async def test_a_journal_comes_back_as_it_was_written(bench: Workbench, tmp_path: Path) -> None:
    uuid = await bench.machine({"vda": Drive(await bench.image(Kind.FILE))})
    base = Layer(Source.file(str(tmp_path / "ba<se&.qcow2")), "qcow2")
    overlay = Layer(Source.network("nbd", "exp 1"), "qcow2")
    owner = Owner("team-ä", "before-upgrade", "6f9d")
    point = Point(overlay.key, (owner,), "2024-05-01T10:00:00Z", "Frozen", "it's fine", capacity=1 << 40)
    operation = Operation(
        OperationKind.COMMIT, "2024-05-01T10:00:01Z", (owner,), kept=base, merged=(overlay,), attempt=2
    )
    written = Journal(
        "cluster-1",
        (DiskJournal("vda", (point,), images=frozenset({overlay.key}), operation=operation),),
    )
    await bench.driver.set_metadata(uuid, encode(written), live=True, config=True)
    reading = await bench.driver.read(uuid)
    for xml in (reading.live_xml, reading.inactive_xml):
        assert xml is not None
        assert decode(parse_domain(xml).journal_xml) == written
