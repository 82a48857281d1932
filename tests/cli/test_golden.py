"""Texts and JSON are compared with files, so that a change of either is seen by whoever makes it."""

import pytest

from . import cases

TEXTS = dict(cases.texts())


@pytest.mark.parametrize("name", TEXTS)
def test_a_report_reads_as_before(name: str) -> None:
    assert TEXTS[name] == (cases.GOLDEN / name).read_text(encoding="utf-8")


def test_there_is_no_golden_file_too_many() -> None:
    assert {path.name for path in cases.GOLDEN.iterdir()} == TEXTS.keys()


def test_the_published_schema_of_the_json_is_that_of_the_models() -> None:
    assert cases.schema() == cases.SCHEMA.read_text(encoding="utf-8")
