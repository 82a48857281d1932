"""B24: the health script for Argo CD, in a Lua interpreter, over statuses as they are written.

Argo CD runs scripts in gopher-lua, which is Lua 5.1, without the libraries string and math.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import lua51

from controller.api import GROUP
from controller.api.conditions import HYPERVISOR_CONDITIONS, SNAPSHOT_CONDITIONS, State, Verdict, conditions
from controller.api.crd import KINDS
from controller.api.reasons import Reason
from crds.generate import ARGOCD, PATCH, argocd_patch
from tests.api.kstatus import evaluate

SCRIPT = (ARGOCD / "health.lua").read_text()
CASES: list[dict[str, Any]] = yaml.safe_load((ARGOCD / "health_test.yaml").read_text())["tests"]
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def health(obj: dict[str, Any], script: str = SCRIPT) -> dict[str, str]:
    """What Argo CD makes of an object."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True)
    for library in ("string", "math", "io", "os", "package", "require", "debug", "python"):
        lua.globals()[library] = None
    lua.globals()["obj"] = lua.table_from(obj, recursive=True)
    found = lua.execute(script)
    return {str(name): str(value) for name, value in found.items()}


@pytest.mark.parametrize("case", CASES, ids=[Path(case["inputPath"]).stem for case in CASES])
def test_each_fixture(case: dict[str, Any]) -> None:
    """In the layout of Argo CD's own resource_customizations."""
    found = health(yaml.safe_load((ARGOCD / case["inputPath"]).read_text()))
    assert found == case["healthStatus"]


def test_all_fixtures_are_used_and_all_healths_are_among_them() -> None:
    assert {path.name for path in (ARGOCD / "testdata").iterdir()} == {
        Path(case["inputPath"]).name for case in CASES
    }
    said = {case["healthStatus"]["status"] for case in CASES}
    assert said == {"Progressing", "Healthy", "Degraded", "Suspended"}
    kinds = {yaml.safe_load((ARGOCD / case["inputPath"]).read_text())["kind"] for case in CASES}
    assert kinds == {kind.name for kind in KINDS if kind.has_status}


SAME = {"Current": "Healthy", "Failed": "Degraded", "InProgress": "Progressing", "Terminating": "Progressing"}


@pytest.mark.parametrize("state", [state for state in State if state is not State.SUSPENDED])
@pytest.mark.parametrize("deleting", [True, False])
@pytest.mark.parametrize("behind", [0, 1])
@pytest.mark.parametrize("types", [SNAPSHOT_CONDITIONS, HYPERVISOR_CONDITIONS])
def test_argo_cd_says_what_kstatus_says(state: State, deleting: bool, behind: int, types: Any) -> None:
    """Of every state that an object can be in: Flux, Helm and Argo CD agree."""
    built = conditions(Verdict(state, Reason.PENDING, "why"), (), 3, NOW, types)
    metadata: dict[str, Any] = {"generation": 3 + behind}
    if deleting:
        metadata["deletionTimestamp"] = "2026-11-22T12:00:00Z"
    status = {"observedGeneration": 3, "conditions": [one.to_api() for one in built]}
    obj = {"metadata": metadata, "spec": {}, "status": status}
    assert health(obj)["status"] == SAME[evaluate(obj)]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (None, "Suspended"),
        (State.WAITING, "Suspended"),
        (State.STALLED, "Suspended"),
        (State.IN_SYNC, "Healthy"),
    ],
)
def test_what_is_suspended_blocks_no_wave_when_it_is_ready(before: State | None, expected: str) -> None:
    was = conditions(Verdict(before, Reason.LOST, "before"), (), 2, NOW) if before else ()
    built = conditions(Verdict(State.SUSPENDED, Reason.SUSPENDED, "suspended"), was, 3, NOW)
    status = {"observedGeneration": 3, "conditions": [one.to_api() for one in built]}
    obj = {"metadata": {"generation": 3}, "spec": {"suspend": True}, "status": status}
    assert health(obj)["status"] == expected


@pytest.mark.parametrize("status", [None, {}, {"observedGeneration": -1}, {"observedGeneration": 1}])
def test_what_nobody_has_looked_at_is_progressing(status: dict[str, Any] | None) -> None:
    obj: dict[str, Any] = {"metadata": {"generation": 1}, "spec": {}}
    if status is not None:
        obj["status"] = status
    assert health(obj)["status"] == "Progressing"


def test_the_patch_has_the_script_for_each_kind_with_a_status() -> None:
    assert PATCH.read_text() == argocd_patch(SCRIPT), "python -m crds.generate"
    data = yaml.safe_load(PATCH.read_text())["data"]
    prefix = f"resource.customizations.health.{GROUP}_"
    assert set(data) == {prefix + kind.name for kind in KINDS if kind.has_status}
    assert set(data.values()) == {SCRIPT}
