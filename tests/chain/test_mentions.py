"""A5: whatever a definition names, wherever it stands, is no place to write over."""

from __future__ import annotations

import pytest

from controller.chain.journal import DiskJournal, Journal, Removal
from controller.chain.journal_codec import encode
from controller.chain.mentions import mentions
from controller.chain.parse import ParseError
from controller.chain.source import Host, Source
from tests.chain import builders as b


def domain(inside: str) -> str:
    return (
        "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
        f"<name>web-2</name><uuid>u</uuid>{inside}</domain>"
    )


PLACES = {
    "loader": ("<os><loader type='pflash'>/p</loader></os>", "/p"),
    "nvram": ("<os><nvram template='/t'> /p </nvram></os>", "/p"),
    "nvram's template": ("<os><nvram template='/p'>/n</nvram></os>", "/p"),
    "nvram in a source": ("<os><nvram type='file'><source file='/p'/></nvram></os>", "/p"),
    "kernel": ("<os><kernel>/p</kernel><initrd>/i</initrd></os>", "/p"),
    "initrd": ("<os><kernel>/k</kernel><initrd>/p</initrd></os>", "/p"),
    "device tree": ("<os><dtb>/p</dtb></os>", "/p"),
    "ACPI table": ("<os><acpi><table type='slic'>/p</table></acpi></os>", "/p"),
    "emulator": ("<devices><emulator>/p</emulator></devices>", "/p"),
    "file system": (
        "<devices><filesystem type='block'><source dev='/p'/><target dir='d'/></filesystem></devices>",
        "/p",
    ),
    "host device": (
        "<devices><hostdev mode='capabilities' type='storage'><source><block>/p</block></source></hostdev>"
        "</devices>",
        "/p",
    ),
    "serial": ("<devices><serial type='file'><source path='/p'/></serial></devices>", "/p"),
    "serial's log": (
        "<devices><console type='pty'><log file='/p' append='off'/></console></devices>",
        "/p",
    ),
    "TPM": (
        "<devices><tpm><backend type='passthrough'><device path='/p'/></backend></tpm></devices>",
        "/p",
    ),
    "memory": ("<devices><memory model='nvdimm'><source><path>/p</path></source></memory></devices>", "/p"),
    "random numbers": ("<devices><rng><backend model='random'>/p</backend></rng></devices>", "/p"),
    "data file": (
        "<devices><disk type='file'><source file='/x'><dataStore type='block'><source dev='/p'/></dataStore>"
        "</source><target dev='vda'/></disk></devices>",
        "/p",
    ),
    "argument": (
        "<qemu:commandline><qemu:arg value='file=/p,if=none,format=raw'/></qemu:commandline>",
        "/p",
    ),
    "JSON": (
        """<qemu:commandline><qemu:arg value='{"driver":"file","filename":"/p"}'/></qemu:commandline>""",
        "/p",
    ),
    "URI": ("<qemu:commandline><qemu:arg value='-drive file=file:///p'/></qemu:commandline>", "/p"),
    "with spaces": ("<os><kernel>/a b, c=/d</kernel></os>", "/a b, c=/d"),
    "of tomorrow": ("<devices><vault keeps='/p'><box><thing>/q</thing></box></vault></devices>", "/p"),
    "others' metadata": ("<metadata><x:b xmlns:x='urn:x' at='/p'/></metadata>", "/p"),
}


@pytest.mark.parametrize(("inside", "path"), PLACES.values(), ids=PLACES)
def test_a_path_is_found_wherever_it_stands(inside: str, path: str) -> None:
    assert Source.file(path).footprint in mentions(domain(inside))


def test_a_lun_as_a_host_device_is_found() -> None:
    lun = Source.network("iscsi", "iqn.2024-01.org:t/1", [Host("san", "3260")])
    inside = (
        "<devices><hostdev mode='subsystem' type='scsi'><source protocol='iscsi' name='iqn.2024-01.org:t/1'>"
        "<host name='other' port='3260'/></source></hostdev></devices>"
    )
    assert lun.footprint in mentions(domain(inside))


def test_a_directory_has_all_that_lies_in_it() -> None:
    inside = "<devices><filesystem><source dir='/srv//share/'/><target dir='d'/></filesystem></devices>"
    found = mentions(domain(inside))
    assert found & set(Source.file("/srv/share/a/b.qcow2").claimed_as)
    assert not found & set(Source.file("/srv/shared.qcow2").claimed_as)


def test_a_volume_is_found() -> None:
    inside = "<devices><filesystem><source pool='p' volume='v'/><target dir='d'/></filesystem></devices>"
    assert Source.from_uri("volume:p/v").footprint in mentions(domain(inside))


def test_words_are_no_paths() -> None:
    inside = "<title>and/or</title><os><type machine='pc-q35/x'>hvm</type></os><a b='1/2 a/b c:d/e'/>"
    assert mentions(domain(inside)) == frozenset()


def test_varves_record_is_not_looked_into() -> None:
    """It names orphans, which nobody needs any more; what it claims is told from it itself."""
    orphan = DiskJournal("vda", removals=(Removal(b.layer("left"), left="no driver"),))
    inside = f"<metadata>{encode(Journal('c', (orphan,)))}</metadata>"
    assert mentions(domain(inside)) == frozenset()


@pytest.mark.parametrize("text", ["", "<domain", "<domain>\ud800</domain>"])
def test_what_cannot_be_read_names_not_nothing(text: str) -> None:
    with pytest.raises(ParseError):
        mentions(text)
