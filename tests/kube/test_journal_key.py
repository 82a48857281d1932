"""The key of the journals' seals: made once, kept, read by everybody."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from controller.chain.seal import Seals, key_id
from controller.kube.errors import Forbidden, KubeError, Rejected
from controller.kube.fake import FakeKube
from controller.kube.journal_key import NAME, seals
from controller.kube.kinds import SECRET, Raw

NAMESPACE = "varve-system"


def secret(**data: str) -> Raw:
    """The Secret with this data, decoded."""
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in data.items()}
    body: Raw = {"metadata": {"name": NAME, "namespace": NAMESPACE}, "type": "Opaque"}
    return {**body, "data": encoded} if encoded else body


def line(key: bytes) -> str:
    """A key as a line of ``previous``."""
    return base64.b64encode(key).decode()


async def test_the_first_makes_the_key_and_all_later_ones_read_it() -> None:
    kube: Any = FakeKube()
    first = await seals(kube, NAMESPACE)
    kube.forget_calls()
    assert (await seals(kube, NAMESPACE)).ids == first.ids
    assert [call.verb for call in kube.calls] == ["get"]


async def test_an_empty_secret_as_the_manifests_bring_it_is_filled() -> None:
    kube: Any = FakeKube()
    kube.create_object(SECRET, secret())
    found = await seals(kube, NAMESPACE, random=lambda size: b"r" * size)
    assert found.ids == (key_id(b"r" * 32),)
    data = kube.object(SECRET, NAMESPACE, NAME)["data"]
    assert base64.b64decode(data["key"]) == b"r" * 32


@pytest.mark.parametrize("there", [False, True])
async def test_two_that_start_at_once_end_with_one_key(there: bool) -> None:
    kube: Any = FakeKube()
    if there:
        kube.create_object(SECRET, secret())
    found = await asyncio.gather(*(seals(kube, NAMESPACE) for _ in range(8)))
    assert len({one.ids for one in found}) == 1


async def test_previous_keys_are_believed_and_do_not_seal() -> None:
    kube: Any = FakeKube()
    old, older = b"o" * 32, b"p" * 40
    kube.create_object(SECRET, secret(key="n" * 32, previous=f"{line(old)}\n{line(older)}\n"))
    found = await seals(kube, NAMESPACE)
    assert found.ids[0] == key_id(b"n" * 32)
    assert set(found.ids) == {key_id(key) for key in (b"n" * 32, old, older)}


@pytest.mark.parametrize(
    "data",
    [
        {"key": "short"},
        {"key": "n" * 32, "previous": "no base64!"},
        {"key": "n" * 32, "previous": line(b"short")},
        {"key": "n" * 32, "previous": "\u00e9"},
    ],
)
async def test_a_key_that_is_none_is_refused_with_what_one_is(data: dict[str, str]) -> None:
    kube: Any = FakeKube()
    kube.create_object(SECRET, secret(**data))
    with pytest.raises(Rejected, match="32 random bytes"):
        await seals(kube, NAMESPACE)
    assert not kube.writes, "and it is never replaced: records may be sealed with it"


async def test_without_the_secret_and_without_the_right_to_make_it_nothing_begins() -> None:
    kube: Any = FakeKube()
    kube.fail("create", Forbidden("no right to create secrets"))
    with pytest.raises(KubeError, match=r"no right.*apply the manifests"):
        await seals(kube, NAMESPACE)


def test_a_key_is_long_enough() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Seals(b"k" * 31)
