"""Facts about one domain at one moment, as the planner sees them."""

from __future__ import annotations

from enum import StrEnum


class JobKind(StrEnum):
    """The kinds of block job (virDomainBlockJobType)."""

    COMMIT = "commit"
    ACTIVE_COMMIT = "active-commit"
    PULL = "pull"
    COPY = "copy"
    OTHER = "other"
