"""What the golden files hold: each report of fixed objects, as plain text, as rich draws it, and as JSON.

``python -m tests.cli.cases`` writes them anew, with the schema of the reports; look at the difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from rich.console import Console

from controller.cli import adoption, approval, colour, explanation, plain, planning, progress, tree
from controller.cli.approval import Approved
from controller.cli.explanation import Explanation
from controller.cli.offline import Terms, hypothetical
from controller.cli.page import Page
from controller.cli.planning import Plans
from controller.cli.progress import Progress
from controller.cli.report import Report
from controller.cli.tree import Tree

from .objects import HASH, MIB, chain, hypervisor, idle_chain, ready, snapshot

GOLDEN = Path(__file__).parent / "golden"
SCHEMA = Path(__file__).parents[2] / "docs" / "cli.schema.json"
REPORTS: tuple[type[Report], ...] = (Tree, Plans, Approved, Explanation, Progress)
RUNNING = {
    "kind": "Commit",
    "percent": 43,
    "currentBytes": 110 * MIB,
    "totalBytes": 256 * MIB,
    "etaSeconds": 4,
}
DRIFT = {"since": "2026-03-01T12:00:00Z", "what": "+ /images/by-hand.qcow2\n- /images/gone.qcow2"}
WAITS = ready("False", "AwaitingApproval", "the merge waits for approval")


def pages() -> Iterator[tuple[str, Report, Page]]:
    """Name, report and page of each case."""
    found = tree.report([chain()])
    yield "tree", found, tree.page(found)
    listed = {"notInUse": ["/images/left-by-hand.qcow2"]}
    found = tree.report([idle_chain(operation=RUNNING, drift=DRIFT, spec=listed)])
    yield "tree-drift", found, tree.page(found)
    plans = planning.report([chain(), idle_chain()])
    yield "plan", plans, planning.page(plans)
    terms = {f"shop/{name}": Terms() for name in ("db-1-tuesday", "db-1-wednesday")}
    plans = Plans(chains=(hypothetical(chain(), {"shop/db-1-wednesday"}, terms),))
    yield "plan-delete", plans, planning.page(plans)
    approved = approval.report(chain(), HASH, written=True)
    yield "approve", approved, approval.page(approved)
    explained = explanation.report(snapshot(deleting=True, conditions=WAITS), chain())
    yield "explain-deleting", explained, explanation.page(explained)
    explained = explanation.report(snapshot(observedGeneration=-1, conditions=[]))
    yield "explain-not-seen", explained, explanation.page(explained)
    explained = explanation.report(hypervisor())
    yield "explain-hypervisor", explained, explanation.page(explained)
    fault = {"name": "ChainDepth", "of": "libvirt 11.3.0", "limit": 22, "fact": "it starts no longer chain"}
    explained = explanation.report(hypervisor(knownFaults=[{**fault, "therefore": "none grows longer"}]))
    yield "explain-known-fault", explained, explanation.page(explained)
    running = progress.report(idle_chain(operation=RUNNING))
    yield "watch", running, progress.page([running, progress.report(chain())])


def texts() -> Iterator[tuple[str, str]]:
    """File name and content of each golden file."""
    for name, report, page in pages():
        yield f"{name}.txt", plain.text(page)
        yield f"{name}.json", report.text()
        yield f"{name}.rich.txt", drawn(page)
    objects = adoption.manifests(chain(), [])
    yield "adopt.yaml", adoption.as_yaml(objects)
    yield "adopt.json", adoption.as_json(objects)


def drawn(page: Page) -> str:
    """As rich draws it without colours, 100 columns wide."""
    stream = StringIO()
    # Without a height, rich believes a dumb terminal (TERM) to be 80 columns wide whatever is said here.
    colour.draw(page, Console(file=stream, width=100, height=25, color_system=None, force_terminal=True))
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def schema() -> str:
    """The JSON schema of what ``-o json`` prints, by kind."""
    all_of_them = {report.__name__: report.model_json_schema(mode="serialization") for report in REPORTS}
    return json.dumps(all_of_them, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, text in texts():
        (GOLDEN / name).write_text(text, encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
