"""So many objects of one namespace are acted on; the rest waits, and nobody waits beside room."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.reconcile.keys import DomainKey, ObjectKey
from controller.reconcile.shares import LEAST, Claim, Limits, Shares, snapshot_limits

HERE, THERE = DomainKey("host-a", "u-1"), DomainKey("host-b", "u-1")
LIMITS = Limits(disk=2, domain=3)


def claim(namespace: str = "shop", disk: str = "vda", domain: DomainKey = HERE, **more: bool) -> Claim:
    return Claim(domain, namespace, disk, **more)


def key(number: int, namespace: str = "shop") -> ObjectKey:
    return ObjectKey(namespace, f"{number:02}")


def test_no_namespace_fills_a_chain_of_usual_length() -> None:
    assert snapshot_limits(64) == Limits(LEAST, 4 * LEAST)
    assert snapshot_limits(64).disk < 64
    assert snapshot_limits(200) == Limits(150, 600)
    assert snapshot_limits(2).disk == LEAST, "a short chain says ChainTooLong itself"


def test_each_namespace_has_its_own_share() -> None:
    shares: Shares[ObjectKey] = Shares(lambda: LIMITS)
    assert [shares.put(key(n), claim()) for n in range(4)] == [True, True, False, False]
    assert [shares.put(key(n, "bank"), claim("bank")) for n in range(2)] == [True, True]
    assert [shares.waits(key(n)) for n in range(4)] == [False, False, True, True]
    assert len(shares.everyone(HERE)) == 6


def test_more_disks_are_no_way_around_it() -> None:
    shares: Shares[ObjectKey] = Shares(lambda: LIMITS)
    assert [shares.put(key(n), claim(disk=f"vd{n}")) for n in range(9)] == [True] * 3 + [False] * 6


def test_what_holds_a_point_is_acted_on_and_counts() -> None:
    shares: Shares[ObjectKey] = Shares(lambda: LIMITS)
    assert all(shares.put(key(n), claim(holds=True)) for n in range(9))
    assert not shares.put(key(9), claim())
    assert shares.put(key(9), claim(holds=True)), "as soon as it does"


def test_deletions_have_room_of_their_own() -> None:
    shares: Shares[ObjectKey] = Shares(lambda: LIMITS)
    for n in range(2):
        shares.put(key(n), claim())
    assert [shares.put(key(n), claim(leaving=True)) for n in range(2, 5)] == [True, True, False]
    assert all(shares.put(key(n), claim(leaving=True, holds=True)) for n in range(5, 9))


def test_the_oldest_that_waits_is_told_of_room() -> None:
    told: list[ObjectKey] = []
    shares: Shares[ObjectKey] = Shares(lambda: LIMITS, told.append)
    for n in range(5):
        shares.put(key(n), claim())
    shares.drop(key(0))
    assert told == [key(2)]
    shares.drop(key(2))  # gone before it has asked
    assert told == [key(2), key(3)]
    assert shares.put(key(3), claim())
    shares.put(key(1), claim(leaving=True))
    assert told[-1] == key(4)


def test_one_that_means_another_domain_leaves_its_room() -> None:
    told: list[ObjectKey] = []
    shares: Shares[ObjectKey] = Shares(lambda: LIMITS, told.append)
    for n in range(3):
        shares.put(key(n), claim())
    shares.put(key(0), claim(domain=THERE))
    assert told == [key(2)]
    assert shares.admitted(THERE) == [key(0)]
    for n in range(3):
        shares.drop(key(n))
    assert shares.domains() == []


moves = st.tuples(
    st.integers(0, 11),
    st.sampled_from(["put", "put", "put", "drop", "run"]),
    st.sampled_from(["vda", "vdb"]),
    st.sampled_from([HERE, HERE, THERE]),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=300)
@given(st.lists(moves, max_size=60))
def test_nobody_waits_beside_room_and_nobody_has_more_than_his_share(
    steps: list[tuple[int, str, str, DomainKey, bool, bool]],
) -> None:
    known: dict[ObjectKey, Claim] = {}
    woken: set[ObjectKey] = set()  # a queue that runs later, and once for many wake-ups
    shares: Shares[ObjectKey] = Shares(lambda: LIMITS, woken.add)

    def run() -> None:
        again = woken.pop()
        if again in known:
            shares.put(again, known[again])

    for number, what, disk, domain, leaving, holds in steps:
        namespace = "shop" if number % 2 else "bank"
        one = key(number, namespace)
        if what == "drop":
            known.pop(one, None)
            shares.drop(one)
        elif what == "put":
            known[one] = Claim(domain, namespace, disk, leaving, holds)
            shares.put(one, known[one])
        elif woken:
            run()
    while woken:
        run()
    _check(shares, known)


def _check(shares: Shares[ObjectKey], known: dict[ObjectKey, Claim]) -> None:
    acted_on = {one for domain in (HERE, THERE) for one in shares.admitted(domain)}
    assert {one for one in known if shares.waits(one)} == known.keys() - acted_on
    assert acted_on <= known.keys()
    counts = Counter[tuple[object, ...]]()
    for one in acted_on:
        found = known[one]
        lane = (found.domain, found.namespace, found.leaving)
        counts[lane] += 1
        counts[*lane, found.disk] += 1
    for one in known.keys() - acted_on:
        found = known[one]
        lane = (found.domain, found.namespace, found.leaving)
        assert not found.holds
        assert counts[*lane, found.disk] >= LIMITS.disk or counts[lane] >= LIMITS.domain, (
            "it waits beside room"
        )
