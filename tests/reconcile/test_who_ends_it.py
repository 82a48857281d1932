"""B2: who ends a wait. What only a person can end is Stalled, and its message says how.

A new reason must be added to the table here, which means that somebody has decided it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest

import controller
from controller.api.reasons import Reason
from controller.chain.blocked import Why
from controller.cli.advice import ADVICE
from controller.reconcile.overdue import PATIENT
from controller.reconcile.report import NEEDS_A_PERSON


class Ends(Enum):
    GOOD = "not a wait"
    WORK = "varve's own work, which goes on"
    ITSELF = "something outside that passes or comes by itself, or is tried again"
    LATE = "a person, unless it ends within seconds: Stalled after that"
    PERSON = "a person: Stalled at once"
    AS_IS = "nobody: whoever suspended it wants it so; its deletion is a person's"


TABLE = {
    Ends.GOOD: [Reason.IN_SYNC, Reason.CONNECTED, Reason.RESOLVED],
    Ends.WORK: [
        Reason.PENDING,
        Reason.CONNECTING,
        Reason.TAKING,
        Reason.SETTLING,
        Reason.COMMITTING,
        Reason.PIVOTING,
        Reason.PULLING,
        Reason.FLUSHING,
        Reason.REMOVING,
        Reason.DELETING,
        Reason.PROGRESSING_WITH_RETRY,
        Reason.QUEUED,
    ],
    Ends.ITSELF: [
        Reason.WAITING_FOR_DOMAIN,  # machines are started and stopped all the time, and not for our sake
        Reason.MIGRATING,
        Reason.HYPERVISOR_UNREACHABLE,  # restarts, reboots, networks
        Reason.STORAGE_UNREACHABLE,
        Reason.FOREIGN_BLOCK_JOB,
        Reason.QUOTA_EXCEEDED,  # others of the namespace are deleted, as they are every day
        Reason.INSUFFICIENT_SPACE,  # other merges and other users of the storage give some back
        Reason.NOT_CONVERGING,  # guests get quieter
        Reason.FAILED,  # tried again, with growing pauses
    ],
    Ends.LATE: [
        Reason.DOMAIN_NOT_FOUND,
        Reason.DISK_NOT_FOUND,
        Reason.HYPERVISOR_NOT_FOUND,
        Reason.CLASS_NOT_FOUND,
        Reason.CHAIN_UNKNOWN,  # somebody is just changing it, or it is out of sight until a new start
        Reason.USERS_UNKNOWN,  # a machine that hangs for a moment, or a place that nobody can list
        Reason.SIZE_UNKNOWN,  # a pull hides it for its time; a storage that cannot be reached for longer
        Reason.DOMAIN_PAUSED,  # by an I/O error: its storage must be mended, and it must be resumed
    ],
    Ends.PERSON: [
        Reason.ACCESS_DENIED,
        Reason.JOURNAL_UNREADABLE,
        Reason.JOURNAL_UNTRUSTED,
        Reason.INVALID_SPEC,
        Reason.NOT_UNDERSTOOD,
        Reason.INVALID_URI,
        Reason.DOMAIN_AMBIGUOUS,
        Reason.DOMAIN_REPLACED,
        Reason.DISK_UNSUPPORTED,
        Reason.UNSUPPORTED_TOPOLOGY,
        Reason.CAPABILITY_MISSING,
        Reason.OVERLAY_REQUIRED,
        Reason.OVERLAY_UNUSABLE,
        Reason.OVERLAY_NOT_AS_VERIFIED,
        Reason.IMAGE_PROTECTED,
        Reason.IMAGE_NOT_REMOVABLE,
        Reason.FOREIGN_OWNER,
        Reason.AWAITING_APPROVAL,
        Reason.LAYER_NOT_FOUND,
        Reason.LAYER_AMBIGUOUS,
        Reason.LAYER_ACTIVE,
        Reason.DRIFTED,
        Reason.SUPERSEDED,
        Reason.CHAIN_DIVERGED,
        Reason.CHAIN_TOO_LONG,
        Reason.LIBVIRT_OUT_OF_STEP,
        Reason.DEFINITION_DIFFERS,
        Reason.LOST,
    ],
    Ends.AS_IS: [Reason.SUSPENDED],
}
ENDS = {reason: ends for ends, reasons in TABLE.items() for reason in reasons}


def test_it_is_decided_for_each_reason() -> None:
    assert set(ENDS) == set(Reason)
    assert sum(map(len, TABLE.values())) == len(Reason), "each is in the table once"


@pytest.mark.parametrize("why", list(Why))
def test_what_only_a_person_can_end_is_stalled(why: Why) -> None:
    """The planner's reasons: Stalled at once, after the patience, or never."""
    ends = ENDS[Reason(why.value)]
    assert (why in NEEDS_A_PERSON) == (ends is Ends.PERSON)
    assert (Reason(why.value) in PATIENT) == (ends is Ends.LATE)


