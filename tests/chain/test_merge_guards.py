"""Every reason not to merge: when it speaks, when it does not, and what a person can do about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.chain.blocked import Why
from controller.chain.cost import Choice, Range
from controller.chain.desired import Policy
from controller.chain.disk import ChainEnd, Disk, Layer
from controller.chain.guards import dwindling_guard, io_error_guard, room_guard
from controller.chain.journal import OperationKind
from controller.chain.marks import Mark, MarkKind
from controller.chain.merge_guards import (
    MERGE_GUARDS,
    MergeCase,
    end_guard,
    growth_guard,
    mark_guard,
    merge_verdict,
    protected_guard,
    read_only_guard,
    shared_guard,
    space_guard,
)
from controller.chain.observation import Observation, Size
from controller.chain.source import Host, Source
from tests.chain import builders as b
from tests.chain.verdicts import says

K = OperationKind
PLAIN = b.observation(b.facts(b.disk("base")))

# Merges: a chain top, o2, o1, base, of which different ranges are merged in different ways.

CHAIN = b.disk("top", "o2", "o1", "base")


def choice(top: int, kept: int, bottom: int) -> Choice:
    commit = (K.COMMIT,) if top > 0 else (K.ACTIVE_COMMIT,)
    kinds = (commit if kept > top or top > 0 else ()) + ((K.PULL,) if kept < bottom else ())
    return Choice(Range(top, bottom), kept, 0, kinds)


def case(way: Choice, *, chain: Disk = CHAIN, policy: Policy | None = None, **changes: object) -> MergeCase:
    observation: Observation = replace(PLAIN, **changes)  # type: ignore[arg-type]
    return MergeCase(observation, b.facts(chain), chain, way, policy or Policy())


COMMIT = choice(1, 3, 3)
ACTIVE = choice(0, 2, 2)
PULL = choice(0, 0, 3)
BOTH = choice(0, 1, 3)
PARTIAL_PULL = choice(0, 0, 2)


def test_io_error() -> None:
    assert io_error_guard(PLAIN) is None
    found = io_error_guard(replace(PLAIN, paused_by_io_error=True))
    says(found, Why.DOMAIN_PAUSED, "web-1", "virsh domblkerror web-1", "resume")


@pytest.mark.parametrize(
    ("way", "end", "stops"),
    [
        (PULL, ChainEnd.KNOWN, False),
        (PULL, ChainEnd.UNKNOWN, True),
        (BOTH, ChainEnd.UNKNOWN, True),
        (PARTIAL_PULL, ChainEnd.UNKNOWN, False),
        (COMMIT, ChainEnd.UNKNOWN, False),
        (choice(0, 3, 3), ChainEnd.UNKNOWN, False),
    ],
)
def test_end(way: Choice, end: ChainEnd, *, stops: bool) -> None:
    found = end_guard(case(way, chain=replace(CHAIN, end=end)))
    if stops:
        says(found, Why.CHAIN_UNKNOWN, "/images/base", "vda")
    else:
        assert found is None


@pytest.mark.parametrize(
    ("way", "pattern", "stops"),
    [
        (COMMIT, "/images/base", True),
        (COMMIT, "/images/*", True),
        (COMMIT, "/images/o1", False),  # only read
        (COMMIT, "/golden/*", False),
        (ACTIVE, "/images/o1", True),
        (ACTIVE, "/images/base", False),
        (BOTH, "/images/o2", True),
        (BOTH, "/images/base", False),  # pulled from, not written to
        (PULL, "/images/*", False),
    ],
)
def test_protected(way: Choice, pattern: str, *, stops: bool) -> None:
    found = protected_guard(case(way, policy=Policy(protected=("/nothing", pattern))))
    if stops:
        kept = CHAIN.layers[way.kept].source.uri
        says(found, Why.IMAGE_PROTECTED, kept, f"protectedImages: {pattern}")
    else:
        assert found is None


@pytest.mark.parametrize("path", ["/golden//base", "/golden/./base", "//golden/base", "/x/../golden/base"])
def test_no_spelling_gets_past_a_pattern(path: str) -> None:
    assert Policy(protected=("/golden/*",)).protects(Source.file(path)) == "/golden/*"


def test_patterns_of_the_samples() -> None:
    policy = Policy(protected=("/golden/*", "gluster://*/templates/*"))
    host = '<host name="h"/>'
    template = Source("network", f'<source protocol="gluster" name="gv0/./templates/a">{host}</source>')
    other = Source("network", f'<source protocol="gluster" name="gv0/mine/a">{host}</source>')
    assert policy.protects(template) == "gluster://*/templates/*"
    assert policy.protects(other) is None


@pytest.mark.parametrize("protocol", ["http", "https", "ftp", "ftps", "tftp"])
def test_what_can_only_be_read(protocol: str) -> None:
    chain = b.disk("top", "o1")
    base = Layer(Source.network(protocol, "golden.qcow2", [Host("mirror")]), "qcow2", 9)
    chain = replace(chain, layers=(*chain.layers, base))
    found = read_only_guard(case(choice(0, 2, 2), chain=chain))
    says(found, Why.IMAGE_PROTECTED, base.source.uri, protocol, "read")
    assert read_only_guard(case(choice(0, 1, 2), chain=chain)) is None, "it is pulled up, not written to"
    assert read_only_guard(case(choice(0, 0, 2), chain=chain)) is None
    assert read_only_guard(case(COMMIT)) is None


@pytest.mark.parametrize(
    ("way", "used", "stops"),
    [
        (COMMIT, "base", True),
        (COMMIT, "o1", True),  # its backing would change under its reader
        (COMMIT, "o2", True),
        (COMMIT, "top", True),  # whoever reads it reads all below it
        (ACTIVE, "o1", True),
        (ACTIVE, "top", True),
        (ACTIVE, "base", False),
        (BOTH, "o2", True),
        (BOTH, "o1", False),
        (BOTH, "base", False),
        (PULL, "base", False),
        (PULL, "o1", False),
    ],
)
def test_shared(way: Choice, used: str, *, stops: bool) -> None:
    found = shared_guard(case(way, in_use_elsewhere=b.uses(**{used: "disk vdb of web-2"})))
    if stops:
        says(found, Why.IMAGE_PROTECTED, f"/images/{used}", "disk vdb of web-2")
    else:
        assert found is None


GIB = 1 << 30


@pytest.mark.parametrize(
    ("source", "lower", "upper", "stops"),
    [
        (Source("block", '<source dev="/dev/vg/base"/>'), GIB, 2 * GIB, True),
        (Source.network("nbd", "base"), GIB, 2 * GIB, True),
        (Source.network("iscsi", "iqn:x/1"), GIB, 2 * GIB, True),
        (Source("block", '<source dev="/dev/vg/base"/>'), 2 * GIB, 2 * GIB, False),
        (Source.file("/images/base"), GIB, 2 * GIB, False),
        (Source.network("gluster", "gv0/base"), GIB, 2 * GIB, False),
        (Source.network("rbd", "p/base"), GIB, 2 * GIB, False),
    ],
)
def test_growth(source: Source, lower: int | None, upper: int, *, stops: bool) -> None:
    base = Layer(source, "raw")
    chain = replace(CHAIN, layers=(*CHAIN.layers[:3], base))
    sizes = {layer.key: Size(1, upper) for layer in chain.layers[:3]}
    if lower is not None:
        sizes[base.key] = Size(1, lower)
    facts = b.facts(chain, sizes=sizes)
    found = growth_guard(replace(case(COMMIT, chain=chain), facts=facts))
    if stops:
        says(found, Why.UNSUPPORTED_TOPOLOGY, source.uri, str(lower), str(upper), "enlarge")
    else:
        assert found is None
    assert growth_guard(replace(case(PULL, chain=chain), facts=facts)) is None


def test_nothing_is_merged_into_what_cannot_grow_and_was_not_measured() -> None:
    base = Layer(Source.network("nbd", "base"), "raw")
    chain = replace(CHAIN, layers=(*CHAIN.layers[:3], base))
    facts = b.facts(chain, sizes={layer.key: Size(1, GIB) for layer in chain.layers[:3]})
    found = growth_guard(replace(case(COMMIT, chain=chain), facts=facts))
    says(found, Why.SIZE_UNKNOWN, base.source.uri, "how large")


def marked(*names: str) -> dict[str, frozenset[str]]:
    """What a snapshot or checkpoint names on vda."""
    return {"vda": frozenset(Source.file(f"/images/{name}").footprint for name in names)}


MARKED = marked("o1", "o2")


@pytest.mark.parametrize(
    ("mark", "way", "stops"),
    [
        (Mark(MarkKind.SNAPSHOT, "old", MARKED), COMMIT, True),
        (Mark(MarkKind.SNAPSHOT, "old", MARKED), choice(2, 3, 3), True),
        (Mark(MarkKind.SNAPSHOT, "old", MARKED), choice(0, 0, 1), True),
        (
            Mark(MarkKind.INTERNAL, "old", marked("base")),
            COMMIT,
            True,
        ),
        (
            Mark(MarkKind.INTERNAL, "old", marked("base")),
            ACTIVE,
            False,
        ),
        (Mark(MarkKind.SNAPSHOT, "old", {"vdb": frozenset()}), COMMIT, False),  # of another disk
        (Mark(MarkKind.SNAPSHOT, "old", {"vda": frozenset({"long gone"})}), COMMIT, False),
        (
            Mark(MarkKind.SNAPSHOT, "old", {"vda": frozenset()}),
            COMMIT,
            True,
        ),  # it does not say of which images
        (Mark(MarkKind.CHECKPOINT, "full", MARKED), COMMIT, False),  # its bitmaps go along
    ],
)
def test_what_libvirt_keeps(mark: Mark, way: Choice, *, stops: bool) -> None:
    found = mark_guard(case(way, marks=(mark,)))
    if stops:
        says(found, Why.UNSUPPORTED_TOPOLOGY, f"{mark.kind} {mark.name}", "web-1", "delete", "vda")
    else:
        assert found is None


def test_a_name_is_quoted_for_the_shell_that_it_is_copied_into() -> None:
    found = mark_guard(case(COMMIT, marks=(Mark(MarkKind.SNAPSHOT, "before $(reboot)", MARKED),)))
    says(found, Why.UNSUPPORTED_TOPOLOGY, "virsh snapshot-delete web-1 'before $(reboot)' --metadata")


@pytest.mark.parametrize(
    ("free", "keeps", "stops"),
    [({}, GIB, False), ({"/images": 0}, 0, False), ({"/images": 301}, 1, False), ({"/images": 300}, 1, True)],
)
def test_space_for_a_commit(free: dict[str, int], keeps: int, *, stops: bool) -> None:
    big = Choice(Range(1, 3), 3, 300, (K.COMMIT,))
    found = space_guard(case(big, free=free, policy=Policy(min_free=keeps)))
    if stops:
        says(found, Why.INSUFFICIENT_SPACE, "/images", "may take 300", "minFreeBytes", str(free["/images"]))
    else:
        assert found is None


def test_an_image_grows_to_its_virtual_size_at_most() -> None:
    sizes = {key: Size(b.CAPACITY - 10, b.CAPACITY) for key in CHAIN.keys}
    big = replace(
        case(Choice(Range(1, 3), 3, 10**9, (K.COMMIT,)), free={"/images": 11}),
        facts=b.facts(CHAIN, sizes=sizes),
    )
    assert space_guard(replace(big, policy=Policy(min_free=1))) is None
    says(space_guard(replace(big, policy=Policy(min_free=2))), Why.INSUFFICIENT_SPACE, "may take 10")


def test_space_for_a_new_layer_and_while_one_is_merged() -> None:
    low = replace(PLAIN, free={"/fast": 99})
    overlay = Source.file("/fast/new")
    says(room_guard(low, overlay, Policy(min_free=100)), Why.INSUFFICIENT_SPACE, "/fast", "99", "100")
    says(
        dwindling_guard(low, overlay, Policy(min_free=100)), Why.INSUFFICIENT_SPACE, "/fast/new", "99", "100"
    )
    for guard in (room_guard, dwindling_guard):
        assert guard(low, overlay, Policy(min_free=99)) is None
        assert guard(low, Source.file("/slow/new"), Policy(min_free=100)) is None, "what is not known"


def test_the_first_objection_is_the_verdict() -> None:
    bad = case(
        COMMIT,
        policy=Policy(protected=("/images/base",)),
        in_use_elsewhere=b.uses(base="disk vdb of web-2"),
    )
    objecting = [guard for guard in MERGE_GUARDS if guard(bad) is not None]
    assert objecting == [protected_guard, shared_guard]
    says(merge_verdict(bad), Why.IMAGE_PROTECTED, "protectedImages")
    says(merge_verdict(bad, [shared_guard]), Why.IMAGE_PROTECTED, "web-2")
    assert merge_verdict(bad, []) is None
    assert merge_verdict(case(COMMIT)) is None
