"""How long a chain may be: by its class, by libvirt, and by the faults of this very libvirt."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from controller.chain.blocked import Blocked, Why
from controller.chain.desired import Policy, Want
from controller.chain.disk import Disk
from controller.chain.explicit import goes_on
from controller.chain.gate import DEEPEST, Fault, Gate, Product, told
from controller.chain.journal import DiskJournal, Owner
from controller.chain.observation import DiskFacts, Observation
from controller.chain.ranges import ranges

_MOST_NAMES = 5
"""So many VolumeSnapshots are named in a message."""
_READ = "(docs/operations.md, section A chain that does not start again)"


def depth_guard(
    facts: DiskFacts, chain: Disk, policy: Policy, gate: Gate, *, going: int = 0
) -> Blocked | None:
    """Is there room for one more layer? ``going``: how many are on their way out, and make room."""
    count = counted(facts, chain)
    if gate.deepest < DEEPEST and goes_on(facts) and count == len(chain.layers):
        return Blocked(
            Why.CHAIN_UNKNOWN,
            f"libvirt shows {count} layers of disk {chain.target} and there are more below, while "
            f"{_may_start(gate)}: no layer is added before all can be counted (docs/operations.md, section "
            f"Layers out of sight)",
        )
    limit, why = _limit(policy, gate)
    if count < limit:
        return None
    text = f"disk {chain.target} has {count} layers, and {why}"
    if count - going < limit:
        return Blocked(
            Why.CHAIN_TOO_LONG, f"{text}; it is taken when one that is being deleted is gone", True
        )
    return Blocked(Why.CHAIN_TOO_LONG, text)


def counted(facts: DiskFacts, chain: Disk) -> int:
    """Images of a chain, as far as they are known: the next start may find more than libvirt shows now."""
    inactive = facts.inactive
    longer = inactive is not None and inactive.keys[: len(chain.layers)] == chain.keys
    return len(inactive.layers) if inactive is not None and longer else len(chain.layers)


def _limit(policy: Policy, gate: Gate) -> tuple[int, str]:
    """The limit that counts, with what it is and what to do."""
    if policy.max_layers < gate.deepest:
        text = "delete points that are not needed, or raise maxLayers"
        return policy.max_layers, f"the class allows {policy.max_layers}; {text}"
    if gate.deepest >= DEEPEST:
        text = f"libvirt opens no chain of more than {DEEPEST}; delete points that are not needed"
        return DEEPEST, text
    return gate.deepest, (
        f"{_may_start(gate)}, whatever the class's maxLayers is; delete points that are not needed, or "
        f"{_update(gate)}"
    )


def _may_start(gate: Gate) -> str:
    return f"{gate.version_of(Product.LIBVIRT)} may start no machine with more than {gate.deepest}"


def _update(gate: Gate) -> str:
    row = gate.row(Fault.CHAIN_DEPTH)
    version = told(row.below) if row is not None and row.below is not None else "a later version"
    return f"update libvirt to {version} or later"


def too_long(
    observation: Observation, facts: DiskFacts, record: DiskJournal, wants: Sequence[Want], gate: Gate
) -> Blocked | None:
    """What is the matter with a chain that its machine may not start with again, and the ways out."""
    chain = facts.chain
    if chain is None or gate.deepest >= DEEPEST or counted(facts, chain) <= gate.deepest:
        return None
    count, name = counted(facts, chain), observation.name
    excess = count - gate.deepest
    going = sum(span.bottom - span.top for span in ranges(chain, record, wants))
    found = f"the chain of disk {chain.target} has {count} images, and {_may_start(gate)}"
    if facts.live is None:
        way = f"{_update(gate)}, or take {excess} images out of the chain by hand"
        return Blocked(Why.CHAIN_TOO_LONG, f"{found}, so {name} may not start any more: {way} {_READ}")
    state = (
        f"{found}: {name} runs, but must not be stopped, nor libvirtd be restarted, before {excess} are gone"
    )
    if going >= excess:
        return Blocked(Why.CHAIN_TOO_LONG, f"{state}; {going} are being merged away", True)
    rest = f" ({going} are being merged away)" if going else ""

    def words(owners: list[Owner]) -> str:
        ways = _what_to_delete(chain, record, owners, name)
        return f"{state}{rest}: {ways}, or {_update(gate)} {_READ}"

    leaving = {want.owner for want in wants if want.deleting}
    points = [point for point in record.points if chain.position(point.overlay) is not None]
    owners = [owner for point in points for owner in point.owners if owner not in leaving]
    mine: dict[str, list[Owner]] = {}
    for owner in owners:
        mine.setdefault(owner.namespace, []).append(owner)
    own = tuple((namespace, words(found)) for namespace, found in sorted(mine.items()))
    others = f"{state}{rest}: let points of other namespaces be deleted, or {_update(gate)} {_READ}"
    return Blocked(Why.CHAIN_TOO_LONG, others if own else words([]), own=own)


def _what_to_delete(chain: Disk, record: DiskJournal, owners: Sequence[Owner], name: str) -> str:
    """``owners``: whose points may be named to the reader."""
    points = [point for point in record.points if chain.position(point.overlay) is not None]
    labels = [owner.label for owner in owners]
    ways = []
    if labels:
        more = f" and {len(labels) - _MOST_NAMES} more" if len(labels) > _MOST_NAMES else ""
        ways.append(f"delete VolumeSnapshots of this disk ({', '.join(labels[:_MOST_NAMES])}{more})")
    others = len(chain.boundaries) - len(points)
    if others:
        ways.append(
            f"merge the {others} layers that are not varve's (virsh blockcommit {quote(name)} {chain.target} "
            f"--base IMAGE --top IMAGE, or a VolumeSnapshot with spec.adopt that is then deleted)"
        )
    return " and ".join(ways) or "wait for what is being deleted"
