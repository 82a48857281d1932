"""The gate: every row at its borders, and what an unknown version is taken for."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.chain.gate import DEEPEST, TABLE, UNKNOWN, Fault, Product, Row, Version, gate, parsed

ROOT = Path(__file__).parents[2]


def text(version: Version) -> str:
    return ".".join(map(str, version))


def before(version: Version) -> Version:
    """The last version before this one."""
    major, minor, micro = version
    if micro:
        return (major, minor, micro - 1)
    return (major, minor - 1, 89) if minor else (major - 1, 99, 89)


@pytest.mark.parametrize(
    ("libvirt", "deepest"),
    [
        ("9.0.0", DEEPEST),
        ("10.7.0", DEEPEST),
        ("10.7.999", DEEPEST),
        ("10.8.0", 22),
        ("10.10.0", 22),
        ("11.3.0", 22),
        ("11.10.0", 22),
        ("11.10.3", 22),
        ("12.0.0", DEEPEST),
        ("12.8.0", DEEPEST),
        ("99.0.0", DEEPEST),
        ("", 22),
        (None, 22),
        ("unknown", 22),
        ("0.0.0", 22),
    ],
)
def test_the_deepest_chain(libvirt: str | None, deepest: int) -> None:
    """A3: what libvirt starts again, at each border; a version that is not known counts as faulty."""
    assert gate(libvirt, "7.2.22").deepest == deepest


@pytest.mark.parametrize(
    ("libvirt", "deepest"),
    [("10.7.0", DEEPEST), ("10.8.0", 27), ("11.10.0", 27), ("12.0.0", DEEPEST), ("", 27)],
)
def test_the_deepest_chain_that_may_be_measured(libvirt: str, deepest: int) -> None:
    """A3: where asking for statistics would cut libvirt off from its QEMU."""
    assert gate(libvirt, "7.2.22").deepest_measured == deepest


@pytest.mark.parametrize(
    ("qemu", "machine", "may"),
    [
        ("7.2.22", "pc-i440fx-7.2", False),
        ("9.2.4", "pc-q35-9.2", False),
        ("10.0.0", "pc-i440fx-10.0", True),
        ("10.0.13", "pc-q35-10.0", True),
        ("10.0.90", "pc-q35-10.0", False),
        ("10.1.0", "pc-q35-10.0", False),
        ("11.1.3", "pc-q35-11.1", False),
        ("", "pc-q35-10.0", False),
        (None, "pc-q35-10.0", False),
        # It may have been started before an upgrade.
        ("10.0.13", "pc-i440fx-7.2", False),
        ("10.0.13", "pc-q35-9.2", False),
        ("10.0.13", "pc-q35-10.1", False),
        ("10.0.13", "pc-q35-rhel10.0.0", False),
        ("10.0.13", "pc", False),
        ("10.0.13", "microvm", False),
        ("10.0.13", "", False),
    ],
)
def test_watching_a_pull(qemu: str | None, machine: str, *, may: bool) -> None:
    """A4 and ADR 6: only where it was tried, and only if the machine surely runs on what is installed."""
    assert gate("12.0.0", qemu).may_watch_pulls(machine) is may


@pytest.mark.parametrize(
    ("libvirt", "waits"),
    [
        ("10.10.0", False),
        ("11.0.0", True),
        ("11.3.0", True),
        ("11.4.0", True),
        ("11.4.999", True),
        ("11.5.0", False),
        ("12.0.0", False),
        ("", True),
    ],
)
def test_reading_beside_a_job(libvirt: str, *, waits: bool) -> None:
    """B9: where reading a definition waits for the job of its machine."""
    assert gate(libvirt, "7.2.22").reads_wait is waits


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.fault}-{text(row.first)}")
def test_a_row_holds_from_its_first_version_to_the_last_before_the_mended_one(row: Row) -> None:
    def in_force(version: Version) -> bool:
        versions = {"libvirt": "9.0.0", "qemu": "10.0.0", row.product.lower(): text(version)}
        return row in gate(versions["libvirt"], versions["qemu"]).rows

    if row.first > (0, 0, 0):
        assert in_force(row.first)
        assert not in_force(before(row.first))
    if row.below is None:
        assert in_force((999, 0, 0))
    else:
        assert not in_force(row.below)
        assert in_force(before(row.below))


def test_the_ranges_of_one_fault_do_not_meet() -> None:
    for one, other in itertools.combinations(TABLE, 2):
        if one.fault is other.fault:
            assert one.product is other.product
            first, second = sorted((one, other), key=lambda row: row.first)
            assert first.below is not None
            assert first.below <= second.first


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.fault}-{text(row.first)}")
def test_the_test_of_a_row_is_there(row: Row) -> None:
    file, _, name = row.test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in functions


@given(st.tuples(*[st.integers(0, 40)] * 3), st.tuples(*[st.integers(0, 99)] * 3))
def test_an_unknown_version_is_never_better_off_than_a_known_one(libvirt: Version, qemu: Version) -> None:
    known = gate(text(libvirt), text(qemu))
    assert UNKNOWN.deepest <= known.deepest
    assert UNKNOWN.deepest_measured <= known.deepest_measured
    assert known.deepest <= known.deepest_measured
    assert UNKNOWN.reads_wait >= known.reads_wait
    for machine in ("pc-q35-10.0", f"pc-q35-{qemu[0]}.{qemu[1]}"):
        assert not UNKNOWN.may_watch_pulls(machine)
    assert {row.fault for row in known.rows} <= {row.fault for row in UNKNOWN.rows} == set(Fault)


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("9.0.0", (9, 0, 0)),
        ("11.10.0", (11, 10, 0)),
        ("10.10", (10, 10, 0)),
        ("10.0.2+ds-2", (10, 0, 2)),
        ("7.2.22 (Debian 1:7.2+dfsg)", (7, 2, 22)),
        ("0.0.0", None),
        ("10", None),
        ("v10.0", None),
        ("10.0.0.1", None),
        ("", None),
        (None, None),
    ],
)
def test_versions_are_compared_as_numbers(version: str | None, numbers: Version | None) -> None:
    assert parsed(version) == numbers


def test_a_version_is_told_as_it_was_given() -> None:
    assert gate("11.3.0", "10.0.2").version_of(Product.LIBVIRT) == "libvirt 11.3.0"
    assert gate("", "10.0.2").version_of(Product.LIBVIRT) == "libvirt (version not known)"
