"""A real guest that writes faster than its layer is committed."""

from __future__ import annotations

import pytest

from tests.e2e.stage import AT_ONCE, QUICK, Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]


def limited(bandwidth: int) -> str:
    """The class `hurried`; the guest writes some 300 KiB per second, again and again to the same clusters."""
    limits = {"noProgressSeconds": 4, "deadlineSeconds": 600}
    merge = {**AT_ONCE, "direction": "Commit", "bandwidthBytesPerSecond": bandwidth, "convergence": limits}
    return other_class("hurried", merge=merge)


def test_a_commit_that_the_guest_outruns_is_given_up_and_succeeds_later(stage: Stage) -> None:
    stage.shop.apply(limited(65536))
    machine = stage.machine(writer=QUICK)
    points, shop = stage.points(machine), stage.shop
    points.take("kept", rounds=1024, volumeSnapshotClassName="hurried")
    points.take("outrun", rounds=1024, volumeSnapshotClassName="hurried")
    machine.wait_writing(rounds=2048)
    chain = machine.chain()
    shop.begin_delete("outrun")
    message = shop.waits_for("outrun", "NotConverging", timeout=60)
    for words in ("4 s without progress", "noProgressSeconds", "bytes left", "tried once"):
        assert words in message
    assert "given up" in shop.wait_event("outrun", "NotConverging")
    assert [layer.source for layer in machine.chain()] == [layer.source for layer in chain]
    assert [layer.source for layer in machine.chain(inactive=True)] == [layer.source for layer in chain]
    layer = points.holders()["kept"]
    assert stage.lab.reader.verify(points.kept["kept"], layer.source).identical
    points.check_guest()

    shop.apply(limited(0))
    shop.gone("outrun", timeout=90)
    del points.kept["outrun"]
    assert [layer.source for layer in machine.chain()] == [layer.source for layer in chain[1:]]
    points.verify()
