"""The program as users start it, against a real kube-apiserver. The status is written by the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli.cluster import APPROVAL_MANAGER
from controller.kube.kinds import Raw
from lab.control.plane import ControlPlane

from .objects import HASH, MIB, raw_chain, raw_snapshot, ready

pytestmark = pytest.mark.cluster

SCRIPTS = Path(sys.executable).parent
OTHER = "0123456789abcdef"


def varve(plane: ControlPlane, *arguments: str, exit_code: int = 0) -> str:
    """What it prints; its errors when it is to fail."""
    done = subprocess.run(
        [sys.executable, "-m", "controller.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=plane.environment(),
    )
    assert done.returncode == exit_code, done.stderr
    return done.stderr if exit_code else done.stdout


def put(plane: ControlPlane, raw: Raw) -> None:
    """Make an object with its status."""
    text = json.dumps({key: value for key, value in raw.items() if key != "status"})
    plane.kubectl("apply", "--server-side", "--field-manager=test", "-f", "-", stdin=text)
    set_status(plane, raw)


def set_status(plane: ControlPlane, raw: Raw) -> None:
    """Write the status as the controller does."""
    meta = {key: raw["metadata"][key] for key in ("name", "namespace")}
    body = {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": meta, "status": raw["status"]}
    plane.kubectl(
        *("apply", "--server-side", "--subresource=status", "--field-manager=varve", "--force-conflicts"),
        *("-f", "-"),
        stdin=json.dumps(body),
    )


def plain(raw: Raw) -> Raw:
    """Without what only the server sets."""
    for key in ("uid", "generation", "resourceVersion", "finalizers"):
        raw["metadata"].pop(key, None)
    return raw


@pytest.fixture
def shop(plane: ControlPlane) -> Iterator[ControlPlane]:
    """A chain that waits for approval and a point of it."""
    put(plane, plain(raw_chain()))
    waits = ready("False", "AwaitingApproval", "the merge waits for approval")
    put(plane, plain(raw_snapshot("db-1-wednesday", conditions=waits)))
    yield plane
    plane.kubectl("delete", "volumechains.varve.dev,volumesnapshots.varve.dev", "--all", "-n", "shop")


def test_reads_what_is_there(shop: ControlPlane) -> None:
    text = varve(shop, "tree", "-n", "shop")
    assert text == varve(shop, "tree", "-A")
    assert text == (Path(__file__).parent / "golden" / "tree.txt").read_text(encoding="utf-8")
    assert varve(shop, "tree") == "No chain.\n"  # the namespace of the context
    assert varve(shop, "--context", "nope", "tree", exit_code=1).startswith("error: ")
    said = varve(shop, "explain", "db-1-wednesday", "-n", "shop")
    assert "chain    shop/db-1-vda" in said
    assert "varve approve db-1-vda -n shop" in said
    assert "no VolumeSnapshot nope in namespace shop" in varve(
        shop, "explain", "nope", "-n", "shop", exit_code=1
    )
    found = json.loads(varve(shop, "plan", "--delete", "db-1-wednesday", "-n", "shop", "-o", "json"))
    assert found["chains"][0]["bytes"] == 76 * MIB


def test_approves_what_was_shown_and_nothing_else(shop: ControlPlane) -> None:
    assert "changed" in varve(shop, "approve", "db-1-vda", OTHER, "-n", "shop", exit_code=1)
    assert chain(shop)["spec"].get("approvedPlan", "") == ""
    assert f"plan {HASH} approved" in varve(shop, "approve", "db-1-vda", HASH[:10], "-n", "shop")
    found = chain(shop)
    assert found["spec"]["approvedPlan"] == HASH
    managed = {entry["manager"]: entry["fieldsV1"] for entry in found["metadata"]["managedFields"]}
    assert managed[APPROVAL_MANAGER] == {"f:spec": {"f:approvedPlan": {}}}
    replanned = raw_chain(plan={"hash": OTHER, "steps": []})
    set_status(shop, replanned)
    assert "changed" in varve(shop, "approve", "db-1-vda", HASH, "-n", "shop", exit_code=1)
    assert chain(shop)["spec"]["approvedPlan"] == HASH
    assert f"plan {OTHER} approved" in varve(shop, "approve", "db-1-vda", "-n", "shop")


def test_approves_over_a_manifest_that_has_the_field(shop: ControlPlane) -> None:
    put(shop, plain(raw_chain(spec={"approvedPlan": ""})))
    assert f"plan {HASH} approved" in varve(shop, "approve", "db-1-vda", "-n", "shop")
    assert chain(shop)["spec"]["approvedPlan"] == HASH


def test_watches_without_asking_again(shop: ControlPlane) -> None:
    calm = {"conditions": ready("True", "InSync"), "plan": None, "blockedBy": None}
    with subprocess.Popen(
        [sys.executable, "-m", "controller.cli", "watch", "-n", "shop", "db-1-vda"],
        stdout=subprocess.PIPE,
        text=True,
        env=shop.environment(),
    ) as watching:
        try:
            assert watching.stdout is not None
            assert watching.stdout.readline().startswith("shop/db-1-vda  AwaitingApproval")
            running = {"kind": "Commit", "percent": 25, "currentBytes": 16 * MIB, "totalBytes": 64 * MIB}
            set_status(shop, raw_chain(**calm, operation=running))
            assert watching.stdout.readline() == "shop/db-1-vda  Commit 25 %, 16 MiB of 64 MiB\n"
            set_status(shop, raw_chain(**calm))
            assert watching.stdout.readline() == "shop/db-1-vda  InSync  6 layers, 2.0 GiB\n"
            shop.kubectl("delete", "vvc/db-1-vda", "-n", "shop")
            assert watching.stdout.readline() == "shop/db-1-vda  gone\n"
            watching.send_signal(signal.SIGINT)
            assert watching.wait(30) == 0
        finally:
            watching.kill()


def test_kubectl_finds_the_plugin(shop: ControlPlane) -> None:
    environment = shop.environment()
    environment["PATH"] = f"{SCRIPTS}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [str(shop.kubectl_path), "varve", "tree", "-n", "shop"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == varve(shop, "tree", "-n", "shop")


def test_what_it_prints_for_adoption_is_valid(shop: ControlPlane) -> None:
    text = varve(shop, "adopt", "db-1-vda", "-n", "shop")
    shop.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)


def chain(plane: ControlPlane) -> Raw:
    """The object as it is."""
    found: Raw = json.loads(
        plane.kubectl("get", "vvc/db-1-vda", "-n", "shop", "-o", "json", "--show-managed-fields").stdout
    )
    return found
