"""The benchmark runs and says what it should; how fast anything was is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = ("--quick", "--protocol", "file")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    path = tmp_path_factory.mktemp("bench") / "results.json"
    answer = subprocess.run(
        [sys.executable, "-m", "bench", *QUICK, "--json", str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        cwd=REPOSITORY,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout, json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.real
@pytest.mark.cluster
def test_every_part_is_measured_both_ways(run: tuple[str, dict[str, Any]]) -> None:
    _, found = run
    names = [one["name"] for one in found["comparisons"]]
    assert names == [
        "take",
        "empty merge, below",
        "empty merge, active",
        "empty merge, settleSeconds 1",
        "1 MiB merge, below, until merged",
        "1 MiB merge, below, until gone",
        "1 MiB merge, active, until merged",
        "1 MiB merge, active, until gone",
    ]
    for one in found["comparisons"]:
        assert len(one["bare"]["samples"]) == len(one["stack"]["samples"]) == one["stack"]["count"]
        assert 0 < one["stack"]["least"] <= one["stack"]["median"] <= one["stack"]["most"]
    assert {"cores", "kernel", "libvirt", "qemu", "kubernetes", "python"} <= set(found["machine"])


@pytest.mark.real
@pytest.mark.cluster
def test_a_life_costs_no_more_writes_than_its_budget(run: tuple[str, dict[str, Any]]) -> None:
    _, found = run
    writes = found["writes"]["file"]
    assert writes["lives"] == 2
    assert (
        2 <= writes["by_call"]["volumesnapshots finalizer"] < 3
    )  # added, removed; a conflict is tried again
    assert writes["per_life"] <= writes["budget"]


@pytest.mark.real
@pytest.mark.cluster
def test_the_crowd_shares_layers_and_rest_is_silent(run: tuple[str, dict[str, Any]]) -> None:
    _, found = run
    assert found["crowd"]["machines"] <= found["crowd"]["boundaries"] <= 4
    assert found["idle"]["writes"] == 0
    assert found["idle"]["snapshots"] == 5
    assert found["idle"]["resident_bytes"] > 0


@pytest.mark.real
@pytest.mark.cluster
def test_the_table_shows_what_the_json_holds(run: tuple[str, dict[str, Any]]) -> None:
    text, found = run
    assert text.startswith(f"`{found['command']}`")
    for one in found["comparisons"]:
        row = next(line for line in text.splitlines() if line.startswith(f"| {one['name']} "))
        assert f"{one['stack']['median'] * 1000:.0f} (" in row


@pytest.mark.parametrize("wrong", [["--runs", "0"], ["--protocol", "ftp"], ["--parts", "life,death"]])
def test_wrong_arguments_are_refused_before_anything_starts(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err