@pytest.mark.parametrize("reason", [r for r, ends in ENDS.items() if ends in (Ends.PERSON, Ends.LATE)])
def test_what_a_person_must_end_has_advice(reason: Reason) -> None:
    assert not any(text.startswith("Nothing") for text in ADVICE[reason])
    assert _says_how(" ".join(ADVICE[reason])), ADVICE[reason]


# The messages themselves, as the sources have them ------------------------------------------------------

_VERBS = (
    "add allow approve attach commit correct define delete detach end enlarge give install leave let list "
    "look make mend move name patch raise remove resume run see set shut start turn undefine update upgrade "
    "use wait write virsh kubectl varve"
)
_WAY_OUT = re.compile(rf"\b({'|'.join(_VERBS.split())})\b|docs/operations\.md", re.IGNORECASE)


def _says_how(text: str) -> bool:
    return _WAY_OUT.search(text) is not None


def _messages() -> Iterator[tuple[str, Reason, str]]:
    """File and line, reason and words of each verdict whose reason is written in the sources."""
    root = Path(controller.__file__).parent
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text())
        names = _texts_by_name(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") in {"warning", "normal"}:
                continue  # an event: its note is the condition's message
            if node.args and isinstance(node.args[-1], ast.Constant) and node.args[-1].value is True:
                continue  # Blocked(…, True) ends by itself
            for at, argument in enumerate(node.args[:-1]):
                reason = _reason(argument)
                words = "" if reason is None else _words(node.args[at + 1], names)
                if reason is not None and words:
                    yield f"{path.relative_to(root)}:{node.lineno}", reason, words


def _reason(node: ast.expr) -> Reason | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id == "Reason":
            return Reason[node.attr]
        if node.value.id == "Why":
            return Reason(Why[node.attr].value)
    return None


def _texts_by_name(tree: ast.Module) -> dict[str, str]:
    """What a variable or a function of the module says, all places together."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    found[target.id] = f"{found.get(target.id, '')} {_constants(node.value)}"
        if isinstance(node, ast.FunctionDef):
            found[node.name] = _constants(node)
    return found


def _words(node: ast.expr, names: dict[str, str]) -> str:
    inner = [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and one.id in names]
    return " ".join([_constants(node), *(names[name] for name in inner)]).strip()


def _constants(node: ast.AST) -> str:
    values = (one.value for one in ast.walk(node) if isinstance(one, ast.Constant))
    return " ".join(value for value in values if isinstance(value, str))


NEEDY = [found for found in _messages() if ENDS.get(found[1]) in (Ends.PERSON, Ends.LATE)]


@pytest.mark.parametrize(("where", "reason", "words"), NEEDY, ids=[f"{where}-{r}" for where, r, _ in NEEDY])
def test_each_message_for_a_person_says_what_to_do(where: str, reason: Reason, words: str) -> None:
    """A message without a way out is half a message; the command line's advice comes on top."""
    assert _says_how(words), f"{where}: {reason}: {words}"


def test_the_messages_are_found() -> None:
    """The search above goes by how verdicts are written; should that change, it must not go blind."""
    assert len(NEEDY) >= 30, len(NEEDY)
    assert {reason for _, reason, _ in NEEDY} >= {
        Reason.OVERLAY_REQUIRED,
        Reason.DOMAIN_NOT_FOUND,
        Reason.LOST,
    }
