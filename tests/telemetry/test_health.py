"""The probes and the metrics, over HTTP."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from controller.telemetry.health import Address, BadAddress, CannotListen, Checks, HealthServers
from controller.telemetry.metrics import Metrics

LOCAL = Address("127.0.0.1", 0)


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
async def servers(checks: Checks) -> AsyncIterator[HealthServers]:
    servers = HealthServers(Metrics(), checks)
    yield servers
    await servers.stop()


async def ask(servers: HealthServers, path: str, which: int = 0) -> tuple[int, str]:
    host, port = servers.addresses[which]
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}{path}") as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":8080", Address(None, 8080)),
        ("127.0.0.1:0", LOCAL),
        ("[::1]:80", Address("::1", 80)),
        ("localhost:65535", Address("localhost", 65535)),
        ("0", None),
    ],
)
def test_addresses(text: str, address: Address | None) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["", "8080", ":", ":http", ":65536", "::1:80", "host:-1", "[::1]"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadAddress, match="is no address"):
        Address.parse(text)


async def test_alive_and_ready_without_complaints(servers: HealthServers) -> None:
    await servers.start(None, LOCAL)
    assert await ask(servers, "/healthz") == (200, "ok\n")
    assert await ask(servers, "/readyz") == (200, "ok\n")
    assert (await ask(servers, "/metrics"))[0] == 404


async def test_a_complaint_is_shown_by_name_and_goes_with_its_cause(
    servers: HealthServers, checks: Checks
) -> None:
    problem: list[str | None] = ["worker 3 died"]
    checks.add_live("engine", lambda: problem[0])
    checks.add_live("watches", lambda: None)
    checks.add_ready("crds", lambda: "not installed")
    await servers.start(None, LOCAL)
    assert await ask(servers, "/healthz") == (503, "engine: worker 3 died\n")
    assert await ask(servers, "/readyz") == (503, "crds: not installed\n")
    problem[0] = None
    assert (await ask(servers, "/healthz"))[0] == 200


async def test_metrics_are_served_apart_from_probes(servers: HealthServers) -> None:
    await servers.start(LOCAL, Address("localhost", 0))
    assert "varve_leader 0.0" in (await ask(servers, "/metrics"))[1]
    assert (await ask(servers, "/healthz"))[0] == 404
    assert (await ask(servers, "/healthz", which=1))[0] == 200


async def test_one_server_for_one_address(servers: HealthServers) -> None:
    await servers.start(LOCAL, LOCAL)
    assert len(servers.addresses) == 1
    assert (await ask(servers, "/metrics"))[0] == (await ask(servers, "/healthz"))[0] == 200


async def test_an_address_that_is_taken_is_said_so(servers: HealthServers) -> None:
    await servers.start(LOCAL, None)
    port = servers.addresses[0][1]
    other = HealthServers(Metrics(), Checks())
    with pytest.raises(CannotListen, match=str(port)):
        await other.start(Address("127.0.0.1", port), None)
    await other.stop()
