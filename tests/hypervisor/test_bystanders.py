"""B3, B4: images beside a chain that name a layer of it: who of them is a user, as far as can be known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest

from controller.chain.journal import DiskJournal, Journal, Removal
from controller.chain.observation import Observation
from controller.chain.outcome import NOT_OURS
from controller.chain.source import Host, Source
from controller.chain.upkeep import SET_ASIDE, TAKEN_OUT
from controller.hypervisor.bystanders import Bystanders, Referrers
from controller.hypervisor.driver import Driver
from tests.chain import builders as b

BASE = b.layer("base").source
CHAIN = b.disk("top", "base")


class Headers:
    """A place where images name others: by location, what each of them stands on."""

    def __init__(self, named: Mapping[str, Source]) -> None:
        self._named = named

    async def referrers(self, source: Source) -> tuple[str, ...]:
        return tuple(at for at, below in self._named.items() if below.key == source.key)


def path(name: str) -> str:
    return f"/images/{name}"


def seen(*left: Removal, listed: tuple[str, ...] = (), **changes: object) -> Observation:
    record = DiskJournal(b.TARGET, images=frozenset({CHAIN.keys[0]}), removals=left)
    found = b.observation(b.facts(CHAIN), records=[record], not_in_use={b.TARGET: listed} if listed else {})
    return replace(found, **changes)  # type: ignore[arg-type]  # fields of Observation


def left(name: str, why: str = TAKEN_OUT, *, attempted: bool = False) -> Removal:
    return Removal(b.layer(name), left=why, attempted=attempted)


async def asked(observation: Observation, source: Source = BASE, **named: Source) -> Referrers:
    headers = {path(name): below for name, below in named.items()}
    return await Bystanders(cast("Driver", Headers(headers)), observation).referrers([source])


async def test_the_chain_itself_is_no_bystander() -> None:
    assert await asked(seen(), top=BASE) == Referrers({})


async def test_a_strangers_image_is_a_user_until_it_is_listed() -> None:
    assert (await asked(seen(), x=BASE)).users == {path("x"): ""}
    assert await asked(seen(listed=(path("x"),)), x=BASE) == Referrers({})
    assert await asked(seen(listed=("/images/../images//x",)), x=BASE) == Referrers({})
    assert (await asked(seen(listed=(path("y"), "no image")), x=BASE)).users


async def test_a_leftover_is_told_and_no_user() -> None:
    assert await asked(seen(left("x")), x=BASE) == Referrers({}, (path("x"),))
    assert await asked(seen(left("x", "cannot be removed: Operation not permitted")), x=BASE) == Referrers(
        {}, (path("x"),)
    )


@pytest.mark.parametrize(
    "one", [left("x", NOT_OURS), left("x", SET_ASIDE, attempted=True), Removal(b.layer("x"))]
)
async def test_what_may_hold_something_or_is_anothers_is_a_user(one: Removal) -> None:
    assert (await asked(seen(one), x=BASE)).users == {path("x"): ""}


async def test_what_a_call_left_that_was_cut_off_goes_when_the_machine_was_stopped() -> None:
    """Nobody has to look for it: it is of this very disk, and goes by itself."""
    cut_off = Removal(b.layer("x"), attempted=True, run="7")
    found = await asked(seen(cut_off), x=BASE)
    assert found.cut_off
    assert f"{path('x')}, left by a snapshot call that was cut off" in found.objection(BASE)
    assert not (await asked(seen(cut_off), x=BASE, y=BASE)).cut_off
    assert not (await asked(seen(left("x", SET_ASIDE, attempted=True)), x=BASE)).cut_off
    assert not (await asked(seen(cut_off), z=b.layer("y").source)).cut_off


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"in_use_elsewhere": b.uses(x="disk vda of web-2")}, "disk vda of web-2"),
        ({"in_use_elsewhere": None}, "perhaps in use"),
        ({"unread": ("web-9",)}, "web-9"),
        (
            {"disks": {b.TARGET: replace(b.facts(CHAIN), inactive=b.plain(b.disk("x", "base")))}},
            "vda of web-1",
        ),
    ],
)
async def test_what_somebody_names_or_may_name_is_a_user(changes: dict[str, object], words: str) -> None:
    for observation in (seen(left("x"), **changes), seen(listed=(path("x"),), **changes)):
        found = await asked(observation, x=BASE)
        assert words in found.users[path("x")]
        assert words in found.named


async def test_what_another_image_stands_on_is_a_user_unless_that_is_unused_too() -> None:
    x, y, z = (b.layer(name).source for name in "xyz")
    found = await asked(seen(left("x")), x=BASE, y=x)
    assert set(found.users) == {path("x")}
    both = seen(left("x"), left("y"))
    assert await asked(both, x=BASE, y=x) == Referrers({}, (path("x"),))
    assert set((await asked(both, x=BASE, y=x, z=y)).users) == {path("x")}
    assert await asked(replace(both, not_in_use={b.TARGET: (path("z"),)}), x=BASE, y=x, z=y) == Referrers(
        {}, (path("x"),)
    )
    assert await asked(both, x=BASE, y=x, **{"x/": z}) == Referrers({}, (path("x"),)), "of another place"


async def test_headers_that_form_a_ring_end() -> None:
    x, y = (b.layer(name).source for name in "xy")
    both = seen(left("x"), left("y"))
    assert await asked(both, x=BASE, y=x) == Referrers({}, (path("x"),))
    assert (await asked(both, x=y, y=x)).users == {}
    assert (await asked(both, source=x, y=x, x=y)).leftovers == (path("y"),)


def gluster(name: str) -> Source:
    return Source.network("gluster", f"gv0/vm/{name}", [Host("san-a", "24007")])


async def test_an_image_on_the_network_is_named_as_it_can_be_listed() -> None:
    headers = cast("Driver", Headers({"gv0/vm/x": gluster("base")}))
    found = await Bystanders(headers, seen()).referrers([gluster("base")])
    [uri] = found.users
    assert uri == gluster("x").uri
    listed = seen(listed=(uri,))
    assert (await Bystanders(headers, listed).referrers([gluster("base")])).users == {}
    away = replace(listed, unasked=("kvm-2",))
    found = await Bystanders(headers, away).referrers([gluster("base")])
    assert "kvm-2" in found.users[uri], "a machine there may start from it"


async def test_only_some_of_many_are_named() -> None:
    found = await asked(seen(), **{f"x{number}": BASE for number in range(20)})
    assert "and 12 more" in found.named


def test_a_journal_keeps_what_is_a_leftover() -> None:
    journal = Journal(
        "c", (DiskJournal(b.TARGET, removals=(left("x"), left("y", SET_ASIDE, attempted=True))),)
    )
    assert journal.disk(b.TARGET).layers == (b.layer("y"),), "what may hold something is still claimed"
