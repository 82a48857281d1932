"""A host with the libvirt and QEMU of another Debian."""

from pathlib import Path

import pytest

from lab.errors import LabError
from lab.hosts.host import Host
from lab.hosts.release import Release
from lab.lab import Lab
from lab.pytest_plugin import MachineFactory


@pytest.mark.real
def test_it_has_its_own_programs_and_the_same_paths(
    trixie: Host, host: Host, machines: MachineFactory
) -> None:
    """B25: libvirt 11.3 and QEMU 10.0 beside those of this machine; images are where they are outside."""
    assert trixie.connection().getLibVersion() == 11_003_000
    assert trixie.connection().getVersion() // 1000 == 10_000
    assert trixie.connection().getHostname() == "varve-trixie"
    machine = machines(host=trixie)
    machine.wait_writing()
    assert Path(machine.chain()[0].source.name).exists()
    before = machine.qemu()
    trixie.restart()
    assert machine.alive()
    assert machine.qemu() == before
    assert host.connection().getLibVersion() != 0


@pytest.mark.real
def test_others_find_it(lab: Lab, trixie: Host) -> None:
    found = {host.name: host.release for host in Lab.attach(lab.directory).hosts()}
    assert found[trixie.name] == "trixie"


@pytest.mark.real
def test_a_lab_leaves_nothing_in_the_folder(lab: Lab, trixie: Host) -> None:
    """All labs of the machine share the folder: what a host sees of its lab is mounted for it alone."""
    folder = Release.get("trixie").root
    assert not Path(f"{folder}{lab.directory}").exists()
    assert trixie.running


def test_an_unknown_release_says_which_there_are() -> None:
    with pytest.raises(LabError, match="'sarge'; there are trixie"):
        Release.get("sarge")
