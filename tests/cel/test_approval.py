"""Approving is a right of its own: who may only edit neither approves nor lifts what asks for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from lab.control.plane import ControlPlane
from lab.deadline import wait_until
from tests.api.samples import sample
from tests.cel.test_manifests import CENTRAL

pytestmark = pytest.mark.cluster

PLAN, OTHER = "0123456789abcdef", "fedcba9876543210"


@dataclass(frozen=True)
class Person:
    """kubectl in one namespace, by a token."""

    plane: ControlPlane
    namespace: str
    token: str

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard error of kubectl; empty when it worked."""
        everything = ("--token", self.token, "-n", self.namespace, *arguments)
        answer = self.plane.kubectl(*everything, stdin=stdin, check=False)
        return answer.stderr if answer.returncode else ""

    def create(self, name: str, **spec: Any) -> str:
        return self("create", "-f", "-", stdin=json.dumps(chain(name, **spec)))

    def patch(self, name: str, **spec: Any) -> str:
        return self("patch", f"vvc/{name}", "--type=merge", "-p", json.dumps({"spec": spec}))


def chain(name: str, **spec: Any) -> dict[str, Any]:
    source = {"domain": "web-1", "disk": "vda"}
    meta = {"name": name}
    return {
        "apiVersion": "varve.dev/v1alpha1",
        "kind": "VolumeChain",
        "metadata": meta,
        "spec": {"source": source, **spec},
    }


@pytest.fixture(scope="module")
def people(control_plane: ControlPlane) -> Iterator[dict[str, Person]]:
    """Somebody with each role, and a cluster administrator's namespace to work in."""
    plane = control_plane
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CENTRAL))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    namespace = f"approval-{uuid4().hex[:8]}"
    plane.kubectl("create", "namespace", namespace)
    found = {}
    for name, roles in (("editor", ["varve-edit", "varve-view"]), ("approver", ["varve-approve"])):
        plane.kubectl("create", "serviceaccount", name, "-n", namespace)
        for role in roles:
            account = f"--serviceaccount={namespace}:{name}"
            binding = ("rolebinding", f"{name}-{role}", f"--clusterrole={role}", account)
            plane.kubectl("create", *binding, "-n", namespace)
        token = plane.kubectl("create", "token", name, "-n", namespace).stdout.strip()
        found[name] = Person(plane, namespace, token)
    refused = lambda: found["editor"].create(f"try-{uuid4().hex[:8]}", approvedPlan=PLAN)  # noqa: E731
    wait_until(refused, timeout=30, what="the policy is in force", interval=0.5)
    yield found
    plane.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def editor(people: dict[str, Person]) -> Person:
    return people["editor"]


@pytest.fixture
def approver(people: dict[str, Person]) -> Person:
    return people["approver"]


def test_who_may_edit_may_write_all_but_an_approval(editor: Person) -> None:
    assert editor.create("mine", approval="Auto", onDrift="Adopt") == ""
    assert editor.patch("mine", onDrift="Report", notInUse=["/images/old"]) == ""
    assert editor.patch("mine", approval="Manual") == "", "asking for approval makes nothing happen"
    for refused in (
        editor.patch("mine", approvedPlan=PLAN),
        editor.patch("mine", approval="Auto"),
        editor.patch("mine", approval="Auto", approvedPlan=PLAN),
        editor.create("born-approved", approval="Manual", approvedPlan=PLAN),
        editor("delete", "vvc/mine"),
        editor("delete", "vvc", "--all"),
        editor("delete", "--raw", f"/apis/varve.dev/v1alpha1/namespaces/{editor.namespace}/volumechains"),
        editor(
            "apply",
            "--server-side",
            "--field-manager=varve-controller",
            "--force-conflicts",
            "-f",
            "-",
            stdin=json.dumps(chain("mine", approval="Manual", approvedPlan=PLAN)),
        ),
        editor("replace", "-f", "-", stdin=json.dumps(chain("mine"))),
    ):
        assert "approve" in refused
        assert "orbidden" in refused or "denied" in refused


