"""B17: whether a qcow2 image on a device of fixed size can take up what would be committed into it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.chain import qcow2
from controller.chain.blocked import Why
from controller.chain.cost import Choice, Range
from controller.chain.desired import Policy
from controller.chain.disk import Layer
from controller.chain.journal import OperationKind
from controller.chain.merge_guards import MergeCase, device_guard
from controller.chain.observation import Size
from controller.chain.qcow2 import Inside, NotQcow2
from controller.chain.room import needed, whole
from controller.chain.source import Source
from tests.chain import builders as b
from tests.chain.verdicts import says

CLUSTER = 65536
MIB = 1 << 20
GIB = 1 << 30


def device(name: str) -> Layer:
    return Layer(Source("block", f'<source dev="/dev/vg/{name}"/>'), "qcow2")


def case(physical: int, used: int | None, above: int, *, kept: Layer | None = None) -> MergeCase:
    """Layer ``o`` of a 1 GiB disk is merged into ``base``, on a device of ``physical`` bytes."""
    base = kept or device("base")
    chain = replace(b.disk("top", "o"), layers=(*b.disk("top", "o").layers, base))
    sizes = {
        chain.layers[0].key: Size(MIB, GIB),
        chain.layers[1].key: Size(above, GIB),
        base.key: Size(GIB, GIB, physical),
    }
    facts = b.facts(chain, sizes=sizes)
    inside = {base.key: Inside(3, CLUSTER, used)}
    way = Choice(Range(1, 2), 2, 0, (OperationKind.COMMIT,))
    return MergeCase(b.observation(facts, inside=inside), facts, chain, way, Policy())


def test_a_logical_volume_that_is_too_small_is_known_beforehand() -> None:
    found = device_guard(case(100 * MIB, 60 * MIB, 50 * MIB))
    says(
        found, Why.UNSUPPORTED_TOPOLOGY, "/dev/vg/base", str(100 * MIB), str(60 * MIB), "enlarge", "lvextend"
    )
    assert device_guard(case(120 * MIB, 60 * MIB, 50 * MIB)) is None


def test_one_that_holds_the_whole_disk_is_never_too_small() -> None:
    assert device_guard(case(whole(GIB, CLUSTER), GIB, GIB)) is None
    assert device_guard(case(whole(GIB, CLUSTER) - 1, GIB, GIB)) is not None


def test_what_was_not_measured_is_tried() -> None:
    """A failure spoils only the point that goes, and is paced: to refuse what fits would be for ever."""
    assert device_guard(case(MIB, None, GIB)) is None


def test_what_grows_is_not_its_business() -> None:
    assert device_guard(case(MIB, 60 * MIB, 50 * MIB, kept=b.layer("base"))) is None
    raw = replace(device("base"), format="raw")
    assert device_guard(case(MIB, 60 * MIB, 50 * MIB, kept=raw)) is None


def test_a_layer_on_a_device_holds_no_more_than_the_device() -> None:
    """libvirt tells the highest offset that this very QEMU wrote to a device, which is no bound."""
    found = case(200 * MIB, 60 * MIB, 0)
    middle = device("middle")
    chain = replace(found.chain, layers=(found.chain.layers[0], middle, found.chain.layers[2]))
    sizes = {**found.facts.sizes, middle.key: Size(1, GIB, 150 * MIB)}
    facts = replace(found.facts, live=chain, sizes=sizes)
    assert device_guard(replace(found, chain=chain, facts=facts)) is not None
    seen = replace(
        found.observation, inside={**found.observation.inside, middle.key: Inside(3, CLUSTER, MIB)}
    )
    assert device_guard(replace(found, chain=chain, facts=facts, observation=seen)) is None


@given(
    st.integers(1, 1 << 34),
    st.sampled_from([512, 4096, CLUSTER, 2 * MIB]),
    st.lists(st.tuples(st.integers(0, 1 << 30), st.sampled_from([4096, CLUSTER, 2 * MIB])), max_size=4),
    st.integers(0, 1 << 30),
)
def test_the_bound_grows_with_what_is_merged_and_ends_at_the_whole(
    capacity: int, cluster: int, merged: list[tuple[int, int]], used: int
) -> None:
    capacity = max(capacity, cluster)
    bound = needed(used, capacity, cluster, merged)
    assert capacity < whole(capacity, cluster)
    assert bound <= whole(capacity, cluster)
    assert bound >= min(whole(capacity, cluster), used + sum(size for size, _ in merged))
    assert needed(used, capacity, cluster, [*merged, (cluster, cluster)]) >= bound


def image(*, version: int = 3, order: int = 4, dirty: bool = False, counts: tuple[int, ...] = ()) -> bytes:
    """Header, refcount table in cluster 1, one refcount block in cluster 2."""
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 0, 0, 16, GIB, 0, 0, 0, CLUSTER, 1, 0, 0)
    features = struct.pack(">QQQII", int(dirty), 0, 0, order, 104)
    block = b"".join(struct.pack(">H", count) for count in counts)
    whole_head = (head + (features if version == 3 else b"")).ljust(CLUSTER, b"\0")
    return whole_head + struct.pack(">Q", 2 * CLUSTER).ljust(CLUSTER, b"\0") + block.ljust(CLUSTER, b"\0")


def reading(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def test_an_image_says_what_it_takes() -> None:
    found = qcow2.inside(reading(image(counts=(1, 1, 1, 0, 2, 1))), measuring=True)
    assert found == Inside(3, CLUSTER, 5 * CLUSTER)
    assert qcow2.inside(reading(image(version=2, counts=(1, 1, 1))), measuring=True).version == 2
    assert qcow2.inside(reading(image(counts=(1,))), measuring=False) == Inside(3, CLUSTER)


@pytest.mark.parametrize("data", [image(dirty=True, counts=(1,)), image(order=6, counts=(1,))])
def test_counts_that_may_lag_or_are_of_another_width_are_not_believed(data: bytes) -> None:
    assert qcow2.inside(reading(data), measuring=True) == Inside(3, CLUSTER, None)


@pytest.mark.parametrize("data", [b"", b"QFI\xfb", b"\0" * CLUSTER, image(counts=(1,))[: 2 * CLUSTER + 100]])
def test_what_is_no_whole_qcow2_image_is_refused(data: bytes) -> None:
    with pytest.raises(NotQcow2):
        qcow2.inside(reading(data), measuring=True)
