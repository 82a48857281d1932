"""Lists that are read item by item are what one decoding of the whole would give, however they are cut."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.kube.scan import ListScanner, NotAList

TEXT = st.characters(exclude_categories=["Cs"])

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(TEXT, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(TEXT, max_size=4), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(TEXT, max_size=4), values, max_size=4)
rests = st.dictionaries(st.text(TEXT, max_size=6).filter(lambda name: name != "items"), values, max_size=3)


def scanned(text: bytes, pieces: list[int]) -> tuple[list[dict[str, Any]], ListScanner]:
    scanner, found, at = ListScanner(), [], 0
    for size in pieces:
        found += scanner.feed(text[at : at + size])
        at += size
    found += scanner.feed(text[at:])
    found += scanner.end()
    return found, scanner


@st.composite
def lists(draw: st.DrawFn) -> tuple[bytes, list[dict[str, Any]]]:
    """The text of a list, and its items."""
    before, items, after = draw(rests), draw(st.lists(objects, max_size=4)), draw(rests)
    whole = {**before, "items": items, **{name: value for name, value in after.items() if name not in before}}
    indent, escaped = draw(st.sampled_from([None, 1])), draw(st.booleans())
    return json.dumps(whole, indent=indent, ensure_ascii=escaped).encode(), items


@given(of=lists(), pieces=st.lists(st.integers(0, 9), max_size=60))
def test_items_and_rest_are_those_of_the_whole(
    of: tuple[bytes, list[dict[str, Any]]], pieces: list[int]
) -> None:
    text, items = of
    found, scanner = scanned(text, pieces)
    assert found == items
    assert {**scanner.rest, "items": items} == json.loads(text)


def test_an_item_is_given_as_soon_as_it_has_ended() -> None:
    scanner = ListScanner()
    assert list(scanner.feed(b'{"items":[{"a":1},{"b"')) == [{"a": 1}]
    assert list(scanner.feed(b":2}]")) == []  # half as much more is no reason to try again
    assert list(scanner.feed(b',"kind":"List"}')) == [{"b": 2}]
    assert scanner.done


@pytest.mark.parametrize("text", ['{"items":[{"a":1}', '{"items":[{"a', '{"items":[]', "", '{"kind":"Li'])
def test_a_list_that_is_cut_is_no_shorter_list(text: str) -> None:
    with pytest.raises(NotAList):
        scanned(text.encode(), [])


@pytest.mark.parametrize(
    "text", ["[]", '{"items":[1]}', '{"items":[{}]]', "<html>", '{"items":[}', b"\xff{}"]
)
def test_what_is_no_list_is_refused(text: str | bytes) -> None:
    with pytest.raises(NotAList):
        scanned(text.encode() if isinstance(text, str) else text, [])


def test_a_long_item_is_not_decoded_again_for_each_piece_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scanner, tried = ListScanner(), 0
    decode = scanner._value

    def counting(text: str, at: int) -> tuple[Any, int]:
        nonlocal tried
        tried += len(text) - at
        return decode(text, at)

    monkeypatch.setattr(scanner, "_value", counting)
    item = {"a": "x" * 100_000}
    text = json.dumps({"items": [item]}).encode()
    found = [one for at in range(0, len(text), 100) for one in scanner.feed(text[at : at + 100])]
    assert [*found, *scanner.end()] == [item]
    assert tried < 5 * len(text)


def test_a_number_that_is_cut_after_its_point_goes_on() -> None:
    text = b'{"a": 0.5, "items": [], "b": -1e+2}'
    for cut in range(1, len(text)):
        found, scanner = scanned(text, [cut])
        assert (found, scanner.rest) == ([], {"a": 0.5, "b": -100.0})
