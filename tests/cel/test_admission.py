"""What a real API server accepts and refuses, and what it says, with the CRDs as shipped."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
import yaml

from controller.api import API_VERSION
from tests.api.samples import FILES, sample
from tests.api.test_uri import ALLOWED, HINTED, PROGRAMS

pytestmark = pytest.mark.cluster

HERE = Path(__file__).parent
KINDS = {
    "snapshots.yaml": "VolumeSnapshot",
    "classes.yaml": "VolumeSnapshotClass",
    "hypervisors.yaml": "Hypervisor",
    "chains.yaml": "VolumeChain",
}
LATER = {
    "11-snapshot-full.yaml": "write Preferred or Never",
}
"""Samples that need a later version, and what the refusal says."""


class Answer(Protocol):
    """What became of one kubectl."""

    returncode: int
    stdout: str
    stderr: str


class ControlPlane(Protocol):
    """The part of the lab's control plane that these tests use."""

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> Answer:
        """Run kubectl as administrator."""


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(HERE.parents[1] / "crds"))
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return control_plane


@pytest.fixture(scope="module")
def namespace(cluster: ControlPlane) -> Iterator[str]:
    name = f"cel-{uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def _cases() -> Iterator[Any]:
    for file, kind in KINDS.items():
        for case in yaml.safe_load((HERE / file).read_text(encoding="utf-8")):
            yield pytest.param(kind, case, id=f"{kind}: {case['name']}")


def _fill(value: Any) -> Any:
    """Put long names where a case says so."""
    if isinstance(value, dict):
        return {key: _fill(child) for key, child in value.items()}
    return "a" * int(value[1:-1]) if value in ("{253}", "{254}") else value


def _object(kind: str, namespace: str, spec: Any, name: str = "") -> dict[str, Any]:
    metadata = {"name": name or f"case-{uuid4().hex[:12]}"}
    if kind in ("VolumeSnapshot", "VolumeChain"):
        metadata["namespace"] = namespace
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": _fill(spec)}


def _dry_run(cluster: ControlPlane, verb: str, obj: dict[str, Any]) -> Answer:
    arguments = (verb, "--dry-run=server", "--validate=strict", "--output=json", "-f", "-")
    return cluster.kubectl(*arguments, stdin=json.dumps(obj), check=False)


@pytest.mark.parametrize(("kind", "case"), list(_cases()))
def test_admission(cluster: ControlPlane, namespace: str, kind: str, case: dict[str, Any]) -> None:
    obj = _object(kind, namespace, case["spec"], "a" * 253 if case.get("longName") else "")
    if "was" not in case:
        answer = _dry_run(cluster, "create", obj)
    else:
        before = {**obj, "spec": case["was"]}
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(before))
        try:
            if case.get("taken"):
                _take(cluster, obj)
            answer = _dry_run(cluster, "replace", obj)
        finally:
            cluster.kubectl("delete", "-f", "-", "--wait=false", stdin=json.dumps(obj))
    if "refused" in case:
        assert answer.returncode != 0
        assert case["refused"] in answer.stderr
    else:
        assert answer.returncode == 0, answer.stderr


def _take(cluster: ControlPlane, obj: dict[str, Any]) -> None:
    where = ("volumesnapshot", obj["metadata"]["name"], "-n", obj["metadata"]["namespace"])
    patch = json.dumps({"status": {"creationTime": "2026-11-22T12:00:00Z"}})
    cluster.kubectl("patch", *where, "--subresource=status", "--type=merge", "-p", patch)


@pytest.mark.parametrize("name", FILES)
def test_samples(cluster: ControlPlane, namespace: str, name: str) -> None:
    obj = sample(name)
    if "namespace" in obj["metadata"]:
        obj["metadata"]["namespace"] = namespace
    answer = _dry_run(cluster, "create", obj)
    if name in LATER:
        assert LATER[name] in answer.stderr
        return
    assert answer.returncode == 0, answer.stderr
    stored = json.loads(answer.stdout)
    assert _contains(stored["spec"], obj["spec"])


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return all(key in whole and _contains(whole[key], value) for key, value in part.items())
    return bool(whole == part)


