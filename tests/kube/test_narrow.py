"""What kopf reads through its session: lists and watches with trimmed objects, all else as it is."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from controller.kube.credentials import Connection
from controller.kube.narrow import narrow_session, trimmed_line

LARGE = {"name": "a", "uid": "u", "annotations": {"note": "x" * 255_000}}
SMALL = {"name": "a", "uid": "u"}
EVENTS = [
    {"type": "ADDED", "object": {"metadata": LARGE, "spec": {}}},
    {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7", "annotations": {"k8s.io/x": "y"}}}},
    {"type": "ERROR", "object": {"kind": "Status", "code": 410}},
]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Logged in at a server with large objects."""
    runner = web.AppRunner(_app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    found = Connection(server, None, None, None, "t", "Bearer", insecure=False, proxy_url=None)
    session = narrow_session(found)
    session._base_url = aiohttp.client.URL(server)
    yield session
    await session.close()
    await runner.cleanup()


def _app() -> web.Application:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] != "Bearer t":
            return web.json_response({"kind": "Status", "items": "none"}, status=401)
        if "watch" in request.query:
            text = "\n".join(map(json.dumps, EVENTS)) + "\n\n"
            return web.Response(text=text + json.dumps(EVENTS[0]))
        items = [{"metadata": LARGE}] * 3
        return web.json_response({"items": items, "metadata": {"continue": "t"}})

    app = web.Application()
    app.router.add_get("/", answer)
    return app


async def _lines(response: aiohttp.ClientResponse) -> list[Any]:
    text = b"".join([chunk async for chunk in response.content.iter_chunked(2**20)])
    return [json.loads(line) for line in text.splitlines()]


async def test_a_list_has_trimmed_items(session: aiohttp.ClientSession) -> None:
    async with session.get("/?limit=3") as response:
        found = await response.json()
    assert found == {"items": [{"metadata": SMALL}] * 3, "metadata": {"continue": "t"}}


async def test_what_is_no_list_comes_as_it_is(session: aiohttp.ClientSession) -> None:
    async with session.get("/") as response:
        assert (await response.json())["items"][0] == {"metadata": LARGE}


async def test_a_refusal_comes_as_it_is(session: aiohttp.ClientSession) -> None:
    session.headers["Authorization"] = "Bearer old"
    for query in ("limit=3", "watch=true"):
        async with session.get(f"/?{query}") as response:
            assert response.status == 401
            assert await response.json() == {"kind": "Status", "items": "none"}


async def test_a_watch_has_trimmed_objects_and_whole_bookmarks(session: aiohttp.ClientSession) -> None:
    small = {"type": "ADDED", "object": {"metadata": SMALL, "spec": {}}}
    async with session.get("/?watch=true") as response:
        assert await _lines(response) == [small, *EVENTS[1:], small]


async def test_a_watch_can_be_closed_before_its_end(session: aiohttp.ClientSession) -> None:
    async with session.get("/?watch=true") as response:
        async for _ in response.content.iter_chunked(2**20):
            response.close()
            break
    assert response.closed


def test_empty_lines_are_nothing() -> None:
    assert trimmed_line(b"\r") == b""
