"""One suite for both ports: the fake one always, the real one where the lab's control plane runs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from controller.kube.client import ApiClient
from controller.kube.credentials import Credentials
from controller.kube.fake import FakeKube
from controller.kube.kinds import VOLUME_SNAPSHOT, WATCHED, Kind, Raw
from controller.kube.transport import Transport
from controller.telemetry.metrics import Metrics
from lab.deadline import wait_until

CRDS = Path(__file__).parents[2] / "crds"
NAMESPACE = "kube-tests"
_names = count(1)


@dataclass
class Bench:
    """A port and the user's side of the same cluster."""

    client: Any
    create: Callable[[str], Any]
    delete: Callable[[str], Any]
    edit: Callable[[str, list[Raw]], Any]
    events: Callable[[str], Any]
    name: str


def snapshot(name: str) -> Raw:
    """A VolumeSnapshot as a user writes it."""
    return {
        "apiVersion": VOLUME_SNAPSHOT.api_version,
        "kind": VOLUME_SNAPSHOT.name,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"source": {"domain": "web-1", "disk": "vda"}},
    }


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Each test runs against both."""
    name = f"snap-{next(_names)}"
    if request.param == "fake":
        yield _fake(name)
        return
    plane = request.getfixturevalue("cluster_with_crds")
    client = ApiClient(Credentials(str(plane.kubeconfig)), Metrics())
    yield _real(client, name)
    await client.close()


@pytest.fixture(scope="session")
def prepared_cluster(request: pytest.FixtureRequest) -> Any:
    """The lab's control plane with our CRDs and a namespace."""
    plane = request.getfixturevalue("control_plane")
    plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    for path in [kind.path() for kind in WATCHED]:
        wait_until(partial(watchable, plane, path), timeout=30, what=f"watching {path}")
    for namespace in (NAMESPACE, "varve-system"):
        plane.kubectl("create", "namespace", namespace, check=False)
    return plane


@pytest.fixture(scope="module")
def cluster_with_crds(prepared_cluster: Any) -> Iterator[Any]:
    """The same; nothing that a module has made is there for others."""
    plane = prepared_cluster
    yield plane
    plane.kubectl("delete", "vvs", "--all", "-n", NAMESPACE, "--wait=false")
    held = plane.kubectl("get", "vvs", "-n", NAMESPACE, "-o", "name").stdout.split()
    for name in held:
        plane.kubectl(
            "patch", name, "-n", NAMESPACE, "--type=merge", '-p={"metadata":{"finalizers":null}}', check=False
        )


def watchable(plane: Any, path: str) -> bool:
    """Whether a kind can be watched. Established says less: "storage is (re)initializing" is the answer to a
    watch that comes too soon after it (kube-apiserver 1.36), which kopf logs as an error and tries again."""
    return bool(
        plane.kubectl("get", "--raw", f"{path}?watch=true&timeoutSeconds=1", check=False).returncode == 0
    )


def _fake(name: str) -> Bench:
    def defaults(kind: Kind, raw: Raw) -> None:
        if kind == VOLUME_SNAPSHOT:
            raw["status"] = {"observedGeneration": -1}

    fake = FakeKube(defaults=defaults)

    async def create(name: str) -> Raw:
        return fake.create_object(VOLUME_SNAPSHOT, snapshot(name))

    async def delete(name: str) -> None:
        fake.delete(VOLUME_SNAPSHOT, NAMESPACE, name)

    async def edit(name: str, patch: list[Raw]) -> Raw:
        def change(raw: Raw) -> None:
            for step in patch:
                *parents, last = step["path"].strip("/").split("/")
                target = raw
                for parent in parents:
                    target = target[parent]
                target[last] = step["value"]

        return fake.edit(VOLUME_SNAPSHOT, NAMESPACE, name, change)

    async def events(name: str) -> list[Raw]:
        return [event for event in fake.events if event["regarding"]["name"] == name]

    return Bench(fake, create, delete, edit, events, name)


def _real(client: ApiClient, name: str) -> Bench:
    transport: Transport = client._transport
    path = VOLUME_SNAPSHOT.path(NAMESPACE, name)

    async def create(name: str) -> Raw:
        return await client.create(VOLUME_SNAPSHOT, NAMESPACE, snapshot(name))

    async def delete(name: str) -> None:
        assert (await transport.request("DELETE", path)).ok

    async def edit(name: str, patch: list[Raw]) -> Raw:
        answer = await transport.request(
            "PATCH", path, body=patch, content_type="application/json-patch+json"
        )
        assert answer.ok, answer
        return answer.body

    async def events(name: str) -> list[Raw]:
        query = {"fieldSelector": f"regarding.name={name}"}
        answer = await transport.request(
            "GET", f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events", query=query
        )
        return list(answer.body["items"])

    return Bench(client, create, delete, edit, events, name)


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let the time pass at once, and others run."""
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> FakeClock:
    """A clock of one's own."""
    return FakeClock()


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until ``condition`` holds, which takes them some turns but no time."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happens")
