"""Bases on a web server: read through, never written to."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import libvirt
import pytest

from controller.chain.journal import Owner, Point
from controller.chain.journal_codec import decode, encode
from controller.chain.parse import JOURNAL_NAMESPACE, parse_domain
from controller.chain.seal import Sealing, Seals
from tests.e2e.matrix import SIZE, Matrix, every_way
from tests.e2e.stage import AT_ONCE, Stage, other_class

pytestmark = [pytest.mark.real, pytest.mark.cluster]

KINDS = ("http", "https")


def over_http(stage: Stage, kind: str, title: str, **spec: Any) -> Matrix:
    """A machine whose disk is a file over a base on a web server."""
    name = f"{title}-{kind}"
    machine = stage.machine(stage.lab.disk(kind, name, size=SIZE), name=name)
    points = stage.points(machine)
    points.below = 1
    return Matrix(stage, points, spec)


@pytest.mark.parametrize("kind", KINDS)
def test_every_way(stage: Stage, kind: str) -> None:
    matrix = over_http(stage, kind, "every")
    before = [layer.source for layer in matrix.machine.chain()]
    assert [source.protocol for source in before] == ["file", kind]
    every_way(matrix)
    assert [layer.source for layer in matrix.machine.chain()] == before


@pytest.mark.parametrize("kind", KINDS)
def test_pulled_up_the_base_stays_below(stage: Stage, kind: str) -> None:
    stage.shop.apply(other_class("upwards", merge={**AT_ONCE, "direction": "Pull"}))
    matrix = over_http(stage, kind, "pull", volumeSnapshotClassName="upwards")
    base = matrix.machine.chain()[-1].source
    matrix.take("1", "2")
    top = matrix.machine.chain()[0].source
    matrix.delete("2")
    matrix.delete("1")
    assert [layer.source for layer in matrix.machine.chain()] == [top, base]
    matrix.stop_and_start()


def sealing(stage: Stage) -> Sealing:
    """As the controller seals its records."""
    kubectl = stage.shop.plane.kubectl
    secret = kubectl("get", "secret", "varve-journal-key", "-n", "varve-system", "-o", "json").stdout
    return Sealing(Seals(base64.b64decode(json.loads(secret)["data"]["key"])))


def record(matrix: Matrix, name: str) -> None:
    """Have the journal say that the point of this object is the base: what adopting its boundary comes to."""
    domain = matrix.machine.domain
    definition = parse_domain(domain.XMLDesc(0))
    disk, journal = definition.disk("vda"), decode(definition.journal_xml)
    assert disk is not None
    kept = journal.disk("vda")
    uid = matrix.stage.shop.get(name)["metadata"]["uid"]
    point = Point(
        overlay=disk.layers[-2].key,
        owners=(Owner(matrix.stage.shop.namespace, name, uid),),
        taken="2026-01-01T00:00:00Z",
        consistency="Offline",
        capacity=SIZE,
    )
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        encode(
            journal.with_disk(replace(kept, points=(*kept.points, point))),
            sealing(matrix.stage),
            domain=domain.UUIDString(),
        ),
        "varve",
        JOURNAL_NAMESPACE,
        libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG,
    )


def test_the_base_is_never_committed_into_but_pulled_up(stage: Stage) -> None:
    matrix = over_http(stage, "http", "flat")
    shop, machine = stage.shop, matrix.machine
    matrix.take("new")
    old, new = matrix.named("old"), matrix.named("new")
    shop.snapshot(old, machine.name, suspend=True)
    record(matrix, old)
    shop.kubectl("patch", f"vvs/{old}", "--type=merge", '-p={"spec":{"suspend":false}}')
    shop.ready(old)

    shop.begin_delete(old)
    assert "can only be read" in shop.waits_for(old, "ImageProtected")
    assert shop.condition(old, "Stalled")["status"] == "True"
    assert [layer.source.protocol for layer in machine.chain()] == ["file", "file", "http"]

    matrix.points.kept.pop(new)
    shop.begin_delete(new)
    shop.gone(old, new, timeout=60)
    assert [layer.source.protocol for layer in machine.chain()] == ["file"]
    matrix.points.below = 0
    stage.lab.http.stop()  # nobody needs it any more
    try:
        matrix.stop_and_start()
    finally:
        stage.lab.http.start()
