"""The Kubernetes API as the benchmark uses it: requests over kept connections, and a watch with timestamps.

Starting kubectl costs more than everything that is measured here, so the objects are created and followed as
kubectl does it, without kubectl.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab import ControlPlane

GROUP = "varve.dev/v1alpha1"
NAMESPACE = "bench"
_PATIENCE = 120.0
"""Seconds until something that should happen is taken for something that never will."""

_IDLE = 30.0
"""Seconds after which an unused connection is not used any more."""


class BenchError(Exception):
    """The benchmark cannot go on; the message says why."""


@dataclass(frozen=True)
class Sighting:
    """One watch event: when it was read (monotonic, seconds) and what it showed."""

    at: float
    type: str
    ready: bool
    version: str


class Cluster:
    """Requests as administrator. Safe from any thread: each has a connection of its own."""

    def __init__(self, plane: ControlPlane) -> None:
        host, _, port = plane.server.removeprefix("https://").partition(":")
        self._address = (host, int(port))
        self._context = ssl.create_default_context(cafile=str(plane.ca))
        self._headers = {"Authorization": f"Bearer {plane.token}", "Content-Type": "application/json"}
        self._own = threading.local()

    def connect(self, timeout: float) -> http.client.HTTPSConnection:
        """A new connection; ``timeout`` in seconds for each read and write."""
        return http.client.HTTPSConnection(*self._address, context=self._context, timeout=timeout)

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send one request. Raises BenchError when it is refused."""
        connection = self._connection()
        connection.request(method, path, json.dumps(body) if body is not None else None, self._headers)
        answer = connection.getresponse()
        payload: dict[str, Any] = json.loads(answer.read())
        if answer.status >= 300:
            raise BenchError(f"{method} {path}: HTTP {answer.status}: {payload.get('message')}")
        return payload

    def _connection(self) -> http.client.HTTPSConnection:
        """This thread's; a new one before the API server closes an idle one, which it does after 90 s."""
        kept: http.client.HTTPSConnection | None = getattr(self._own, "connection", None)
        now = time.monotonic()
        if kept is not None and now - self._own.used > _IDLE:
            kept.close()
            kept = None
        self._own.used = now
        self._own.connection = kept or self.connect(_PATIENCE)
        return self._own.connection  # type: ignore[no-any-return]  # attributes of a thread have no types

    def create(self, collection: str, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Create an object of the group ``varve.dev`` in the collection at this path."""
        body = {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.request("POST", collection, body)

    def stream(self, path: str, timeout: float) -> tuple[socket.socket, http.client.HTTPResponse]:
        """Open a watch: the socket, to end it, and the answer, to read lines from."""
        connection = self.connect(timeout)
        connection.request("GET", path, headers=self._headers)
        link: socket.socket = connection.sock
        return link, connection.getresponse()


def cluster_path(plural: str) -> str:
    """The collection of a cluster-scoped kind."""
    return f"/apis/{GROUP}/{plural}"


def snapshot_path(name: str = "") -> str:
    """The collection of VolumeSnapshots that the benchmark uses, or one of them."""
    return f"/apis/{GROUP}/namespaces/{NAMESPACE}/volumesnapshots" + (f"/{name}" if name else "")


class Snapshots:
    """VolumeSnapshots, created, deleted and watched."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen: dict[str, list[Sighting]] = {}
        self._news = threading.Condition()
        self._ended = ""
        self._version = cluster.request("GET", snapshot_path())["metadata"]["resourceVersion"]
        self._open()
        self._thread = threading.Thread(target=self._follow, name="bench-watch", daemon=True)
        self._thread.start()

    def apply(self, name: str, domain: str, **spec: Any) -> float:
        """Create one; returns when (monotonic, seconds) the request was sent."""
        sent = time.monotonic()
        body = {"source": {"domain": domain, "disk": "vda"}, **spec}
        self._cluster.create(snapshot_path(), "VolumeSnapshot", name, body)
        return sent

    def delete(self, name: str) -> float:
        """Delete one; returns when (monotonic, seconds) the request was sent."""
        sent = time.monotonic()
        self._cluster.request("DELETE", snapshot_path(name))
        return sent

    def until_ready(self, name: str) -> float:
        """When (monotonic, seconds) the watch first showed Ready=True."""
        return self._until(name, "Ready", lambda one: one.ready)

    def until_gone(self, name: str) -> float:
        """When (monotonic, seconds) the watch showed that it is gone."""
        return self._until(name, "gone", lambda one: one.type == "DELETED")

    def versions(self, name: str) -> int:
        """How many versions of the object the watch has shown, its deletion included."""
        with self._news:
            return len({one.version for one in self._seen.get(name, ())})

    def close(self) -> None:
        """End the watch."""
        with self._news:
            self._ended = "closed"
            # Closing what another thread reads from waits for that thread; so its read is ended first.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        self._thread.join()
        self._stream.close()

    def _until(self, name: str, what: str, test: Callable[[Sighting], bool]) -> float:
        def found() -> Sighting | None:
            return next((one for one in self._seen.get(name, ()) if test(one)), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._ended, timeout=_PATIENCE)
            sighting = found()
        if sighting is None:
            why = self._ended or f"not within {_PATIENCE:.0f} s"
            conditions = self._cluster.request("GET", snapshot_path(name)).get("status")
            raise BenchError(f"VolumeSnapshot {name} is not {what}: {why}; its status: {conditions}")
        return sighting.at

    def _follow(self) -> None:
        problem = ""
        while not (problem or self._ended):
            try:
                problem = self._read()
                # The API server ends a watch now and then, and when it has taken in a new CRD; it is gone on
                # with behind the last event.
                if not (problem or self._ended):
                    self._open()
            except (OSError, ValueError, http.client.HTTPException) as error:
                problem = repr(error)
        with self._news:
            self._ended = self._ended or f"the watch ended: {problem}"
            self._news.notify_all()

    def _open(self) -> None:
        path = f"{snapshot_path()}?watch=1&resourceVersion={self._version}"
        link, stream = self._cluster.stream(path, timeout=3600)
        with self._news:
            self._socket, self._stream = link, stream
            if self._ended:
                socket.socket.shutdown(link, socket.SHUT_RDWR)

    def _read(self) -> str:
        """Take events until the watch ends; returns why it cannot go on, empty when it can."""
        while line := self._stream.readline():
            at = time.monotonic()
            event = json.loads(line)
            if event["type"] == "ERROR":
                return str(event["object"].get("message"))
            self._note(at, event["type"], event["object"])
        return ""

    def _note(self, at: float, kind: str, raw: dict[str, Any]) -> None:
        conditions = raw.get("status", {}).get("conditions", ())
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        self._version = raw["metadata"]["resourceVersion"]
        sighting = Sighting(at, kind, ready, self._version)
        with self._news:
            self._seen.setdefault(raw["metadata"]["name"], []).append(sighting)
            self._news.notify_all()
