"""The control plane does what the controller and its manifests rely on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control.plane import ControlPlane
from lab.errors import LabError

pytestmark = pytest.mark.cluster

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.lab.test"},
    "spec": {
        "group": "lab.test",
        "names": {"kind": "Widget", "plural": "widgets"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"size": {"type": "integer"}},
                                "x-kubernetes-validations": [
                                    {"rule": "self.size == oldSelf.size", "message": "size is immutable"}
                                ],
                            }
                        },
                    }
                },
            }
        ],
    },
}


def widget(size: int) -> str:
    metadata = {"name": "w", "namespace": "default"}
    return json.dumps(
        {"apiVersion": "lab.test/v1", "kind": "Widget", "metadata": metadata, "spec": {"size": size}}
    )


@pytest.fixture
def widgets(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(CRD))
    control_plane.kubectl("wait", "--for=condition=Established", "crd/widgets.lab.test", "--timeout=30s")
    yield control_plane
    control_plane.kubectl("delete", "crd/widgets.lab.test")


def test_cel_rules_hold_and_objects_survive_kills(widgets: ControlPlane) -> None:
    widgets.kubectl("apply", "-f", "-", stdin=widget(1))
    with pytest.raises(LabError, match="size is immutable"):
        widgets.kubectl("apply", "-f", "-", stdin=widget(2))
    widgets.kill_apiserver()
    assert widgets.kubectl("get", "widgets", check=False).returncode != 0
    widgets.kill_etcd()
    widgets.start_etcd()
    widgets.start_apiserver()
    assert widgets.kubectl("get", "widget", "w", "-o", "jsonpath={.spec.size}").stdout == "1"


def test_a_service_account_may_only_what_rbac_says(control_plane: ControlPlane, tmp_path: Path) -> None:
    control_plane.kubectl("create", "serviceaccount", "limited")
    control_plane.kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
    control_plane.kubectl(
        "create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:limited"
    )
    config = control_plane.service_account_kubeconfig(tmp_path / "kubeconfig", "default", "limited")
    assert config.stat().st_mode & 0o077 == 0
    arguments = ("--kubeconfig", str(config), "get")
    control_plane.kubectl(*arguments, "configmaps")
    with pytest.raises(LabError, match=r"limited.* cannot list resource .secrets."):
        control_plane.kubectl(*arguments, "secrets")


def test_the_version_is_stamped(control_plane: ControlPlane) -> None:
    versions = json.loads(control_plane.kubectl("version", "-o", "json").stdout)
    for side in ("clientVersion", "serverVersion"):
        assert int(versions[side]["minor"].rstrip("+")) >= 30
