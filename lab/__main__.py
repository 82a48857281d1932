"""`python -m lab prepare | up | status | env | down`: the lab by hand."""

from __future__ import annotations

import argparse
import os
import shlex
import string
import sys
import time
from pathlib import Path

from lab import process
from lab.control.binaries import find_binaries
from lab.errors import LabError
from lab.hosts.release import RELEASES, Release
from lab.install import GROUPS, install
from lab.lab import DISK_KINDS, Lab, default_directory
from lab.root import become_root
from lab.say import say
from lab.session import Session
from lab.state import STATE_NAME, LabState

_STORAGE = tuple(kind for kind in DISK_KINDS if kind != "file")
_ALL = "all"
_SPARE_BYTES = 64 << 20


def _storage(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = sorted(set(names) - {*_STORAGE, _ALL})
    if unknown:
        there = ", ".join([*_STORAGE, _ALL])
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are: {there}")
    return list(_STORAGE) if _ALL in names else names


def _hosts(text: str) -> int:
    count = int(text)
    if not 0 <= count <= len(string.ascii_lowercase):
        raise argparse.ArgumentTypeError(f"0 to {len(string.ascii_lowercase)}, not {count}")
    return count


def _host(text: str) -> tuple[str, str | None]:
    name, _, release = text.partition("=")
    if release and release not in RELEASES:
        raise argparse.ArgumentTypeError(f"unknown release {release!r}; there are: {', '.join(RELEASES)}")
    return name, release or None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="install and build all that any lab needs, and start nothing")
    up = commands.add_parser("up", help="start a lab; it stays until `down`")
    up.add_argument(
        "--hosts", type=_hosts, default=1, metavar="N", help="libvirt hosts, named a, b … (default: 1)"
    )
    up.add_argument(
        "--host",
        type=_host,
        action="append",
        default=[],
        metavar="NAME=RELEASE",
        help=f"one more host, with the libvirtd and QEMU of another Debian: {', '.join(RELEASES)}",
    )
    up.add_argument(
        "--storage", type=_storage, default=[], metavar="LIST", help=f"of: {','.join(_STORAGE)}, or {_ALL}"
    )
    up.add_argument(
        "--machines", action="store_true", help="on host a, one machine that writes per kind of disk"
    )
    up.add_argument("--no-control-plane", action="store_true", help="no etcd, kube-apiserver and kubectl")
    status = commands.add_parser(
        "status", help="what runs; exit code 1 if something died, 3 if there is no lab"
    )
    env = commands.add_parser("env", help='shell lines: eval "$(python -m lab env)"')
    down = commands.add_parser("down", help="end all of it and remove its directory, also after a crash")
    for command in (up, status, env, down):
        text = "the lab's directory (default: $VARVE_LAB_DIR or .lab)"
        command.add_argument("--dir", type=Path, default=default_directory(), help=text)
    return parser


def _prepare(_: argparse.Namespace) -> int:
    """What takes minutes the first time, before tests: where people see it, and within no test's deadline."""
    install()
    say(f"control plane: {find_binaries().origin}")
    for group in GROUPS:
        try:
            install(group)
        except SystemExit as error:  # its tests are skipped and say why
            say(f"no {group}: {error}")
    for release in RELEASES:
        try:
            say(f"Debian {release}: {Release.get(release).root}")
        except LabError as error:
            say(str(error))
    return 0


def _up(arguments: argparse.Namespace) -> int:
    install()
    began = time.monotonic()
    lab = Lab(arguments.dir, detached=True)
    try:
        if not arguments.no_control_plane:
            say(f"control plane: {lab.control_plane().server}")
        for letter in string.ascii_lowercase[: arguments.hosts]:
            say(f"host {letter}: {lab.host(letter).uri}")
        for name, release in arguments.host:
            say(f"host {name} ({release or 'as this machine'}): {lab.host(name, release=release).uri}")
        kinds = ["file", *_possible(lab, arguments.storage)]
        for kind in kinds if arguments.machines and arguments.hosts else []:
            machine = lab.host("a").machine(f"{kind}-1", [lab.disk(kind, f"{kind}-1")])
            machine.wait_writing()
            say(f"machine {machine.name} writes to {machine.chain()[0].source.uri}")
        for kind in kinds:
            _spare(lab, kind)
    except BaseException:
        lab.close()
        raise
    line = f'eval "$(python -m lab env --dir {shlex.quote(str(lab.directory))})"'
    say(f"up in {time.monotonic() - began:.1f} s; now: {line}")
    return 0


