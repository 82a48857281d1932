"""What can be said to the process, and what it says to nonsense."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller import flags
from controller.telemetry.health import Address


@pytest.fixture(autouse=True)
def not_in_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(flags, "OWN_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("HOME", str(tmp_path))


def test_defaults() -> None:
    options = flags.parse([], {})
    assert options.metrics_address == Address(None, 8080)
    assert options.probe_address == Address(None, 8081)
    assert options.leader_elect
    assert (options.lease_namespace, options.lease_name) == ("varve-system", "varve")
    assert (options.log_format, options.log_level) == ("text", "info")
    assert options.grace_seconds < 30  # what Kubernetes gives by default
    assert options.cluster_id is None


def test_a_flag_wins_over_the_environment() -> None:
    environment = {"VARVE_LOG_FORMAT": "json", "VARVE_WORKERS": "3", "VARVE_LEADER_ELECT": "false"}
    options = flags.parse(["--workers=5"], environment)
    assert (options.log_format, options.workers, options.leader_elect) == ("json", 5, False)


def test_in_a_pod(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("prod\n")
    options = flags.parse([], {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert options.credentials.source == "the pod's ServiceAccount"
    assert options.lease_namespace == "prod"


@pytest.mark.parametrize(
    ("arguments", "environment", "source"),
    [
        (["--kubeconfig=/flag"], {"KUBECONFIG": "/env", "KUBERNETES_SERVICE_HOST": "x"}, "/flag"),
        ([], {"KUBECONFIG": "/env", "KUBERNETES_SERVICE_HOST": "x"}, "/env"),
        ([], {"VARVE_KUBECONFIG": "/own", "KUBECONFIG": "/env"}, "/own"),
        ([], {}, "(none)"),
    ],
)
def test_where_credentials_come_from(arguments: list[str], environment: dict[str, str], source: str) -> None:
    assert flags.parse(arguments, environment).credentials.source.endswith(source)


def test_shards_have_leases_of_their_own() -> None:
    names = {flags.parse([f"--hypervisor-selector={s}"], {}).lease_name for s in ("", "a=b", "a=c")}
    assert len(names) == 3


@pytest.mark.parametrize(
    "selector",
    ["varve.dev/site=lab", "a!=b,c", "!x", "site in (a, b),tier notin (c)", "a==b", "a=", "a.b/c_d"],
)
def test_selectors_as_kubectl_takes_them(selector: str) -> None:
    assert flags.parse([f"--hypervisor-selector={selector}"], {}).hypervisor_selector == selector


@pytest.mark.parametrize(
    "bad",
    [
        "--hypervisor-selector==x",
        "--hypervisor-selector=a=b&limit=1",
        "--metrics-bind-address=8080",
        "--health-probe-bind-address=:99999",
        "--metrics-bind-address=::1:80",
        "--leader-elect=perhaps",
        "--log-format=xml",
        "--log-level=loud",
        "--workers=0",
        "--resync-seconds=soon",
        "--grace-period=0",
        "--cluster-id=a b",
        "--lease-name=No_Name",
        "--lease-namespace=a.b",
        "--no-such-flag",
        "--work=3",
    ],
)
def test_nonsense_is_refused_with_what_was_meant(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        flags.parse([bad], {})
    assert caught.value.code == 2
    assert bad.partition("=")[0] in capsys.readouterr().err


def test_nonsense_in_the_environment_is_refused_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        flags.parse([], {"VARVE_LOG_FORMAT": "xml"})
    assert caught.value.code == 2
    assert "--log-format" in capsys.readouterr().err


def test_help_shows_each_flag_with_its_variable_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        flags.parse(["--help"], {})
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for flag, default in (
        ("metrics-bind-address", ":8080"),
        ("health-probe-bind-address", ":8081"),
        ("log-format", "text"),
        ("leader-elect", "true"),
        ("cluster-id", "UID of the namespace kube-system"),
    ):
        variable = "VARVE_" + flag.upper().replace("-", "_")
        assert f"--{flag} " in text
        assert f"[{variable}; default: {default}]" in text


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The process with the stub engine, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tests.kube.stub_controller", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
    )


def test_without_credentials_the_process_says_what_to_set_and_ends() -> None:
    ended = run("--metrics-bind-address=0", "--health-probe-bind-address=0")
    assert ended.returncode == 2
    assert "set KUBECONFIG or --kubeconfig" in ended.stderr


def test_an_address_of_another_machine_is_said_so() -> None:
    ended = run("--metrics-bind-address=192.0.2.1:80", "--health-probe-bind-address=0", KUBECONFIG="/x")
    assert ended.returncode == 2
    assert "192.0.2.1" in ended.stderr