def test_who_may_approve_approves_and_lifts(editor: Person, approver: Person) -> None:
    assert editor.create("asked", approval="Manual") == ""
    assert approver.patch("asked", approvedPlan=PLAN) == ""
    assert editor.patch("asked", onDrift="Adopt") == "", (
        "what was approved stays when something else is written"
    )
    assert "approve" in editor.patch("asked", approvedPlan=OTHER)
    assert editor.patch("asked", approvedPlan="") == "", "taking it back makes nothing happen"
    assert "approve" in editor.patch("asked", approvedPlan=PLAN), "not even to what it was"
    assert approver.patch("asked", approval="Auto") == ""
    assert editor("delete", "vvc/asked") == ""


def test_an_approver_may_write_no_other_object(approver: Person) -> None:
    assert "orbidden" in approver.create("another", approval="Auto")
    assert "orbidden" in approver("get", "vvs")


def test_a_namespace_with_a_manual_chain_goes(people: dict[str, Person]) -> None:
    """There is no controller of namespaces here: what it does is done for it, without the verb approve."""
    plane, namespace = people["editor"].plane, f"going-{uuid4().hex[:8]}"
    plane.kubectl("create", "namespace", namespace)
    plane.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(chain("strict", approval="Manual")))
    rules = (
        "clusterrole",
        f"gone-{namespace}",
        "--verb=delete,get,list",
        "--resource=volumechains.varve.dev",
    )
    plane.kubectl("create", *rules)
    plane.kubectl("create", "serviceaccount", "sweeper", "-n", namespace)
    account = f"--serviceaccount={namespace}:sweeper"
    plane.kubectl(
        "create", "clusterrolebinding", f"gone-{namespace}", f"--clusterrole=gone-{namespace}", account
    )
    token = plane.kubectl("create", "token", "sweeper", "-n", namespace).stdout.strip()
    sweeper = Person(plane, namespace, token)
    try:
        assert "approve" in sweeper("delete", "vvc/strict")
        plane.kubectl("delete", "namespace", namespace, "--wait=false")
        assert sweeper("delete", "vvc/strict") == ""
    finally:
        plane.kubectl("delete", "clusterrole,clusterrolebinding", f"gone-{namespace}")


def test_the_sample_works_for_an_administrator(people: dict[str, Person]) -> None:
    plane, namespace = people["editor"].plane, people["editor"].namespace
    obj = sample("20-chain.yaml")
    obj["metadata"]["namespace"] = namespace
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(obj))
    where = (f"vvc/{obj['metadata']['name']}", "-n", namespace)
    plane.kubectl("patch", *where, "--type=merge", "-p", json.dumps({"spec": {"approvedPlan": PLAN}}))
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(obj))
    plane.kubectl("delete", *where)


def test_the_command_line_says_what_is_missing(editor: Person, approver: Person, tmp_path: Path) -> None:
    assert editor.create("by-varve", approval="Manual") == ""
    status = {"observedGeneration": 1, "plan": {"hash": PLAN, "steps": [{"kind": "Commit"}]}}
    where = ("-n", editor.namespace, "--subresource=status", "--type=merge")
    editor.plane.kubectl("patch", "vvc/by-varve", *where, "-p", json.dumps({"status": status}))
    refused = _varve(editor, tmp_path)
    assert refused.returncode == 1
    assert "verb approve" in refused.stderr
    assert "varve-approve" in refused.stderr
    assert "nothing was written" in refused.stderr
    approved = _varve(approver, tmp_path)
    assert approved.returncode == 0, approved.stderr
    assert PLAN in approved.stdout


def _varve(person: Person, directory: Path) -> subprocess.CompletedProcess[str]:
    """`varve approve` as this person."""
    environment = person.plane.environment()
    config = yaml.safe_load(Path(environment["KUBECONFIG"]).read_text(encoding="utf-8"))
    for user in config["users"]:
        user["user"] = {"token": person.token}
    file = directory / "kubeconfig"
    file.write_text(json.dumps(config), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", "approve", "by-varve", PLAN, "-n", person.namespace],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, "KUBECONFIG": str(file)},
    )
