"""Approval: said by VolumeChains and classes, of which the strictest counts."""

from enum import StrEnum


class Approval(StrEnum):
    """Whether merges wait for somebody to agree."""

    AUTO = "Auto"
    MANUAL = "Manual"