def _possible(lab: Lab, kinds: list[str]) -> list[str]:
    """Those that this machine can have; says why it cannot have the others."""
    reasons = {kind: lab.why_not(kind) for kind in kinds}
    for kind, reason in reasons.items():
        if reason is not None:
            say(f"no {kind}: {reason}")
    return [kind for kind, reason in reasons.items() if reason is None]


def _spare(lab: Lab, kind: str) -> None:
    """Start the server, and say where a layer or a base can go by hand."""
    match kind:
        case "file":
            return
        case "gluster":
            say(f"gluster: {lab.gluster.volume().source('').uri}")
        case "rbd":
            access = lab.rbd.access
            say(f"{lab.rbd.source('').uri} as {access.user}, libvirt's secret by usage {access.usage}")
        case "http" | "https":
            server = lab.http if kind == "http" else lab.https
            say(f"a base over {kind}: {server.base('spare-1.img', _SPARE_BYTES).uri}")
        case _:
            name = "spare-1" if kind == "nbd" else f"spare-{kind}-1"
            say(f"a spare {kind}: {lab.place(kind, name, room=_SPARE_BYTES).uri}")


def _status(arguments: argparse.Namespace) -> int:
    if not (arguments.dir / STATE_NAME).exists():
        print(f"no lab in {arguments.dir}")
        return 3
    state = LabState.load(arguments.dir)
    alive = {record.name for record in state.alive()}
    for record in [*([state.keeper] if state.keeper else []), *state.processes.values()]:
        print(f"{record.name:<20} {'runs' if record.name in alive else 'DEAD':<5} {record.pid}")
    for name, code in state.exits.items():
        print(f"{name:<20} ENDED with {code}")
    if state.keeper is None or not process.is_alive(state.keeper):
        return 1
    for host in Lab.attach(arguments.dir).hosts():
        for machine in host.machines():
            qemu = machine.qemu()
            print(f"{machine.name:<20} {'runs' if qemu else 'off':<5} {qemu.pid if qemu else ''}")
    return 1 if state.exits else 0


def _env(arguments: argparse.Namespace) -> int:
    lab = Lab.attach(arguments.dir)
    values = {"VARVE_LAB_DIR": str(lab.directory)}
    for host in lab.hosts():
        values[f"VARVE_LAB_URI_HOST_{host.name.upper()}"] = host.uri
    for export in lab.nbd.exports():
        values[f"VARVE_LAB_NBD_{export.source.name.upper().replace('-', '_')}"] = export.source.uri
    notes = lab.session.state().notes
    if "gluster" in notes:
        values["VARVE_LAB_GLUSTER"] = notes["gluster"]["address"]
    if "control-plane" in notes:
        plane = lab.control_plane()
        values["KUBECONFIG"] = str(plane.kubeconfig)
        print(f"export PATH={shlex.quote(str(plane.kubectl_path.parent))}:$PATH")
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    if not (arguments.dir / STATE_NAME).exists():
        say(f"no lab in {arguments.dir}")
        return 0
    Session(arguments.dir.resolve()).end()
    say(f"{arguments.dir} is down")
    return 0


def main() -> int:
    """Run one command; its exit code."""
    arguments = _parser().parse_args()
    if arguments.command in {"prepare", "up", "down"}:
        become_root("lab", sys.argv[1:])
    commands = {"prepare": _prepare, "up": _up, "status": _status, "env": _env, "down": _down}
    try:
        return commands[arguments.command](arguments)
    except LabError as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
