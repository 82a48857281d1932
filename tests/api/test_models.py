"""The models read what users write and the API server sends, and refuse what is not meant."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from controller.api.crd import KINDS
from controller.api.hypervisor import Hypervisor
from controller.api.objects import Object, explain
from controller.api.volumesnapshot import (
    DeletionPolicy,
    Operation,
    OperationKind,
    Quiesce,
    SnapshotError,
    Source,
    VolumeSnapshot,
    VolumeSnapshotStatus,
)
from controller.api.volumesnapshotclass import MergeDirection, Offline, VolumeSnapshotClass
from tests.api.samples import FILES, sample

MODELS: dict[str, type[Object]] = {kind.name: kind.model for kind in KINDS}


@pytest.mark.parametrize("name", FILES)
def test_every_field_of_a_sample_is_kept(name: str) -> None:
    raw = sample(name)
    model = MODELS[raw["kind"]].model_validate(raw)
    spec = model.to_api()["spec"]
    assert spec == _merged(spec, raw["spec"])
    assert model.name == raw["metadata"]["name"]


def _merged(into: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """What ``into`` is with ``values`` in it; equal to ``into`` only if they were there."""
    nested = {
        key: _merged(into.get(key, {}), value) for key, value in values.items() if isinstance(value, dict)
    }
    return {**into, **values, **nested}


def test_the_shortest_object_has_defaults_for_the_rest() -> None:
    spec = VolumeSnapshot.model_validate(sample("10-snapshot.yaml")).spec
    assert (spec.source.domain, spec.source.domain_uuid, spec.source.disk) == ("web-1", None, "vda")
    assert (spec.deletion_policy, spec.quiesce, spec.overlay, spec.suspend) == (None, None, None, False)


def test_a_class_without_a_spec_is_the_sample_without_its_protected_images() -> None:
    bare = VolumeSnapshotClass.model_validate({"metadata": {"name": "x"}})
    full = VolumeSnapshotClass.model_validate(sample("01-class.yaml"))
    assert full.marked_default
    assert not bare.marked_default
    assert bare.spec == full.spec.model_copy(update={"protected_images": ()})
    assert (bare.spec.deletion_policy, bare.spec.quiesce) == (DeletionPolicy.DELETE, Quiesce.PREFERRED)
    assert (bare.spec.offline, bare.spec.merge.direction) == (Offline.START_PAUSED, MergeDirection.CHEAPEST)


def test_metadata_tells_what_the_loop_needs() -> None:
    raw = sample("10-snapshot.yaml")
    raw["metadata"] |= {
        "uid": "u",
        "generation": 4,
        "resourceVersion": "77",
        "deletionTimestamp": "2026-11-22T10:00:00Z",
        "finalizers": ["varve.dev/chain-protection"],
        "managedFields": [{}],
    }
    snapshot = VolumeSnapshot.model_validate(raw)
    assert (snapshot.namespace, snapshot.uid, snapshot.generation) == ("shop", "u", 4)
    assert snapshot.deleting
    assert snapshot.protected
    assert snapshot.metadata.deletion_timestamp == datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "target",
    ["vda", "vdaa", "sda", "hdc", "xvda", "xvda1", "fda", "ubda", "nvme0n1", "nvme12n34", "vd_a", "sdA"],
)
def test_every_target_of_libvirts_own_schema_is_accepted(target: str) -> None:
    """B15: nvme0n1 came with libvirt 11.5; the rest is the pattern of domaincommon.rng (diskTargetDev)."""
    assert Source(domain="web-1", disk=target).disk == target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": {"disk": "vda"}}, "exactly one of domain and domainUUID"),
        ({"source": {"disk": "vda", "domain": "a", "domainUUID": "0" * 8}}, "source.domainUUID"),
        ({"source": {"domain": "a/b", "disk": "vda"}}, "source.domain"),
        ({"source": {"domain": "a\nb", "disk": "vda"}}, "source.domain"),
        ({"source": {"domain": "a" * 254, "disk": "vda"}}, "source.domain"),
        ({"source": {"domain": "a", "disk": "../vda"}}, "source.disk"),
        ({"source": {"domain": "a", "disk": "nvme"}}, "source.disk"),
        ({"source": {"domain": "a", "disk": "nvme0n1/x"}}, "source.disk"),
        ({"source": {"domain": "a", "disk": "xnvme0n1"}}, "source.disk"),
        ({"source": {"domain": "a", "disk": "vda", "extra": 1}}, "source.extra"),
        ({"quiesce": "Maybe"}, "quiesce"),
        ({"overlay": {"directory": "/a", "pool": "b"}}, "at most one of directory, pool and source"),
        ({"overlay": {"directory": "/a/../b"}}, "without . and .."),
        ({"overlay": {"directory": "a"}}, "overlay.directory"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_spec_is_refused_with_the_field_named(changes: dict[str, Any], message: str) -> None:
    raw = sample("10-snapshot.yaml")
    raw["spec"] |= changes
    with pytest.raises(ValidationError) as caught:
        VolumeSnapshot.model_validate(raw)
    assert message in explain(caught.value)


def test_an_explanation_does_not_repeat_values() -> None:
    raw = sample("00-hypervisor.yaml")
    raw["spec"]["access"] = "secret"
    with pytest.raises(ValidationError) as caught:
        Hypervisor.model_validate(raw)
    assert "secret" not in explain(caught.value)


def test_names_of_253_characters() -> None:
    name = "a" * 253
    raw = sample("10-snapshot.yaml")
    raw["metadata"]["name"] = name
    raw["spec"]["source"] |= {"domain": name, "hypervisor": name}
    raw["spec"]["volumeSnapshotClassName"] = name
    assert VolumeSnapshot.model_validate(raw).spec.source.domain == name


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("11-snapshot-full.yaml", {}, "write Preferred or Never"),
    ],
)
def test_what_comes_later_is_said_and_not_ignored(name: str, changes: dict[str, Any], message: str) -> None:
    raw = sample(name)
    raw["spec"] |= changes
    refused = VolumeSnapshot.model_validate(raw).spec.not_yet()
    assert refused is not None
    assert message in refused


def test_what_is_there_is_not_refused() -> None:
    assert VolumeSnapshot.model_validate(sample("10-snapshot.yaml")).spec.not_yet() is None
    policy = VolumeSnapshotClass.model_validate(sample("01-class.yaml")).spec
    assert policy.not_yet() is None
    assert policy.model_copy(update={"quiesce": Quiesce.REQUIRED}).not_yet() is not None


def test_a_status_of_a_later_version_can_be_read() -> None:
    raw = sample("10-snapshot.yaml")
    raw["status"] = {"observedGeneration": 2, "novelty": {"a": 1}, "resolved": {"domainName": "a", "rack": 7}}
    status = VolumeSnapshot.model_validate(raw).status
    assert (status.observed_generation, status.resolved and status.resolved.domain_name) == (2, "a")


def test_a_status_survives_the_way_to_the_server_and_back() -> None:
    moment = datetime(2026, 11, 22, 13, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
    status = VolumeSnapshotStatus(
        observed_generation=1,
        creation_time=moment,
        operation=Operation(kind=OperationKind.COMMIT, started_at=moment, percent=5),
        error=SnapshotError(message="x" * 5000),
    )
    sent = status.to_api()
    assert sent["creationTime"] == "2026-11-22T12:00:00Z"
    assert sent["operation"] == {"kind": "Commit", "startedAt": "2026-11-22T12:00:00Z", "percent": 5}
    assert len(sent["error"]["message"]) == 1024
    assert "restoreSize" not in sent
    assert VolumeSnapshotStatus.model_validate(sent) == status


def test_a_time_without_a_zone_is_an_error() -> None:
    with pytest.raises(ValidationError, match="time zone"):
        VolumeSnapshotStatus(creation_time=datetime(2026, 11, 22))  # noqa: DTZ001 - the point of the test


_CEL = Path(__file__).parents[1] / "cel" / "snapshots.yaml"
_OVERLAYS = [
    case for case in yaml.safe_load(_CEL.read_text(encoding="utf-8")) if "overlay source" in case["name"]
]


@pytest.mark.parametrize("case", _OVERLAYS, ids=lambda case: case["name"])
def test_overlay_sources_are_refused_as_the_api_server_does(case: dict[str, Any]) -> None:
    raw = sample("10-snapshot.yaml")
    raw["spec"] = case["spec"]
    if "refused" not in case:
        assert VolumeSnapshot.model_validate(raw).spec.not_yet() is None
        return
    with pytest.raises(ValidationError) as caught:
        VolumeSnapshot.model_validate(raw)
    if "unknown field" not in case["refused"]:
        assert case["refused"] in explain(caught.value)
