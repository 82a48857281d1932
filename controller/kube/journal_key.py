"""The key of the journals' seals: in a Secret beside the Lease, made by the first controller that finds none.

The manifests bring the Secret without data, so that the controller needs no right to make Secrets; its data
belongs to the field manager of the controller, and stays when the manifests are applied again (ADR 17).
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
from collections.abc import Callable
from typing import Protocol

from controller.chain.seal import SHORTEST, Seals
from controller.kube.errors import Conflict, Forbidden, ObjectGone, Rejected
from controller.kube.kinds import NAMESPACE, SECRET, Kind, Raw

log = logging.getLogger(__name__)

NAME = "varve-journal-key"
"""Of the Secret."""

_KEY, _PREVIOUS = "key", "previous"
"""Its data: the key as it is; and those before it, each on a line of its own as ``data.key`` showed it."""

_ATTEMPTS = 5
"""Looks at the Secret while others write it."""


class Secrets(Protocol):
    """The requests that this needs; ``ApiClient`` and ``FakeKube`` have them."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Raw | None:
        """Read one object, or None."""
        ...

    async def create(self, kind: Kind, namespace: str | None, body: Raw) -> Raw:
        """Create one. Raises Conflict, and ObjectGone without the namespace."""
        ...

    async def replace(self, kind: Kind, body: Raw) -> Raw:
        """Replace one as it was read. Raises Conflict, also when it is gone."""
        ...


async def seals(store: Secrets, namespace: str, *, random: Callable[[int], bytes] = os.urandom) -> Seals:
    """The keys by which journals are sealed; makes the Secret and the key where there is none.

    Two controllers that do so at once end with one key. Raises KubeError, with what to do about it; nothing
    may be done to a machine without a key.
    """
    try:
        return await _found_or_made(store, namespace, random)
    except Forbidden as error:
        raise Forbidden(
            f"{error}: apply the manifests, which bring the Secret {namespace}/{NAME} and the right to it"
        ) from error


async def _found_or_made(store: Secrets, namespace: str, random: Callable[[int], bytes]) -> Seals:
    for _ in range(_ATTEMPTS):
        found = await store.get(SECRET, namespace, NAME)
        if found is not None and (found.get("data") or {}).get(_KEY):
            return _read(found, namespace)
        try:
            await _fill(store, namespace, found, base64.b64encode(random(SHORTEST)).decode())
        except Conflict:
            continue  # another controller has made it: that one counts
        log.info("made the key of the journals' seals", extra={"secret": f"{namespace}/{NAME}"})
    raise Conflict(f"the Secret {namespace}/{NAME} is being changed again and again")


async def _fill(store: Secrets, namespace: str, found: Raw | None, key: str) -> None:
    if found is not None:
        await store.replace(SECRET, {**found, "data": {**(found.get("data") or {}), _KEY: key}})
        return
    body = {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.name,
        "metadata": {"name": NAME, "namespace": namespace},
        "type": "Opaque",
        "data": {_KEY: key},
    }
    try:
        await store.create(SECRET, namespace, body)
    except ObjectGone:  # only the CRDs were applied, and this process was told to go without a Lease
        root = {"apiVersion": NAMESPACE.api_version, "kind": NAMESPACE.name, "metadata": {"name": namespace}}
        await store.create(NAMESPACE, None, root)
        await store.create(SECRET, namespace, body)


def _read(found: Raw, namespace: str) -> Seals:
    try:
        current = base64.b64decode(found["data"][_KEY], validate=True)
        lines = base64.b64decode(found["data"].get(_PREVIOUS, ""), validate=True).decode("ascii").split()
        return Seals(current, [base64.b64decode(line, validate=True) for line in lines])
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise Rejected(
            f"the Secret {namespace}/{NAME} holds no key that can be used ({error}): {_KEY} is {SHORTEST} "
            f"random bytes or more, {_PREVIOUS} has one key on each line, in base64"
        ) from error
