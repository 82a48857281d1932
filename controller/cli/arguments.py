"""What the command line takes. Standard flags are kubectl's, before or after the command."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath

from controller.api.volumesnapshot import DeletionPolicy

_HASH = re.compile(r"[0-9a-f]{8,64}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_PLUGIN = "kubectl-varve"


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    command: str
    namespace: str | None = None
    """None: that of the context."""
    all_namespaces: bool = False
    kubeconfig: str | None = None
    context: str | None = None
    output: str = ""
    """json, plain, or empty: rich in a terminal and plain elsewhere."""
    names: Sequence[str] = field(default=())
    delete: Sequence[str] = field(default=())
    plan: str | None = None
    yes: bool = False
    deletion_policy: DeletionPolicy | None = None
    until_idle: bool = False


def parse(arguments: Sequence[str], program: str = "varve") -> Options:
    """Read the arguments; ``program`` is what the process was called as.

    Raises SystemExit: 2 with a message for what cannot be meant, 0 for ``--help`` and ``--version``.
    """
    shown = "kubectl varve" if PurePath(program).name.startswith(_PLUGIN) else "varve"
    parser = _parser(shown)
    found = vars(parser.parse_args(arguments))
    if found.get("all_namespaces") and (found.get("names") or found.get("delete")):
        parser.error("names are of one namespace: leave out -A, or the names")
    if found.get("all_namespaces") and found.get("namespace"):
        parser.error("write -n or -A, not both")
    if found["command"] in ("approve", "adopt", "explain") and found.pop("all_namespaces", False):
        parser.error("-A is for tree, plan and watch")
    return Options(**found)


def _parser(program: str) -> argparse.ArgumentParser:
    common = _common()
    parser = argparse.ArgumentParser(
        prog=program,
        description="Chains of disk images under snapshots: what is there, what will be done, why not yet.",
        epilog="Exit codes: 0 done, 1 error or not found, 2 wrong usage. NO_COLOR turns colours off.",
        parents=[common],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, about: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=about, parents=[common], allow_abbrev=False)

    tree = command("tree", "chains with sizes and owners", "Shows each chain, top to base.")
    plan = command(
        "plan", "what will be done, and what it copies", "Shows what will be done, and what it waits for."
    )
    watch = command("watch", "what runs, live", "Shows what runs, as it changes, until interrupted.")
    for one in (tree, plan, watch):
        one.add_argument("names", nargs="*", type=_name, metavar="CHAIN", help="VolumeChains; default: all")
    plan.add_argument(
        "--delete",
        nargs="+",
        type=_name,
        default=[],
        metavar="NAME",
        help="what would be done if these VolumeSnapshots were deleted",
    )
    watch.add_argument(
        "--until-idle", action="store_true", help="end when nothing runs and nothing is planned"
    )
    _approve(command)
    adopt = command(
        "adopt",
        "VolumeSnapshots for points that nobody owns",
        "Prints VolumeSnapshots that adopt the points which nobody owns, for kubectl apply or Git.",
    )
    adopt.add_argument("names", nargs=1, type=_name, metavar="CHAIN")
    adopt.add_argument(
        "--deletion-policy",
        type=DeletionPolicy,
        choices=list(DeletionPolicy),
        help="write this one into each",
    )
    explain = command(
        "explain",
        "why it is not ready or not gone",
        "Says why an object is as it is, and what to do.",
    )
    explain.add_argument(
        "names",
        nargs=1,
        type=_resource,
        metavar="NAME",
        help="a VolumeSnapshot, or else a VolumeChain or Hypervisor; or vvs/NAME, vvc/NAME, hypervisor/NAME",
    )
    return parser


def _approve(command: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    approve = command(
        "approve",
        "agree to the plan of a chain",
        "Sets spec.approvedPlan of a chain. Refuses when the plan is not the one that was seen.",
    )
    approve.add_argument("names", nargs=1, type=_name, metavar="CHAIN")
    approve.add_argument(
        "plan", nargs="?", type=_hash, metavar="HASH", help="the plan that was seen, or its first 8 digits"
    )
    approve.add_argument("-y", "--yes", action="store_true", help="do not ask in a terminal")


def _common() -> argparse.ArgumentParser:
    """kubectl's flags. Absent ones are left out, so that those before the command are not overwritten."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    common.add_argument("-n", "--namespace", type=_name, help="default: that of the context")
    common.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")
    common.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, ~/.kube/config")
    common.add_argument("--context", metavar="NAME", help="the kubeconfig's context to use")
    common.add_argument(
        "-o",
        "--output",
        choices=("json", "plain"),
        help="json: documented and stable; plain: as in a pipe",
    )
    return common


def _version() -> str:
    try:
        return version("varve")
    except PackageNotFoundError:
        return "unknown"  # run from a source tree that was not installed


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of an object")
    return text


def _resource(text: str) -> str:
    kind, slash, name = text.rpartition("/")
    _name(name)
    if slash and not re.fullmatch(r"[a-z]+(\.varve\.dev)?", kind):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME or KIND/NAME")
    return text


def _hash(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a plan's hash, or its first 8 digits or more")
    return text
