"""A session for a watcher that is not ours: what it reads is trimmed before it sees it.

It decodes each list and each line of a watch in one go, and queues all objects of a listing; what it gets
must therefore be small, whatever the objects are.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from controller.kube.credentials import Connection
from controller.kube.scan import ListScanner
from controller.kube.transport import kept_items
from controller.kube.trim import trimmed

_OBJECTS = frozenset({"ADDED", "MODIFIED", "DELETED"})
"""Types of the events that carry an object."""


def narrow_session(found: Connection) -> aiohttp.ClientSession:
    """A session that is logged in as ``found`` says. To be made in the event loop that uses it."""
    headers = {"Authorization": f"{found.scheme or 'Bearer'} {found.token}"} if found.token else {}
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=_tls(found)),
        headers=headers,
        proxy=found.proxy_url,
        response_class=NarrowResponse,
    )


class NarrowResponse(aiohttp.ClientResponse):
    """The answer to a request for objects of our kinds, of which only what is read is there."""

    async def start(self, connection: Any) -> NarrowResponse:
        """See aiohttp; what a watch sends goes through :class:`TrimmedLines`."""
        await super().start(connection)
        if self.ok and self.url.query.get("watch") == "true":
            self.content = TrimmedLines(self.content)  # type: ignore[assignment]  # stands in for the reader
        return self

    async def json(self, **options: Any) -> Any:
        """The body; of a list with trimmed items, which are read one by one."""
        if not self.ok or "limit" not in self.url.query:
            return await super().json(**options)
        scanner = ListScanner()
        items = [item async for item in kept_items(self.content.iter_any(), scanner, trimmed)]
        return {**scanner.rest, "items": items}


class TrimmedLines:
    """Stands in for the reader of a watch: whole lines, each with a trimmed object."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """The lines as they come, read in pieces of at most ``size`` bytes."""
        rest = bytearray()
        async for chunk in self._content.iter_chunked(size):
            *whole, last = chunk.split(b"\n")
            for line in whole:
                rest += line
                yield trimmed_line(bytes(rest))
                rest.clear()
            rest += last
        if rest:
            yield trimmed_line(bytes(rest))


def trimmed_line(line: bytes) -> bytes:
    """One event of a watch with a trimmed object; what is no event of an object stays as it is."""
    if not line.strip():
        return b""
    event = json.loads(line)
    if event.get("type") in _OBJECTS:
        event["object"] = trimmed(event["object"])
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def _tls(found: Connection) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=found.ca_path)
    if found.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if found.certificate_path:
        context.load_cert_chain(found.certificate_path, found.private_key_path)
    return context
