"""Names of overlays: derived from the UID of the VolumeSnapshot they are taken for.

A name is used for one libvirt call only. A second attempt gets another name, so a call whose outcome was
lost, and that libvirtd may still have queued, can never overwrite an image that is in use by then.
"""

from __future__ import annotations

import re

from controller.chain.journal import Owner

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_DOMAIN = 64
_MARK = "varve"


def overlay_leaf(*, domain: str, target: str, owner: Owner, attempt: int) -> str:
    """File name of a new overlay, at most 255 bytes whatever the domain is called.

    >>> overlay_leaf(domain="web 1", target="vda", owner=Owner("shop", "s", "0f3a"), attempt=1)
    'web-1.vda.varve-0f3a.qcow2'
    """
    safe = _safe(domain)
    again = f"-{attempt}" if attempt > 1 else ""
    return f"{safe}.{target}.{_stem(owner)}{again}.qcow2"


def is_named_for(leaf: str, owner: Owner) -> bool:
    """True when an image was named by :func:`overlay_leaf` for this very object (its UID)."""
    return f".{_stem(owner)}." in leaf or f".{_stem(owner)}-" in leaf


def is_ours(leaf: str) -> bool:
    """True when an image has a name as :func:`overlay_leaf` gives them, for whatever object."""
    return f".{_MARK}-" in leaf and leaf.endswith(".qcow2")


def is_for_disk(leaf: str, target: str) -> bool:
    """True when an image has a name as :func:`overlay_leaf` gives them for a disk of this target, of whatever
    machine: one may have had another name."""
    return _machine(leaf, target) is not None


def is_for_machine(leaf: str, target: str, domain: str) -> bool:
    """True when an image has a name as :func:`overlay_leaf` gives them for this disk of this machine."""
    return _machine(leaf, target) == _safe(domain)


def _machine(leaf: str, target: str) -> str | None:
    """The part of the name that says which machine it was made for."""
    found = re.fullmatch(rf"([A-Za-z0-9._-]+)\.{re.escape(target)}\.{_MARK}-[A-Za-z0-9._-]+\.qcow2", leaf)
    return None if found is None else found[1]


def _safe(domain: str) -> str:
    return _UNSAFE.sub("-", domain).strip(".-")[:_LONGEST_DOMAIN] or "domain"


def _stem(owner: Owner) -> str:
    return f"{_MARK}-{_UNSAFE.sub('-', owner.uid)[:64]}"
