"""The check of the guest's writes finds every kind of damage."""

import pytest

from lab.errors import LabError
from lab.machines.writer import SECTOR, WriterOptions, boot_sector, check_writer, expected_sector

OPTIONS = WriterOptions(window_sectors=64, base_sector=8)
MAGIC = 0xABCDEF00


def disk_after(newest: int, *, drive: int = 0) -> bytearray:
    """The disk as the guest leaves it after `newest` writes, built by doing them."""
    disk = bytearray(OPTIONS.end_bytes + SECTOR)
    for counter in range(1, newest + 1):
        put(disk, counter % OPTIONS.window_sectors, expected_sector(counter, MAGIC, drive))
    return disk


def put(disk: bytearray, sector: int, data: bytes) -> None:
    at = (OPTIONS.base_sector + sector) * SECTOR
    disk[at : at + SECTOR] = data


@pytest.mark.parametrize("newest", [1, 63, 64, 65, 1000])
def test_an_undamaged_disk_passes(newest: int) -> None:
    check = check_writer(disk_after(newest), OPTIONS, magic=MAGIC, drive=0)
    assert check.ok
    assert check.max_counter == newest
    assert check.checked_sectors == min(newest, 64)


def test_nothing_written_is_not_ok() -> None:
    check = check_writer(disk_after(0), OPTIONS, magic=MAGIC, drive=0)
    assert (check.max_counter, check.torn, check.wrong) == (0, 0, 0)
    assert not check.ok


@pytest.mark.parametrize("newest", [10, 1000])
def test_every_flipped_byte_is_found(newest: int) -> None:
    for at in range(OPTIONS.base_sector * SECTOR, OPTIONS.end_bytes, 97):
        disk = disk_after(newest)
        disk[at] ^= 0x10
        check = check_writer(disk, OPTIONS, magic=MAGIC, drive=0)
        newest_sector = OPTIONS.base_sector + newest % OPTIONS.window_sectors
        assert not check.ok, at
        assert check.torn == 1 or at // SECTOR == newest_sector


def test_a_lost_a_stale_and_a_misplaced_write_are_found() -> None:
    lost, stale, misplaced = disk_after(1000), disk_after(1000), disk_after(1000)
    put(lost, 7, bytes(SECTOR))
    put(stale, 7, expected_sector(7 + 64, MAGIC, 0))
    put(misplaced, 7, expected_sector(999, MAGIC, 0))
    for disk in (lost, stale, misplaced):
        check = check_writer(disk, OPTIONS, magic=MAGIC, drive=0)
        assert (check.max_counter, check.torn, check.wrong) == (1000, 0, 1)
        assert check.first_bad_sector == OPTIONS.base_sector + 7


def test_a_write_of_two_halves_is_torn() -> None:
    disk = disk_after(1000)
    old, new = expected_sector(7 + 64, MAGIC, 0), expected_sector(967, MAGIC, 0)
    put(disk, 7, new[:256] + old[256:])
    check = check_writer(disk, OPTIONS, magic=MAGIC, drive=0)
    assert (check.torn, check.wrong) == (1, 0)


def test_content_of_another_disk_or_machine_is_found() -> None:
    assert not check_writer(disk_after(10, drive=1), OPTIONS, magic=MAGIC, drive=0).ok
    assert not check_writer(disk_after(10), OPTIONS, magic=MAGIC + 256, drive=0).ok


def test_a_disk_that_ends_in_the_window_is_refused() -> None:
    with pytest.raises(LabError, match="ends inside"):
        check_writer(disk_after(10)[: OPTIONS.end_bytes - 1], OPTIONS, magic=MAGIC, drive=0)


@pytest.mark.parametrize("options", [{"window_sectors": 65}, {"dot_every": 512}, {"burst": 256}])
def test_options_that_the_guest_cannot_do_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(LabError):
        WriterOptions(**options)


def test_the_boot_sector_carries_its_parameters() -> None:
    one = boot_sector(OPTIONS, magic=MAGIC, drives=1)
    other = boot_sector(OPTIONS, magic=MAGIC, drives=2)
    assert len(one) == SECTOR
    assert one[-2:] == b"\x55\xaa"
    assert sum(left != right for left, right in zip(one, other, strict=True)) == 1
