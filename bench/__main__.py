"""``python -m bench``: varve next to the bare libvirt calls, on this machine, in one run."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import crowd, idle, life
from bench.cluster import BenchError
from bench.report import Results, machine_facts, to_json, to_text
from bench.stage import Stage, stage
from lab import LabError
from lab.machines.disk import MEBIBYTE

PROTOCOLS = ("file", "gluster", "nbd", "rbd", "iscsi")
PARTS = ("life", "settle", "copy", "crowd", "idle")
_ROOM = 64 * MEBIBYTE
"""On a disk, besides what a merge copies."""


@dataclass(frozen=True)
class Size:
    """How much is done."""

    runs: int
    settled: int
    copies: tuple[tuple[int, int], ...]
    """Bytes that a merge copies, and how often."""
    machines: int
    points: int
    idle_snapshots: int
    idle_machines: int
    idle_seconds: float

    @classmethod
    def of(cls, runs: int, idle_snapshots: int, *, quick: bool) -> Size:
        """The usual size, or one that only shows that everything runs."""
        if quick:
            return cls(min(runs, 1), 1, ((MEBIBYTE, 1),), 2, 2, 4, 1, 1.0)
        few = max(3, runs // 5)
        return cls(runs, few, ((64 * MEBIBYTE, few), (life.BIG, few)), 20, 5, idle_snapshots, 10, 60.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code."""
    arguments = _parser().parse_args(argv)
    size = Size.of(arguments.runs, arguments.idle_snapshots, quick=arguments.quick)
    command = "python -m bench " + shlex.join(sys.argv[1:] if argv is None else argv)
    results, code = Results(command.strip()), 0
    try:
        with stage() as running:
            measure(running, size, arguments.protocol, arguments.parts, results)
    except (BenchError, LabError) as error:
        print(f"bench: {error}", file=sys.stderr)
        code = 1
    print(to_text(results))  # what was measured before an error is worth something
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(to_json(results), indent=1) + "\n", encoding="utf-8")
    return code


def measure(
    running: Stage, size: Size, protocols: Sequence[str], parts: Sequence[str], results: Results
) -> None:
    """Measure the parts that are wanted, one after the other, and add them to ``results``."""
    results.machine = machine_facts(running.host.uri, running.kubernetes_version())
    for protocol in protocols:
        pair = running.pair(protocol, f"pair-{protocol}")
        if "life" in parts:
            _say(f"{size.runs} rounds of takes and empty merges on {protocol}")
            found, results.writes[protocol] = life.empty(running, pair, size.runs)
            results.comparisons += found
        if "settle" in parts and protocol == "file":
            _say(f"{size.settled} merges with the default settleSeconds")
            results.comparisons.append(life.settled(running, pair, size.settled))
    if "copy" in parts and "file" in protocols:
        most = max(copied for copied, _ in size.copies)
        pair = running.pair("file", "pair-copy", size=most + _ROOM)
        for copied, times in size.copies:
            _say(f"{times} merges of {copied // MEBIBYTE} MiB, both kinds")
            results.comparisons += life.copying(running, pair, copied, times)
    if "crowd" in parts:
        _say(f"{size.machines} machines with {size.points} points each")
        results.crowd = crowd.crowd(running, size.machines, size.points)
    if "idle" in parts:
        _say(f"{size.idle_snapshots} snapshots at rest for {size.idle_seconds:.0f} s")
        results.idle = idle.idle(running, size.idle_snapshots, size.idle_machines, size.idle_seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Takes and merges through the whole stack next to the bare libvirt calls, in one run.",
        epilog="Needs what the lab needs: root, and Debian's libvirt, QEMU and gluster.",
    )
    parser.add_argument("--runs", type=_positive, default=50, metavar="N", help="rounds (default: 50)")
    parser.add_argument(
        "--protocol",
        type=_some(PROTOCOLS),
        default=PROTOCOLS,
        metavar="P,…",
        help=f"kinds of disk (default: {','.join(PROTOCOLS)})",
    )
    parser.add_argument(
        "--parts",
        type=_some(PARTS),
        default=PARTS,
        metavar="P,…",
        help=f"what to measure (default: {','.join(PARTS)})",
    )
    parser.add_argument(
        "--idle-snapshots", type=_positive, default=1000, metavar="N", help="objects at rest (default: 1000)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--quick", action="store_true", help="show that it runs; the numbers mean nothing")
    return parser


def _some(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """A reader of words out of ``known``, separated by commas."""

    def read(text: str) -> tuple[str, ...]:
        words = tuple(text.split(","))
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return words

    return read


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
