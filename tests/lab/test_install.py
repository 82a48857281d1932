"""What the lab installs, on the releases of Debian that it knows."""

import subprocess

import pytest

from lab import install
from lab.hosts.host import Host
from lab.hosts.release import Release


@pytest.mark.real
def test_drivers_that_debian_13_has_in_packages_of_their_own(trixie: Host) -> None:
    """B25: named only if they are not there, and by names that exist."""
    root = Release.get("trixie").root
    missing = install._missing_files(install.SPLIT, root)
    assert not missing, "the folder has them"
    for package in install.SPLIT.values():
        subprocess.run(["chroot", root, "apt-cache", "show", package], check=True, capture_output=True)
    assert trixie.running


def test_they_are_asked_for_when_all_else_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """B25: with libvirtd missing nobody can tell whether its drivers are split off."""
    monkeypatch.setattr(install, "SPLIT", {"nowhere/to/be.so": "libvirt-daemon-driver-none"})
    monkeypatch.setattr(install, "COMMANDS", {"no-such-libvirtd": "libvirt-daemon"})
    assert "libvirt-daemon" in install.missing_packages()
    assert "libvirt-daemon-driver-none" not in install.missing_packages()
    for others in ("COMMANDS", "FILES"):
        monkeypatch.setattr(install, others, {})
    monkeypatch.setattr(install, "_missing_for_python", set)
    assert install.missing_packages() == ["libvirt-daemon-driver-none"]
