"""A tenant who makes as many objects as he can, and a neighbour whose takes are timed meanwhile."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import aiohttp

from lab.control.plane import ControlPlane
from lab.controller import snapshot

API = "/apis/varve.dev/v1alpha1/namespaces"
Body = dict[str, Any]

_AT_ONCE = 4
_SECONDS = 60.0


@dataclass
class Client:
    """The API server, as whoever has this token sees one namespace."""

    session: aiohttp.ClientSession
    server: str
    namespace: str
    token: str

    async def _ask(self, method: str, path: str, body: Body | None = None) -> tuple[int, Body]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        url = f"{self.server}{API}/{self.namespace}/{path}"
        data = None if body is None else json.dumps(body)
        async with self.session.request(method, url, data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def create(self, plural: str, body: Body) -> None:
        """Make an object. Fails when it is refused."""
        status, answer = await self._ask("POST", plural, body)
        assert status == 201, answer

    async def create_all(self, plural: str, bodies: Iterable[Body]) -> None:
        """Make them as fast as the API server lets one."""
        waiting = iter(bodies)

        async def work() -> None:
            for body in waiting:
                await self.create(plural, body)

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))

    async def delete_all(self, plural: str) -> None:
        """kubectl delete --all."""
        status, answer = await self._ask("DELETE", plural)
        assert status == 200, answer

    async def names(self, plural: str) -> list[str]:
        """What is there."""
        _, answer = await self._ask("GET", plural)
        return [one["metadata"]["name"] for one in answer["items"]]

    async def gone(self, plural: str, seconds: float = _SECONDS) -> None:
        """Wait until nothing is left."""
        async with asyncio.timeout(seconds):
            await _until(lambda: self._none(plural), 1.0)

    async def take(self, name: str, domain: str) -> float:
        """Seconds from an object's creation until its point is there; it is deleted and gone afterwards."""
        await self.create("volumesnapshots", json.loads(snapshot(name, domain, namespace=self.namespace)))
        began = monotonic()
        async with asyncio.timeout(_SECONDS):
            await _until(lambda: self._is_ready(name), 0.02)
            took = monotonic() - began
            await self._ask("DELETE", f"volumesnapshots/{name}")
            await _until(lambda: self._is_gone(name), 0.05)
        return took

    async def _none(self, plural: str) -> bool:
        return not await self.names(plural)

    async def _is_gone(self, name: str) -> bool:
        status, _ = await self._ask("GET", f"volumesnapshots/{name}")
        return status == 404

    async def _is_ready(self, name: str) -> bool:
        _, found = await self._ask("GET", f"volumesnapshots/{name}")
        conditions = found.get("status", {}).get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def _until(holds: Callable[[], Awaitable[bool]], interval: float) -> None:
    while True:
        if await holds():
            return
        await asyncio.sleep(interval)


@dataclass
class Takes:
    """A neighbour who takes points and deletes them, one after the other."""

    client: Client
    domain: str
    seconds: list[float] = field(default_factory=list)

    async def beside(self, *works: Any, at_least: int = 1) -> None:
        """Go on until these are done, and a number of takes with them."""
        flood = asyncio.gather(*works)
        try:
            done = len(self.seconds) + at_least
            while not flood.done() or len(self.seconds) < done:
                name = f"take-{len(self.seconds)}"
                self.seconds.append(await self.client.take(name, self.domain))
            await flood
        finally:
            flood.cancel()

    def percentile(self, part: float) -> float:
        """The value that this part of them does not exceed."""
        ranked = sorted(self.seconds)
        return ranked[min(len(ranked) - 1, int(part * len(ranked)))]


@asynccontextmanager
async def clients(plane: ControlPlane, *who: tuple[str, str]) -> AsyncIterator[Sequence[Client]]:
    """One for each namespace and token."""
    tls = ssl.create_default_context(cafile=str(plane.ca))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        yield [Client(session, plane.server, namespace, token) for namespace, token in who]
