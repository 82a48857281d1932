"""What is missing is named with what brings it."""

from __future__ import annotations

import libvirt
import pytest

from controller.hypervisor import errors, needs
from controller.hypervisor.codes import translate
from tests.hypervisor.test_codes import QEMU, libvirt_error

ALL = {
    "backing-store-input",
    "commit-active",
    "commit-relative",
    "rebase-relative",
    "snapshot-quiesce",
    "storage-dir",
    "storage-gluster",
    "storage-rbd",
}


def test_nothing_is_missing_where_all_is_there() -> None:
    assert list(needs.missing(ALL | {"storage-disk"}, asked=True)) == []


def test_everything_that_is_missing_is_named_in_order_with_its_cure() -> None:
    found = list(needs.missing({"storage-disk"}, asked=True))
    assert [name for name, _, _ in found] == sorted(ALL)
    cures = {name: cure for name, _, cure in found}
    assert "libvirt-daemon-driver-storage-gluster" in cures["storage-gluster"]
    assert "libvirt-daemon-driver-storage-rbd" in cures["storage-rbd"]
    assert "1.2.7" in cures["commit-relative"]
    assert all(0 < len(text) <= 256 for _, without, cure in found for text in (without, cure))


def test_b8_a_hypervisor_without_any_storage_driver_is_told_so_once() -> None:
    """B8: virtqemud without virtstoraged, or libvirtd without its storage driver."""
    found = {name: (without, cure) for name, without, cure in needs.missing(frozenset(), asked=True)}
    assert found.keys() == {name for name in ALL if not name.startswith("storage-")} | {"storage"}
    assert "virtstoraged.socket" in found["storage"][1]
    assert all(0 < len(text) <= 256 for text in found["storage"])


def test_flags_are_not_missing_before_they_could_be_asked_for() -> None:
    names = {name for name, _, _ in needs.missing({"storage-disk"}, asked=False)}
    assert names == ALL - needs.ASKED_OF_DOMAINS


@pytest.mark.parametrize("changing", [False, True], ids=["reading", "changing"])
@pytest.mark.parametrize(
    ("message", "cure"),
    [
        ("unable to execute QEMU command 'blockdev-add': Unknown driver 'rbd'", "qemu-block-rbd (Fedora"),
        ("unable to execute QEMU command 'blockdev-add': Unknown driver 'https'", "block-curl.so"),
        (
            "unable to execute QEMU command 'blockdev-create': Block driver 'nfs' not found or not supported",
            "nfs",
        ),
        (
            "process exited while connecting to monitor: qemu: module block-block-gluster not found, do you "
            "want to install qemu-block-extra package?\nqemu-system-x86_64: Unknown driver 'gluster'",
            "qemu-block-extra (Debian",
        ),
        (
            "unable to execute QEMU command 'blockdev-add': Unknown protocol 'iscsi'",
            "qemu-block-iscsi (Fedora",
        ),
        (
            "QEMU command 'blockdev-add': Parameter 'driver' does not accept value 'sheepdog'",
            "no package brings it",
        ),
    ],
)
def test_a_driver_that_qemu_lacks(message: str, cure: str, changing: bool) -> None:
    """Texts of QEMU 7.2 without its modules; real/test_no_modules.py pins those of a snapshot."""
    found = translate(libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, QEMU, message), changing=changing)
    assert type(found) is errors.DriverMissing
    assert found.message.startswith(message)
    assert cure in found.message


@pytest.mark.parametrize(
    "message",
    ["Could not open 'x': No such file", "Unknown driver '<script>'", "Unknown driver", "rbd: unknown"],
)
def test_other_words_are_no_missing_driver(message: str) -> None:
    assert needs.block_driver_of(message) is None
