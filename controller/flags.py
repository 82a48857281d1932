"""What the process can be told: flags, each with an environment variable, checked before anything starts."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from controller.kube.credentials import OWN_NAMESPACE, Credentials
from controller.kube.lease import lease_name
from controller.telemetry.health import Address
from controller.telemetry.logs import Format

DEFAULT_NAMESPACE = "varve-system"
"""Of the Lease, outside a pod: the manifests make it, so that all processes of a cluster meet there."""

_KEY = r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?"
_TERM = rf"\s*(!?{_KEY}|{_KEY}\s*(=|==|!=)\s*[\w.-]*|{_KEY}\s+(in|notin)\s*\([\w.,\s-]*\))\s*"
_SELECTOR = re.compile(rf"({_TERM}(,{_TERM})*)?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_CLUSTER_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Options:
    """What the process was started with; see ``--help``. Times are in seconds."""

    credentials: Credentials
    cluster_id: str | None
    hypervisor_selector: str
    metrics_address: Address | None
    probe_address: Address | None
    leader_elect: bool
    lease_namespace: str
    lease_name: str
    resync_seconds: float
    workers: int
    grace_seconds: float
    log_format: Format
    log_level: str
    version: str


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Read the flags; what is not given comes from the environment, then from the defaults.

    Raises SystemExit: 2 with a message for what cannot be meant, 0 for ``--help`` and ``--version``.
    """
    flags = _parser(environment).parse_args(arguments)
    return Options(
        credentials=_credentials(flags.kubeconfig, environment),
        cluster_id=flags.cluster_id or None,
        hypervisor_selector=flags.hypervisor_selector,
        metrics_address=flags.metrics_bind_address,
        probe_address=flags.health_probe_bind_address,
        leader_elect=flags.leader_elect,
        lease_namespace=flags.lease_namespace or _own_namespace(),
        lease_name=flags.lease_name or lease_name(flags.hypervisor_selector),
        resync_seconds=flags.resync_seconds,
        workers=flags.workers,
        grace_seconds=flags.grace_period,
        log_format=flags.log_format,
        log_level=flags.log_level,
        version=_version(),
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="varve-controller",
        description="Makes live libvirt/QEMU backing chains match the VolumeSnapshots of a cluster.",
        epilog="Each flag can be given as an environment variable, too; the flag wins.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())

    def flag(name: str, kind: Callable[[str], object], default: str, text: str, shown: str = "") -> None:
        variable = "VARVE_" + name.upper().replace("-", "_")
        parser.add_argument(
            f"--{name}",
            type=kind,
            default=environment.get(variable, default),  # checked by `kind` like a flag, since it is a string
            metavar=name.rpartition("-")[2].upper(),
            help=f"{text} [{variable}; default: {(shown or default or 'none').replace('%', '%%')}]",
        )

    flag(
        "kubeconfig",
        str,
        "",
        "kubeconfig of the cluster",
        "$KUBECONFIG, the pod's ServiceAccount, ~/.kube/config",
    )
    flag(
        "cluster-id", _cluster_id, "", "identity in the domains' journals", "UID of the namespace kube-system"
    )
    flag("hypervisor-selector", _selector, "", "handle only Hypervisors with these labels", "all")
    flag("metrics-bind-address", _address, ":8080", "where /metrics is served; 0: nowhere")
    flag("health-probe-bind-address", _address, ":8081", "where /healthz and /readyz are served; 0: nowhere")
    flag("leader-elect", _boolean, "true", "work only while holding a Lease: true or false")
    flag("lease-namespace", _label, "", "namespace of the Lease", f"the pod's own, else {DEFAULT_NAMESPACE}")
    flag(
        "lease-name",
        _subdomain,
        "",
        "name of the Lease",
        "varve, with a hash of --hypervisor-selector if any",
    )
    flag("resync-seconds", _seconds, "300", "look at everything this often, whatever the events say")
    flag("workers", _count, "16", "domains that are worked on at the same time")
    flag("grace-period", _seconds, "25", "seconds from SIGTERM to the end at the latest")
    flag("log-format", _one_of("text", "json"), "text", "text or json")
    flag("log-level", _one_of("debug", "info", "warning", "error"), "info", "debug, info, warning or error")
    return parser


def _credentials(kubeconfig: str, environment: Mapping[str, str]) -> Credentials:
    """From the flag, KUBECONFIG, the pod or kubectl's own file, in the order of controller-runtime."""
    named = kubeconfig or environment.get("KUBECONFIG", "")
    if not named and environment.get("KUBERNETES_SERVICE_HOST"):
        return Credentials(None, in_cluster=True)
    usual = Path("~/.kube/config").expanduser()
    return Credentials(named or (str(usual) if usual.is_file() else None))


def _own_namespace() -> str:
    try:
        return OWN_NAMESPACE.read_text(encoding="utf-8").strip() or DEFAULT_NAMESPACE
    except OSError:
        return DEFAULT_NAMESPACE  # not a pod


def _version() -> str:
    try:
        return version("varve")
    except PackageNotFoundError:
        return "unknown"  # run from a source tree that was not installed


def _address(text: str) -> Address | None:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _selector(text: str) -> str:
    return _fits(_SELECTOR, text, "a label selector such as varve.dev/site=lab or site in (a,b)")


def _label(text: str) -> str:
    return text and _fits(_LABEL, text, "the name of a namespace")


def _subdomain(text: str) -> str:
    return text and _fits(_SUBDOMAIN, text, "an object name: a-z, 0-9, - and .")


def _cluster_id(text: str) -> str:
    return text and _fits(_CLUSTER_ID, text, "an identity: letters, digits, . _ and -, at most 253")


def _fits(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to 86400")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def _boolean(text: str) -> bool:
    return _one_of("true", "false")(text.lower()) == "true"


def _one_of(*allowed: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in allowed:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(allowed)}")
        return text

    return check
