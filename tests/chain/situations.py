"""Machines and objects as a planner test finds them."""

from __future__ import annotations

from datetime import timedelta

from controller.chain.circumstances import Circumstances
from controller.chain.plan import DiskPlan, Plan, State
from controller.chain.planner import plan
from tests.chain import builders as b
from tests.chain.loop import Loop
from tests.chain.model import Machine

NOON = Circumstances(now=b.NOW)
AFTER = b.NOW - timedelta(days=1)
"""A deletion that settled long ago."""


def fresh(*names: str, layers: int = 1) -> Loop:
    """A machine with one plain image, and objects that were just applied."""
    chain = [b.layer(f"l{n}") for n in range(layers)]
    machine = Machine.with_layers(chain, [50] * layers)
    return Loop(machine, [b.want(name) for name in names])


def with_points(*names: str) -> Loop:
    """One point per object, taken one after the other while the guest writes."""
    loop = fresh()
    for name in names:
        loop.wants.append(b.want(name))
        loop.run()
        loop.machine.write()
    assert [loop.state(name) for name in names] == [State.HELD] * len(names)
    return loop


def only(found: Plan) -> DiskPlan:
    (disk,) = found.disks
    return disk


def planned(*args: object, **kwargs: object) -> DiskPlan:
    return only(plan(*args, **kwargs))  # type: ignore[arg-type]
