"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import libvirt

from bench.crowd import LIMIT, Crowd
from bench.idle import Idle
from bench.life import Writes
from bench.samples import Comparison, Spread

SCHEMA = 1
WRITES_PER_LIFE = 8
"""The budget: writes to the API for one snapshot's life."""

_HEAD = ("what", "disk", "n", "bare, ms", "varve, ms", "over", "p99 over", "ratio", "budget", "met")


@dataclass
class Results:
    """Everything of one run."""

    command: str
    machine: dict[str, str | int] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    writes: dict[str, Writes] = field(default_factory=dict)
    """By protocol."""
    crowd: Crowd | None = None
    idle: Idle | None = None


def machine_facts(uri: str, kubernetes: str) -> dict[str, str | int]:
    """What the numbers depend on."""
    connection = libvirt.open(uri)
    try:
        versions = {"libvirt": connection.getLibVersion(), "qemu": connection.getVersion()}
    finally:
        connection.close()
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": os.cpu_count() or 0,
        "cpu": _cpu_model(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "kubernetes": kubernetes,
        **{name: f"{n // 1_000_000}.{n // 1_000 % 1_000}.{n % 1_000}" for name, n in versions.items()},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


# JSON ------------------------------------------------------------------------------------------------------


def to_json(results: Results) -> dict[str, Any]:
    """All durations in seconds, all sizes in bytes; raw samples included."""
    return {
        "schema": SCHEMA,
        "command": results.command,
        "machine": results.machine,
        "comparisons": [_comparison_json(one) for one in results.comparisons],
        "writes": {
            protocol: {**asdict(one), "per_life": one.per_life, "budget": WRITES_PER_LIFE}
            for protocol, one in results.writes.items()
        },
        "crowd": results.crowd
        and {
            **asdict(results.crowd),
            "ratio": results.crowd.ratio,
            "budget": LIMIT,
            "met": results.crowd.met,
        },
        "idle": results.idle and {**asdict(results.idle), "cpu_share": results.idle.cpu_share},
    }


def _comparison_json(one: Comparison) -> dict[str, Any]:
    return {
        "name": one.name,
        "protocol": one.protocol,
        "bare": {**asdict(Spread.of(one.bare)), "samples": one.bare},
        "stack": {**asdict(Spread.of(one.stack)), "samples": one.stack},
        "median_over": one.median_over,
        "p99_over": one.p99_over,
        "ratio": one.ratio,
        "budget": asdict(one.budget),
        "met": one.met,
    }


# Text ------------------------------------------------------------------------------------------------------


def to_text(results: Results) -> str:
    """The tables, in Markdown."""
    facts = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    parts = [f"`{results.command}`", facts]
    if results.comparisons:
        parts.append(_table(_HEAD, [_row(one) for one in results.comparisons]))
    if results.writes:
        parts.append(_writes_text(results.writes))
    if results.crowd is not None:
        parts.append(_crowd_text(results.crowd))
    if results.idle is not None:
        parts.append(_idle_text(results.idle))
    return "\n\n".join(parts)


def _row(one: Comparison) -> tuple[str, ...]:
    return (
        one.name,
        one.protocol,
        str(len(one.stack)),
        _spread(one.bare),
        _spread(one.stack),
        f"{one.median_over * 1000:+.0f} ms",
        f"{one.p99_over * 1000:+.0f} ms",
        f"×{one.ratio:.2f}",
        one.budget.words() or "–",
        _yes(one.met),
    )


def _spread(values: tuple[float, ...]) -> str:
    found = Spread.of(values)
    return f"{found.median * 1000:.0f} ({found.p5 * 1000:.0f}–{found.p95 * 1000:.0f})"


def _writes_text(writes: dict[str, Writes]) -> str:
    rows = [
        (
            protocol,
            str(one.lives),
            f"{one.per_life:.2f}",
            ", ".join(f"{call} {count:.2f}" for call, count in one.by_call.items() if count),
            f"{one.versions:.2f}",
            f"≤ {WRITES_PER_LIFE}",
            _yes(one.per_life <= WRITES_PER_LIFE),
        )
        for protocol, one in writes.items()
    ]
    head = ("disk", "lives", "API writes per life", "of these", "versions of the object", "budget", "met")
    return _table(head, rows)


def _crowd_text(one: Crowd) -> str:
    head = (f"{one.machines} machines × {one.points} points at once", "seconds")
    rows = [
        ("applied, until all are Ready", f"{one.ready_seconds:.2f}"),
        (
            f"bare loop, a call for each point ({one.machines * one.points})",
            f"{one.call_per_point_seconds:.2f}",
        ),
        (f"bare loop, a call for each machine ({one.machines})", f"{one.call_per_machine_seconds:.2f}"),
        (f"ratio to a call for each point (budget ×{LIMIT}: met: {_yes(one.met)})", f"×{one.ratio:.2f}"),
        ("deleted, until all are gone", f"{one.gone_seconds:.2f}"),
        ("new layers", str(one.boundaries)),
        ("API writes per point until Ready", f"{one.writes_per_point:.2f}"),
    ]
    return _table(head, rows)


def _idle_text(one: Idle) -> str:
    head = (f"{one.snapshots} snapshots on {one.machines} machines", "")
    rows = [
        ("start with none of them taken, until all are Ready", f"{one.backlog_seconds:.1f} s"),
        ("cold start until /readyz", f"{one.ready_seconds:.2f} s"),
        ("cold start until a waiting point is Ready", f"{one.first_point_seconds:.2f} s"),
        (f"at rest for {one.window_seconds:.0f} s, one resync: API writes", f"{one.writes:.0f}"),
        ("CPU", f"{one.cpu_seconds:.2f} s = {one.cpu_share * 100:.2f} % of a core"),
        ("resident memory", f"{one.resident_bytes / 2**20:.0f} MiB"),
    ]
    return _table(head, rows)


def _yes(met: bool | None) -> str:
    return "–" if met is None else "yes" if met else "no"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    columns = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, columns, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in columns) + "|"
    return "\n".join([line(head), rule, *(line(row) for row in rows)])
