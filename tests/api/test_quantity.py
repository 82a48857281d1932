"""Sizes as Kubernetes quantities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.quantity import parse_quantity, quantity

_FACTORS = {"": 0, "Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0"),
        (1, "1"),
        (1023, "1023"),
        (1024, "1Ki"),
        (20 * 2**30, "20Gi"),
        (3 * 2**29, "1536Mi"),
        (20 * 2**30 + 512, "21474836992"),
        (10**9, "1000000000"),
        (2**70, "1024Ei"),
    ],
)
def test_sizes(size: int, expected: str) -> None:
    assert quantity(size) == expected


@given(st.integers(min_value=0, max_value=2**64))
def test_no_byte_is_lost(size: int) -> None:
    text = quantity(size)
    digits = text.rstrip("KMGTPEi")
    assert int(digits) * 1024 ** _FACTORS[text[len(digits) :]] == size


def test_a_negative_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="negative"):
        quantity(-1)


@given(st.integers(min_value=0, max_value=2**64))
def test_what_is_written_is_read_back(size: int) -> None:
    assert parse_quantity(quantity(size)) == size


@pytest.mark.parametrize("text", ["", "Gi", "1.5Gi", "20G", "a"])
def test_another_text_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_quantity(text)
