"""Reasons are part of the API: each is a CamelCase word with one sentence."""

import re

import pytest

from controller.api.reasons import Reason


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_has_a_name_that_fits_and_one_sentence(reason: Reason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]{2,40}", reason)
    assert reason.lower() == reason.name.replace("_", "").lower()
    assert re.fullmatch(r"[A-Za-z][^\n]{15,160}\.", reason.sentence)
    assert Reason(str(reason)) is reason


def test_no_sentence_is_said_twice() -> None:
    assert len({reason.sentence for reason in Reason}) == len(Reason)
