"""Which parts of a range can be merged when the whole cannot, and why the rest stays.

As many boundaries as allowed go, for the fewest bytes. Two facts make one sweep from the bottom find that:

- what is against merging into a layer is against it whatever lies above, so a layer that cannot even take up
  its neighbour stays as it is;
- a commit that is allowed stays allowed when it begins further down, so what a layer can take up reaches
  without a gap up to the first objection.

Hence no other division leaves fewer boundaries, and none that leaves as few copies less (held against an
exhaustive search by tests).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from controller.chain.blocked import Blocked
from controller.chain.cost import Choice, Range


@dataclass(frozen=True)
class Division:
    """Merges that can be done one after the other, and what stays."""

    choices: tuple[Choice, ...]
    """The cheapest way of each part, the lowest part first."""
    staying: Mapping[int, Blocked] = field(default_factory=dict)
    """What is against removing a boundary, by the position of its overlay."""


@dataclass(frozen=True)
class _Divider:
    ways: Callable[[Range], Iterable[Choice]]
    verdict: Callable[[Choice], Blocked | None]

    def best(self, span: Range) -> Choice | Blocked | None:
        """The first way that is allowed, else what is against the first; None when there is no way."""
        objection: Blocked | None = None
        for choice in self.ways(span):
            found = self.verdict(choice)
            if found is None:
                return choice
            if found.passing:
                return found  # the better way is free soon: no other is taken meanwhile
            objection = objection or found
        return objection

    def into(self, bottom: int, top: int) -> tuple[Choice | None, Blocked | None]:
        """The longest part that ends at ``bottom``, and what is against a longer one."""
        # What reaches the active layer can be pulled: an objection to a shorter part says nothing of that.
        whole = self.best(Range(top, bottom))
        if isinstance(whole, Choice):
            return whole, None
        if whole is not None and whole.passing:
            return None, whole
        part: Choice | None = None
        for start in range(bottom - 1, top, -1):
            longer = self.best(Range(start, bottom))
            if not isinstance(longer, Choice):
                return part, longer or whole
            part = longer
        return part, whole


def divide(
    span: Range, ways: Callable[[Range], Iterable[Choice]], verdict: Callable[[Choice], Blocked | None]
) -> Division:
    """Divide ``span``. ``ways`` lists how a part may be merged, the best first; ``verdict`` is what is
    against one of them."""
    divider = _Divider(ways, verdict)
    choices: list[Choice] = []
    staying: dict[int, Blocked] = {}
    bottom = span.bottom
    while bottom > span.top:
        part, objection = divider.into(bottom, span.top)
        if part is None and objection is not None and objection.passing:
            staying |= dict.fromkeys(range(span.top, bottom), objection)
            break
        if part is not None:
            choices.append(part)
            bottom = part.span.top
        if objection is not None:
            staying[bottom - 1] = objection
        bottom -= 1
    return Division(tuple(choices), staying)
