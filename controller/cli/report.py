"""What all reports have in common: `-o json` prints them, and scripts rely on their fields (docs/cli.md)."""

from __future__ import annotations

import json
from typing import Literal

from controller.api.conditions import Condition, ConditionType, Truth
from controller.api.schema import ApiModel

API_VERSION: Literal["cli.varve.dev/v1"] = "cli.varve.dev/v1"
"""Within a version fields are added, and neither removed nor given another meaning."""


class Report(ApiModel):
    """The answer of one command."""

    api_version: Literal["cli.varve.dev/v1"] = API_VERSION

    def text(self) -> str:
        """As indented JSON."""
        return json.dumps(self.to_api(), indent=2) + "\n"

    def record(self) -> str:
        """As JSON in one line."""
        return json.dumps(self.to_api(), separators=(",", ":")) + "\n"


class Summary(ApiModel):
    """The condition Ready of an object; ``status`` is Unknown when no controller has looked at it yet."""

    status: Truth = Truth.UNKNOWN
    reason: str = ""
    message: str = ""
    stalled: bool = False
    """A person is needed."""


def summary(conditions: tuple[Condition, ...]) -> Summary:
    """What the conditions of an object come to."""
    found = {condition.type: condition for condition in conditions}
    ready = found.get(ConditionType.READY)
    stalled = found.get(ConditionType.STALLED)
    if ready is None:
        return Summary()
    return Summary(
        status=ready.status,
        reason=ready.reason,
        message=ready.message,
        stalled=stalled is not None and stalled.status is Truth.TRUE,
    )
