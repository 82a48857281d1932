"""The manifests as shipped, applied to a real API server in one command."""

import json
from base64 import b64encode
from pathlib import Path

import pytest

from tests.cel.test_admission import ControlPlane

pytestmark = pytest.mark.cluster

CENTRAL = Path(__file__).parents[2] / "manifests" / "overlays" / "central"
CONTROLLER = "system:serviceaccount:varve-system:varve-controller"

ALLOWED = [
    *(("volumesnapshots.varve.dev", verb, "shop") for verb in ("get", "list", "watch", "patch")),
    ("volumesnapshots.varve.dev/status", "patch", "shop"),
    *(("volumechains.varve.dev", verb, "shop") for verb in ("get", "list", "watch", "create", "delete")),
    ("volumechains.varve.dev/status", "patch", "shop"),
    *(("hypervisors.varve.dev", verb, "") for verb in ("get", "list", "watch")),
    ("hypervisors.varve.dev/status", "patch", ""),
    *(("volumesnapshotclasses.varve.dev", verb, "") for verb in ("get", "list", "watch", "patch")),
    ("events.events.k8s.io", "create", "shop"),
    ("namespaces/kube-system", "get", ""),
    *(("leases.coordination.k8s.io/varve", verb, "varve-system") for verb in ("get", "update")),
    ("leases.coordination.k8s.io", "create", "varve-system"),
    *(("secrets/varve-journal-key", verb, "varve-system") for verb in ("get", "update")),
]
REFUSED = [
    *(("volumesnapshots.varve.dev", verb, "shop") for verb in ("create", "update", "delete")),
    *(("volumechains.varve.dev", verb, "shop") for verb in ("patch", "update", "deletecollection")),
    ("hypervisors.varve.dev", "patch", ""),
    *(("volumesnapshotclasses.varve.dev", verb, "") for verb in ("create", "update", "delete")),
    ("secrets", "get", "varve-system"),
    ("secrets", "list", "shop"),
    *(("secrets/varve-journal-key", verb, "varve-system") for verb in ("patch", "delete")),
    ("secrets", "create", "varve-system"),
    ("namespaces/shop", "get", ""),
    ("namespaces", "list", ""),
    ("leases.coordination.k8s.io/varve", "get", "kube-system"),
    *(("leases.coordination.k8s.io/another", verb, "varve-system") for verb in ("get", "update")),
    *(("leases.coordination.k8s.io", verb, "varve-system") for verb in ("list", "delete")),
    ("customresourcedefinitions.apiextensions.k8s.io", "list", ""),
    ("pods", "list", "varve-system"),
]


@pytest.fixture(scope="module")
def installed(control_plane: ControlPlane) -> ControlPlane:
    answer = control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CENTRAL))
    assert "violate" not in answer.stderr, "Pod Security"
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return control_plane


def test_everything_is_there_and_applying_again_changes_nothing(installed: ControlPlane) -> None:
    where = ("-n", "varve-system")
    kinds = "deployment,serviceaccount,role,rolebinding"
    names = installed.kubectl("get", kinds, *where, "-o", "name").stdout.split()
    assert sum(name.endswith("/varve-controller") for name in names) == 4
    pod = installed.kubectl("get", "deployment", "varve-controller", *where, "-o", "json").stdout
    (volume,) = (
        volume for volume in json.loads(pod)["spec"]["template"]["spec"]["volumes"] if "secret" in volume
    )
    assert volume["secret"]["defaultMode"] == 0o440
    assert installed.kubectl("diff", "--server-side", "-k", str(CENTRAL), check=False).returncode == 0


def test_the_key_of_the_records_outlives_the_next_apply(installed: ControlPlane) -> None:
    """The controller has put it in; the manifests have the Secret without it, and own nothing of its data."""
    where, apply = ("-n", "varve-system"), ("apply", "--server-side", "--force-conflicts", "-k", str(CENTRAL))
    secret = json.loads(installed.kubectl("get", "secret", "varve-journal-key", *where, "-o", "json").stdout)
    key = {"key": b64encode(b"k" * 32).decode()}
    installed.kubectl(
        "replace", f"--as={CONTROLLER}", "-f", "-", *where, stdin=json.dumps({**secret, "data": key})
    )
    for again in (apply, ("apply", "-k", str(CENTRAL)), apply):
        installed.kubectl(*again)
        found = installed.kubectl("get", "secret", "varve-journal-key", *where, "-o", "json").stdout
        assert json.loads(found)["data"] == key, again


def _can(cluster: ControlPlane, resource: str, verb: str, namespace: str) -> bool:
    thing, _, sub = resource.partition("/")
    arguments = [thing, "--subresource=status"] if sub == "status" else [resource]
    where = ["-n", namespace] if namespace else []
    answer = cluster.kubectl("auth", "can-i", verb, *arguments, *where, f"--as={CONTROLLER}", check=False)
    assert answer.stdout.strip() in {"yes", "no"}, answer.stderr
    return answer.stdout.strip() == "yes"


@pytest.mark.parametrize(("resource", "verb", "namespace"), ALLOWED)
def test_the_controller_may_do_its_work(
    installed: ControlPlane, resource: str, verb: str, namespace: str
) -> None:
    assert _can(installed, resource, verb, namespace)


@pytest.mark.parametrize(("resource", "verb", "namespace"), REFUSED)
def test_the_controller_may_do_no_more(
    installed: ControlPlane, resource: str, verb: str, namespace: str
) -> None:
    assert not _can(installed, resource, verb, namespace)
