"""The process, with a stub for an engine, at a real API server: start, watch, drain, outlive an outage."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .conftest import NAMESPACE, snapshot

pytestmark = pytest.mark.cluster

_names = count(1)
DEADLINE = 60.0


@dataclass
class Controller:
    """A running controller: what its engine heard, and what it logged."""

    process: asyncio.subprocess.Process
    heard: list[dict[str, Any]] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read(self, stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
        """Follow one of its outputs."""
        async for line in stream:
            async with self.news:
                take(line.decode().rstrip())
                self.news.notify_all()

    async def hears(self, **wanted: object) -> dict[str, Any]:
        """Wait until the engine heard such a thing; say what it was."""

        def found() -> dict[str, Any] | None:
            return next((one for one in self.heard if wanted.items() <= one.items()), None)

        async with asyncio.timeout(DEADLINE), self.news:
            await self.news.wait_for(lambda: found() is not None)
        result = found()
        assert result is not None
        return result

    async def logs(self, pattern: str) -> re.Match[str]:
        """Wait until a line of the log matches."""

        def found() -> re.Match[str] | None:
            return next(filter(None, (re.search(pattern, line) for line in self.logged)), None)

        async with asyncio.timeout(DEADLINE), self.news:
            await self.news.wait_for(lambda: found() is not None)
        result = found()
        assert result is not None
        return result

    async def ends(self) -> int:
        """Wait for the end; say the exit code."""
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()

    async def probe(self, path: str) -> tuple[int, str]:
        """Ask its probes or metrics, which are at one address."""
        address = (await self.logs(r"listening .*address=(\S+)")).group(1)
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as answer:
            return answer.status, await answer.text()


Start = Callable[..., Awaitable[Controller]]


@pytest.fixture
async def start(cluster_with_crds: Any) -> AsyncIterator[Start]:
    """Starts controllers, each with a Lease of its own unless told; ends them."""
    running: list[tuple[Controller, list[asyncio.Task[None]]]] = []

    async def begin(*arguments: str, **environment: str) -> Controller:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.kube.stub_controller"),
            "--metrics-bind-address=127.0.0.1:0",
            "--health-probe-bind-address=127.0.0.1:0",
            f"--lease-name=test-{os.getpid()}-{next(_names)}",
            *arguments,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "KUBECONFIG": str(cluster_with_crds.kubeconfig), **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        controller = Controller(process)
        assert process.stdout is not None
        assert process.stderr is not None
        readers = [
            controller.read(process.stdout, lambda line: controller.heard.append(json.loads(line))),
            controller.read(process.stderr, controller.logged.append),
        ]
        running.append((controller, [asyncio.create_task(reader) for reader in readers]))
        return controller

    yield begin
    for controller, readers in running:
        if controller.process.returncode is None:
            controller.process.kill()
            await controller.process.wait()
        await asyncio.gather(*readers)


@pytest.fixture
def apply(cluster_with_crds: Any) -> Callable[[str], Awaitable[str]]:
    """Makes a VolumeSnapshot as a user does."""

    async def create(prefix: str) -> str:
        name = f"{prefix}-{next(_names)}"
        text = json.dumps(snapshot(name))
        await asyncio.to_thread(cluster_with_crds.kubectl, "apply", "-f", "-", stdin=text)
        return name

    return create


async def test_it_watches_drains_and_gives_the_lease_back(
    start: Start, apply: Callable[[str], Awaitable[str]], cluster_with_crds: Any
) -> None:
    before = await apply("before")
    controller = await start("--lease-name=drain", "--grace-period=20")
    await controller.hears(what="object", name=before, type=None)
    made = await controller.hears(what="made")
    uid = cluster_with_crds.kubectl("get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}").stdout
    assert made["cluster_id"] == uid
    after = await apply("after")
    await controller.hears(what="object", name=after, type="ADDED", kind="VolumeSnapshot")
    cluster_with_crds.kubectl("delete", "vvs", "-n", NAMESPACE, after)
    await controller.hears(what="object", name=after, type="DELETED")
    assert await controller.probe("/healthz") == (200, "ok\n")
    assert await controller.probe("/readyz") == (200, "ok\n")
    assert 'varve_build_info{python="' in (await controller.probe("/metrics"))[1]
    controller.process.send_signal(signal.SIGTERM)
    assert await controller.ends() == 0
    assert (await controller.hears(what="stopping"))["grace"] == 17
    lease = cluster_with_crds.kubectl("get", "lease", "-n", "varve-system", "drain", "-o", "json").stdout
    assert json.loads(lease)["spec"].get("holderIdentity", "") == ""
    assert "error" not in "".join(controller.logged)


async def test_a_hung_thread_does_not_hold_the_end(start: Start) -> None:
    controller = await start("--grace-period=1", STUB_HANG="yes")
    await controller.hears(what="started")
    controller.process.send_signal(signal.SIGTERM)
    assert await controller.ends() == 0


async def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    controller = await start("--grace-period=3600", STUB_HANG="yes")
    await controller.hears(what="started")
    controller.process.send_signal(signal.SIGTERM)
    await controller.hears(what="stopping")
    controller.process.send_signal(signal.SIGTERM)
    assert await controller.ends() == 1


async def test_a_signal_while_waiting_for_the_lease(start: Start) -> None:
    first = await start("--lease-name=contended")
    await first.hears(what="started")
    second = await start("--lease-name=contended")
    await second.logs("waiting for the Lease")
    assert (await second.probe("/readyz"))[0] == 200
    second.process.send_signal(signal.SIGTERM)
    assert await second.ends() == 0
    assert second.heard == []


async def test_the_next_takes_over_from_one_that_was_killed(start: Start) -> None:
    first = await start("--lease-name=killed")
    await first.hears(what="started")
    second = await start("--lease-name=killed")
    await second.logs("waiting for the Lease")
    first.process.kill()
    assert await first.ends() == -signal.SIGKILL
    await second.hears(what="started")


async def test_it_ends_when_the_lease_is_taken(start: Start, cluster_with_crds: Any) -> None:
    controller = await start("--lease-name=stolen")
    await controller.hears(what="started")
    patch = json.dumps({"spec": {"holderIdentity": "thief"}})
    cluster_with_crds.kubectl("patch", "lease", "stolen", "-n", "varve-system", "--type=merge", f"-p={patch}")
    assert await controller.ends() == 1
    await controller.logs("taken by thief")
    assert not [one for one in controller.heard if one["what"] == "stopping"]


async def test_a_missing_namespace_for_the_lease_is_said_so(start: Start) -> None:
    controller = await start("--lease-namespace=there-is-none")
    await controller.logs("there-is-none.*not found")


async def test_all_controllers_of_a_cluster_seal_with_one_key(start: Start, cluster_with_crds: Any) -> None:
    kubectl, where = cluster_with_crds.kubectl, ("-n", "varve-system")
    kubectl("delete", "secret", "varve-journal-key", *where, "--ignore-not-found")
    both = await asyncio.gather(start(), start())
    made = [await one.hears(what="made") for one in both]
    assert made[0]["keys"] == made[1]["keys"]


async def test_only_the_crds_are_there_and_no_namespace(start: Start, cluster_with_crds: Any) -> None:
    namespace = f"fresh-{os.getpid()}"
    controller = await start("--leader-elect=false", f"--lease-namespace={namespace}")
    await controller.hears(what="started")
    found = cluster_with_crds.kubectl("get", "secret", "varve-journal-key", "-n", namespace, "-o", "json")
    assert set(json.loads(found.stdout)["data"]) == {"key"}
    cluster_with_crds.kubectl("delete", "namespace", namespace, "--wait=false")


async def test_a_key_that_is_none_is_said_so_and_nothing_begins(start: Start, cluster_with_crds: Any) -> None:
    kubectl, where = cluster_with_crds.kubectl, ("-n", f"keys-{os.getpid()}")
    kubectl("create", "namespace", where[1])
    kubectl("create", "secret", "generic", "varve-journal-key", "--from-literal=key=short", *where)
    controller = await start("--leader-elect=false", f"--lease-namespace={where[1]}")
    await controller.logs("holds no key that can be used")
    status, text = await controller.probe("/readyz")
    assert (status, "32 random bytes" in text) == (503, True)
    assert controller.heard == []
    key = f'{{"stringData":{{"key":"{"k" * 32}"}}}}'
    kubectl("patch", "secret", "varve-journal-key", "--type=merge", f"-p={key}", *where)
    await controller.hears(what="started")
    kubectl("delete", "namespace", where[1], "--wait=false")


async def test_it_watches_on_after_the_api_server_was_killed(
    start: Start, apply: Callable[[str], Awaitable[str]], cluster_with_crds: Any
) -> None:
    controller = await start("--leader-elect=false")
    await controller.hears(what="object", name=await apply("early"))
    cluster_with_crds.kill_apiserver()
    try:
        await controller.logs(r"Connect.*logger=kopf")  # it has noticed
        assert (await controller.probe("/healthz"))[0] == 200
    finally:
        await asyncio.to_thread(cluster_with_crds.start_apiserver)
    await controller.hears(what="object", name=await apply("late"))
    assert controller.process.returncode is None


async def test_it_starts_before_the_api_server_and_the_crds(start: Start, cluster_with_crds: Any) -> None:
    cluster_with_crds.kubectl("delete", "crd", "hypervisors.varve.dev")
    cluster_with_crds.kill_apiserver()
    try:
        controller = await start()
        await controller.logs("waiting for Kubernetes")
        assert (await controller.probe("/readyz"))[0] == 503
    finally:
        await asyncio.to_thread(cluster_with_crds.start_apiserver)
    try:
        await controller.logs("does not serve hypervisors.varve.dev: kubectl apply --server-side -f crds/")
        assert "hypervisors.varve.dev" in (await controller.probe("/readyz"))[1]
    finally:
        crd = Path(__file__).parents[2] / "crds" / "varve.dev_hypervisors.yaml"
        cluster_with_crds.kubectl("apply", "--server-side", "-f", str(crd))
    hypervisor = {
        "apiVersion": "varve.dev/v1alpha1",
        "kind": "Hypervisor",
        "metadata": {"name": "late"},
        "spec": {
            "uri": "qemu+unix:///system?socket=/run/x",
            "access": [{"namespaces": ["*"], "domains": ["*"]}],
        },
    }
    cluster_with_crds.kubectl(
        "wait", "--for=condition=Established", "crd/hypervisors.varve.dev", "--timeout=30s"
    )
    cluster_with_crds.kubectl("apply", "-f", "-", stdin=json.dumps(hypervisor))
    await controller.hears(what="object", kind="Hypervisor", name="late")
    cluster_with_crds.kubectl("delete", "hypervisor", "late")


async def test_the_watches_begin_again_when_kopf_ends(
    start: Start, apply: Callable[[str], Awaitable[str]], cluster_with_crds: Any
) -> None:
    controller = await start()
    await controller.hears(what="object", name=await apply("early"))
    cluster_with_crds.kubectl("delete", "crd", "volumesnapshotclasses.varve.dev")
    try:
        await controller.logs("the watches begin again")
        assert (await controller.probe("/readyz"))[0] == 503
        assert (await controller.probe("/healthz"))[0] == 200
    finally:
        crd = Path(__file__).parents[2] / "crds" / "varve.dev_volumesnapshotclasses.yaml"
        cluster_with_crds.kubectl("apply", "--server-side", "-f", str(crd))
    await controller.hears(what="object", name=await apply("late"))
    assert not [one for one in controller.heard if one["what"] == "stopping"]


async def test_a_shard_hears_only_of_its_hypervisors(start: Start, cluster_with_crds: Any) -> None:
    for name, site in (("mine", "lab"), ("other", "prod")):
        hypervisor = {
            "apiVersion": "varve.dev/v1alpha1",
            "kind": "Hypervisor",
            "metadata": {"name": name, "labels": {"varve.dev/site": site}},
            "spec": {
                "uri": "qemu+unix:///system?socket=/run/x",
                "access": [{"namespaces": ["*"], "domains": ["*"]}],
            },
        }
        cluster_with_crds.kubectl("apply", "-f", "-", stdin=json.dumps(hypervisor))
    controller = await start("--hypervisor-selector=varve.dev/site=lab")
    await controller.hears(what="object", name="mine")
    cluster_with_crds.kubectl("delete", "hypervisor", "other", "mine")
    await controller.hears(what="object", name="mine", type="DELETED")
    assert not [one for one in controller.heard if one.get("name") == "other"]
