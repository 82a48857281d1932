"""``varve approve``: agree to the plan of one chain, as it was shown."""

from __future__ import annotations

from typing import Literal

from controller.api.approval import Approval
from controller.api.reasons import Reason
from controller.api.volumechain import VolumeChain
from controller.cli import planning
from controller.cli.errors import CommandError
from controller.cli.page import Page, Role, line
from controller.cli.planning import ChainPlanned
from controller.cli.report import Report


class Approved(Report):
    """What was agreed to."""

    kind: Literal["Approval"] = "Approval"
    namespace: str
    name: str
    hash: str
    written: bool
    """False: it had been approved before."""


def to_approve(chain: VolumeChain, shown: str | None) -> str:
    """The hash to write to ``spec.approvedPlan``. ``shown`` is the plan, or the beginning of its hash, that a
    person has seen; None for whatever plan there is.

    Raises CommandError when nothing waits for approval, or another plan than the one that was seen.
    """
    name = f"{chain.namespace}/{chain.name}"
    if not is_asked(chain):
        raise CommandError(f"{name} has approval: Auto, so its merges wait for nobody")
    plan = chain.status.plan.hash if chain.status.plan else None
    if not plan:
        raise CommandError(f"{name} has no plan that waits for approval" + _changed(shown))
    if shown is not None and not plan.startswith(shown):
        raise CommandError(
            f"the plan of {name} changed: it is {plan} now, not {shown}; nothing was approved, look at it "
            f"again with: varve plan {chain.name} -n {chain.namespace}"
        )
    return plan


def is_asked(chain: VolumeChain) -> bool:
    """Whether merges wait for its approvedPlan: because it says so, or a class or another namespace does."""
    blocked = chain.status.blocked_by
    waits = blocked is not None and blocked.reason == Reason.AWAITING_APPROVAL
    return chain.spec.approval is Approval.MANUAL or waits


def _changed(shown: str | None) -> str:
    return f"; the plan {shown} was carried out or voided" if shown else ""


def report(chain: VolumeChain, plan: str, *, written: bool) -> Approved:
    """What to say when it is done."""
    return Approved(namespace=chain.namespace, name=chain.name, hash=plan, written=written)


def question(chain: VolumeChain) -> Page:
    """The plan, to be seen before it is agreed to."""
    shown: ChainPlanned = planning.planned(chain, chain.status.plan, blocked_by=chain.status.blocked_by)
    return (planning.section(shown),)


def page(approved: Approved) -> Page:
    """One line."""
    what = "approved" if approved.written else "had been approved"
    return (
        line(
            (f"{approved.namespace}/{approved.name}", Role.NAME),
            ": plan ",
            (approved.hash, Role.CODE),
            (f" {what}", Role.GOOD),
        ),
    )