def test_the_full_sample_is_accepted_but_for_its_required_freeze(
    cluster: ControlPlane, namespace: str
) -> None:
    obj = sample("11-snapshot-full.yaml")
    obj["metadata"]["namespace"] = namespace
    obj["spec"]["quiesce"] = "Preferred"
    assert _dry_run(cluster, "create", obj).returncode == 0


def test_a_new_object_is_not_taken_for_done(cluster: ControlPlane, namespace: str) -> None:
    answer = _dry_run(
        cluster, "create", _object("VolumeSnapshot", namespace, sample("10-snapshot.yaml")["spec"])
    )
    assert json.loads(answer.stdout)["status"] == {"observedGeneration": -1}
    answer = _dry_run(cluster, "create", _object("VolumeSnapshotClass", namespace, {}))
    assert "status" not in json.loads(answer.stdout)


def test_defaults_of_a_class(cluster: ControlPlane, namespace: str) -> None:
    bare = _object("VolumeSnapshotClass", namespace, {})
    del bare["spec"]
    stored = json.loads(_dry_run(cluster, "create", bare).stdout)
    expected = sample("01-class.yaml")["spec"]
    del expected["protectedImages"]
    assert stored["spec"] == expected


def test_hypervisor_uris(cluster: ControlPlane, namespace: str) -> None:
    """All of them in two calls: the API server and the controller must agree on each."""
    refused = [*PROGRAMS, *(uri for uri, _ in HINTED)]
    good = [
        _object("Hypervisor", namespace, {"uri": uri, "access": []}, f"good-{i}")
        for i, uri in enumerate(ALLOWED)
    ]
    bad = [
        _object("Hypervisor", namespace, {"uri": uri, "access": []}, f"bad-{i}")
        for i, uri in enumerate(refused)
    ]
    answer = _dry_run(cluster, "create", {"apiVersion": "v1", "kind": "List", "items": good})
    assert answer.returncode == 0, answer.stderr
    answer = _dry_run(cluster, "create", {"apiVersion": "v1", "kind": "List", "items": bad})
    assert [i for i in range(len(bad)) if f'"bad-{i}" is invalid' not in answer.stderr] == []
    assert answer.stdout == ""


@pytest.mark.parametrize(("uri", "hint"), [(uri, hint) for uri, hint in HINTED if 0 < len(uri) < 1024])
def test_a_hypervisor_uri_that_would_run_a_program_says_what_to_write(
    cluster: ControlPlane, namespace: str, uri: str, hint: str
) -> None:
    answer = _dry_run(cluster, "create", _object("Hypervisor", namespace, {"uri": uri, "access": []}))
    assert hint in answer.stderr


def test_the_table_that_people_see(cluster: ControlPlane, namespace: str) -> None:
    obj = _object("VolumeSnapshot", namespace, {"source": {"domain": "web-1", "disk": "vda"}}, "one")
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(obj))
    ready = {"type": "Ready", "status": "True", "reason": "InSync", "message": ""}
    status = {
        "observedGeneration": 1,
        "conditions": [{**ready, "lastTransitionTime": "2026-11-22T12:00:00Z", "observedGeneration": 1}],
        "creationTime": "2026-11-22T12:00:00Z",
        "restoreSize": "20Gi",
        "consistency": "CrashConsistent",
        "resolved": {"hypervisor": "host-a", "domainName": "web-1", "disk": "vda"},
        "operation": {"kind": "Commit", "percent": 5},
        "layer": {"source": "/images/a.qcow2"},
    }
    where = ("-n", namespace)
    patch = json.dumps({"status": status})
    cluster.kubectl("patch", "vvs/one", *where, "--subresource=status", "--type=merge", "-p", patch)
    header, row = cluster.kubectl("get", "vvs", *where).stdout.splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "DOMAIN", "DISK", "SIZE", "CREATED", "AGE"]
    assert row.split()[:6] == ["one", "True", "InSync", "web-1", "vda", "20Gi"]
    header, row = cluster.kubectl("get", "varve", *where, "-o", "wide").stdout.splitlines()
    assert set(header.split()) >= {"HYPERVISOR", "CONSISTENCY", "OPERATION", "PROGRESS", "LAYER"}
    assert {"host-a", "CrashConsistent", "Commit", "5", "/images/a.qcow2"} <= set(row.split())
    cluster.kubectl("wait", "--for=condition=Ready", "vvs/one", *where, "--timeout=10s")
