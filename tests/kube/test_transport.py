"""Retries, credentials and errors, against a small HTTP server that answers as told."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from controller.kube.client import ApiClient
from controller.kube.credentials import BadCredentials, Credentials
from controller.kube.errors import Forbidden, Rejected, Unauthorized, Unavailable
from controller.kube.kinds import HYPERVISOR, VOLUME_SNAPSHOT
from controller.kube.scan import ListScanner
from controller.kube.transport import CONNECTIONS, Transport, kept_items
from controller.kube.trim import kept
from controller.telemetry.metrics import Metrics

from .conftest import FakeClock


class Server:
    """Gives its answers in turn, the last one for ever, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[web.Response | str] = [web.json_response({})]
        self.requests: list[web.Request] = []
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer, or hang up."""
        self.requests.append(request)
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if answer == "hang up":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if answer == "hang":
            await asyncio.sleep(30)
        if answer == "late":
            await asyncio.sleep(0.1)
            return web.json_response({})
        assert isinstance(answer, web.Response)
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)

    def kubeconfig(self, path: Path, token: str) -> str:
        """Write a kubeconfig that leads here."""
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        path.write_text(json.dumps(config))
        return str(path)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


@pytest.fixture
async def transport(server: Server, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Transport]:
    credentials = Credentials(server.kubeconfig(tmp_path / "config", "first"))
    transport = Transport(credentials, Metrics(), timeout=0.5, sleep=clock.sleep)
    yield transport
    await transport.close()


def fails(status: int, **headers: str) -> web.Response:
    return web.json_response({"message": "not now"}, status=status, headers=headers)


@pytest.mark.parametrize("problem", [fails(500), fails(503), fails(429), "hang up", "hang"])
async def test_what_may_pass_is_tried_again(
    transport: Transport, server: Server, problem: web.Response | str
) -> None:
    server.answers = [problem, web.json_response({"fine": True})]
    answer = await transport.request("PATCH", "/x", body={})
    assert answer.body == {"fine": True}
    assert len(server.requests) == 2


async def test_the_tries_are_bounded_and_further_apart(
    transport: Transport, server: Server, clock: FakeClock
) -> None:
    server.answers = [fails(503)]
    with pytest.raises(Unavailable, match="does not answer GET /x: HTTP 503: not now"):
        await transport.request("GET", "/x")
    assert len(server.requests) == 4
    assert clock.slept == sorted(clock.slept)
    assert sum(clock.slept) < 4


async def test_the_wait_for_a_free_connection_is_no_lateness(transport: Transport, server: Server) -> None:
    server.answers = ["late"]
    asked = (transport.request("PATCH", f"/{number}", retry=False) for number in range(8 * CONNECTIONS))
    assert all(answer.ok for answer in await asyncio.gather(*asked))


async def test_one_attempt_is_one_attempt(transport: Transport, server: Server) -> None:
    server.answers = [fails(503)]
    with pytest.raises(Unavailable):
        await transport.request("GET", "/x", retry=False)
    assert len(server.requests) == 1


async def test_the_server_may_ask_for_patience_but_not_for_ever(
    transport: Transport, server: Server, clock: FakeClock
) -> None:
    server.answers = [fails(429, **{"Retry-After": "2"}), fails(429, **{"Retry-After": "3600"}), fails(200)]
    await transport.request("GET", "/x")
    assert clock.slept == [2.0, 5.0]


@pytest.mark.parametrize("status", [400, 404, 409, 422])
async def test_what_is_decided_is_not_tried_again(transport: Transport, server: Server, status: int) -> None:
    server.answers = [fails(status)]
    assert (await transport.request("GET", "/x")).status == status
    assert len(server.requests) == 1


async def test_an_expired_token_is_read_anew(transport: Transport, server: Server, tmp_path: Path) -> None:
    await transport.request("GET", "/x")
    server.kubeconfig(tmp_path / "config", "second")
    server.answers = [fails(401), web.json_response({"fine": True})]
    assert (await transport.request("GET", "/x")).ok
    assert [request.headers["Authorization"] for request in server.requests] == [
        "Bearer first",
        "Bearer first",
        "Bearer second",
    ]


async def test_many_expired_at_once_read_the_token_once(
    transport: Transport, server: Server, tmp_path: Path
) -> None:
    await transport.request("GET", "/x")
    loads = 0
    load = transport._credentials.load

    async def counted() -> object:
        nonlocal loads
        loads += 1
        return await load()

    transport._credentials.load = counted  # type: ignore[method-assign, assignment]
    server.answers = [*(fails(401) for _ in range(10)), web.json_response({})]
    answers = await asyncio.gather(*(transport.request("GET", "/x") for _ in range(10)))
    assert all(answer.ok for answer in answers)
    assert loads == 1


async def test_refused_credentials_are_said_so(transport: Transport, server: Server) -> None:
    server.answers = [fails(401)]
    with pytest.raises(Unauthorized, match="not now"):
        await transport.request("GET", "/x")
    assert len(server.requests) == 2


async def test_a_refusal_is_said_so(transport: Transport, server: Server) -> None:
    server.answers = [fails(403)]
    with pytest.raises(Forbidden, match="refuses GET /x: not now"):
        await transport.request("GET", "/x")


async def test_a_page_that_is_no_json_is_quoted(transport: Transport, server: Server) -> None:
    server.answers = [web.Response(text="<html>proxy says no</html>", status=502)]
    with pytest.raises(Unavailable, match="proxy says no"):
        await transport.request("GET", "/x")


async def test_no_server_at_all(tmp_path: Path, clock: FakeClock) -> None:
    nowhere = Server()
    nowhere.port = 1
    credentials = Credentials(nowhere.kubeconfig(tmp_path / "config", "t"))
    transport = Transport(credentials, Metrics(), sleep=clock.sleep)
    with pytest.raises(Unavailable, match="ClientConnectorError"):
        await transport.request("GET", "/x")
    await transport.close()


async def test_a_list_is_read_in_pages_and_begun_anew_when_it_expired(server: Server, tmp_path: Path) -> None:
    client = ApiClient(Credentials(server.kubeconfig(tmp_path / "config", "t")), Metrics())

    def page(name: str, token: str) -> web.Response:
        return web.json_response({"metadata": {"continue": token}, "items": [{"metadata": {"name": name}}]})

    server.answers = [page("lost", "t1"), fails(410), page("a", "t2"), page("b", "")]
    assert await client.list(HYPERVISOR, "site in (x)") == [
        {"metadata": {"name": "a"}},
        {"metadata": {"name": "b"}},
    ]
    assert [request.query.get("continue") for request in server.requests] == [None, "t1", None, "t2"]
    assert {request.query["labelSelector"] for request in server.requests} == {"site in (x)"}
    await client.close()


async def test_a_list_that_breaks_is_read_again_from_its_beginning(server: Server, tmp_path: Path) -> None:
    client = ApiClient(Credentials(server.kubeconfig(tmp_path / "config", "t")), Metrics())
    whole = json.dumps({"items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}], "metadata": {}})
    server.answers = [web.Response(text=whole[:-40]), web.Response(text=whole)]
    assert [raw["metadata"]["name"] for raw in await client.list(HYPERVISOR)] == ["a", "b"]
    await client.close()


async def test_of_large_objects_no_page_is_kept_whole() -> None:
    large = json.dumps({"metadata": {"name": "a", "uid": "u", "annotations": {"note": "x" * 255_000}}})

    async def page() -> AsyncIterator[bytes]:
        yield b'{"items":['
        for number in range(40):
            yield (f",{large}" if number else large).encode()
        yield b'],"metadata":{}}'

    tracemalloc.start()
    found = [raw async for raw in kept_items(page(), ListScanner(), partial(kept, HYPERVISOR))]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [{"metadata": {"name": "a", "uid": "u"}}] * 40
    assert most < 8 * len(large)


async def test_a_wrong_request_is_not_taken_for_an_outage(server: Server, tmp_path: Path) -> None:
    client = ApiClient(Credentials(server.kubeconfig(tmp_path / "config", "t")), Metrics())
    server.answers = [fails(422)]
    raw = {"metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1"}}
    with pytest.raises(Rejected, match="refused with HTTP 422: not now"):
        await client.apply_status(VOLUME_SNAPSHOT, raw, {})
    await client.close()


async def test_writes_are_counted_by_kind_and_call(server: Server, tmp_path: Path) -> None:
    metrics = Metrics()
    client = ApiClient(Credentials(server.kubeconfig(tmp_path / "config", "t")), metrics)
    raw = {"metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1"}}
    await client.apply_status(VOLUME_SNAPSHOT, raw, {})
    await client.get(VOLUME_SNAPSHOT, "b", "a")
    text = metrics.render().decode()
    assert 'varve_api_writes_total{call="status",kind="volumesnapshots"} 1.0' in text
    assert text.count("varve_api_writes_total{") == 1
    await client.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no kubeconfig at"), ("", "cannot be used"), ("{}", "current-context"), ("[1", "cannot be used")],
)
async def test_a_bad_kubeconfig_is_said_so(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadCredentials, match=message):
        await Credentials(str(path)).load()


async def test_no_kubeconfig_and_no_pod_says_what_to_set() -> None:
    with pytest.raises(BadCredentials, match="set KUBECONFIG or --kubeconfig"):
        await Credentials(None).load()


def _content(path: str) -> str:
    return Path(path).read_text()


async def test_inline_keys_leave_nothing_behind(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "config"
    server.kubeconfig(path, "t")
    config = json.loads(path.read_text())
    config["clusters"][0]["cluster"] |= {
        "server": "https://127.0.0.1:1",
        "certificate-authority-data": "Q0EgZGF0YSA0Nw==",
    }
    path.write_text(json.dumps(config))
    credentials = Credentials(str(path))
    connection = await credentials.connection()
    assert connection.ca_path is not None
    assert _content(connection.ca_path) == "CA data 47"
    assert (connection.scheme, connection.token) == ("Bearer", "t")
    credentials.close()
    assert not Path(connection.ca_path).parent.exists()


async def test_a_watch_gives_events_of_any_length_as_they_come(server: Server, transport: Transport) -> None:
    long = {"type": "ADDED", "object": {"x": "y" * 3_000_000}}
    body = json.dumps(long) + "\n" + json.dumps({"type": "BOOKMARK"}) + "\n"
    server.answers = [web.Response(text=body)]
    found = [event async for event in transport.watch("/apis/x", {"resourceVersion": "7"})]
    assert found == [long, {"type": "BOOKMARK"}]
    assert server.requests[0].query["watch"] == "true"
    assert server.requests[0].query["resourceVersion"] == "7"


@pytest.mark.parametrize(("status", "error"), [(403, Forbidden), (500, Unavailable), (410, Unavailable)])
async def test_a_watch_that_is_refused_is_an_error(
    server: Server, transport: Transport, status: int, error: type[Exception]
) -> None:
    server.answers = [fails(status)]
    with pytest.raises(error, match="not now"):
        async for _ in transport.watch("/apis/x", {}):
            pass


async def test_a_watch_without_a_server_is_an_error(server: Server, transport: Transport) -> None:
    server.answers = ["hang up"]
    with pytest.raises(Unavailable, match="broke"):
        async for _ in transport.watch("/apis/x", {}):
            pass


def test_a_context_of_the_kubeconfig_has_a_namespace(tmp_path: Path) -> None:
    path = tmp_path / "config"
    contexts = [
        {"name": "a", "context": {"cluster": "k", "user": "u", "namespace": "shop"}},
        {"name": "b", "context": {"cluster": "k", "user": "u"}},
    ]
    path.write_text(json.dumps({"current-context": "a", "contexts": contexts, "clusters": [], "users": []}))
    assert Credentials(str(path)).namespace() == "shop"
    assert Credentials(str(path), context="b").namespace() is None
    path.write_text("[]")
    with pytest.raises(BadCredentials):
        Credentials(str(path)).namespace()
