"""Texts that are not UTF-8, as libvirt-python hands them on: in the error that it raises."""

from __future__ import annotations

import pytest

from controller.hypervisor.texts import odd_word, told

DOCUMENT = b"<disk type='file'><source file='/i/caf\xe9 1.iso'/><source file='/i/d'/></disk>"


def test_b6_what_is_not_utf8_can_be_read_all_the_same() -> None:
    assert told(lambda: "plain") == "plain"
    assert told(DOCUMENT.decode).startswith("<disk type='file'><source file='/i/caf\\xe9 1.iso'/><source")


def test_b6_the_name_that_is_not_utf8_is_found() -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        DOCUMENT.decode()
    assert odd_word(caught.value) == "/i/caf\\xe9"
