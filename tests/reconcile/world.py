"""A whole small world in memory: a cluster, hypervisors, and the controller's engine between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.chain.seal import Seals
from controller.chain.source import Source
from controller.hypervisor.simulated import Killed, SimulatedHost
from controller.kube.events import EventRecorder
from controller.kube.fake import FakeKube, Sink
from controller.kube.kinds import (
    HYPERVISOR,
    VOLUME_CHAIN,
    VOLUME_SNAPSHOT,
    VOLUME_SNAPSHOT_CLASS,
    Kind,
    Raw,
    name_of,
)
from controller.reconcile.engine import Engine, EngineOptions
from controller.reconcile.keys import ReportKey
from controller.telemetry.metrics import Metrics

NAMESPACE = "shop"
ALL_PLACES = ("*", "/dev/*", "nbd+unix:*?socket=/run/*")
"""Patterns that give every place that can be given."""
KEY = bytes(range(32))
"""By which the records of the small world are sealed."""
URI = "qemu+unix:///system?socket=/run/{}"


def base_image(name: str) -> Source:
    """A local image of a machine."""
    return Source.file(f"/images/{name}.qcow2")


class Clock:
    """Wall-clock time that goes with the event loop's, so that tests which skip time skip it everywhere."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._zero = datetime.now(UTC) - timedelta(seconds=self._loop.time())

    def __call__(self) -> datetime:
        return self._zero + timedelta(seconds=self._loop.time())


@dataclass
class StatusWrite:
    """One status that was written, and the object as it was before."""

    kind: Kind
    before: Raw
    status: Raw


class Mortal:
    """A controller's client of the cluster; once dead, it reaches nothing any more."""

    def __init__(self, kube: FakeKube, written: list[StatusWrite]) -> None:
        self._kube = kube
        self._written = written
        self.dead = False

    async def apply_status(self, kind: Kind, current: Raw, status: Raw) -> Raw:
        """Keep each status that is written, for :meth:`World.check_writes`."""
        before = self._kube.object(kind, *name_of(current))
        after: Raw = await self._call("apply_status", kind, current, status)
        if before is not None:
            self._written.append(StatusWrite(kind, before, status))
        return after

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.dead:
            raise Killed
        try:
            return await getattr(self._kube, name)(*args, **kwargs)
        except Killed:
            self.dead = True
            raise

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._call(name, *args, **kwargs)

        return call


@dataclass
class World:
    """Survives controllers: :meth:`start` and :meth:`crash` as often as you like."""

    now: Clock = field(default_factory=Clock)
    kube: FakeKube = field(default_factory=lambda: FakeKube(defaults=_defaults, now=Clock()))
    hosts: dict[str, SimulatedHost] = field(default_factory=dict)
    engine: Engine | None = None
    recorder: EventRecorder | None = None
    cluster: str = "cluster-a"
    mortal: Mortal | None = None
    written: list[StatusWrite] = field(default_factory=list)
    watch_lag: float = 0.0
    """Seconds by which watch events come later than the answers to writes."""
    pulls_last: bool = True
    """As in production (ADR 6); False where a test is about pulls."""
    seals: Seals | None = field(default_factory=lambda: Seals(KEY))
    """As in production; None where a test writes journals by hand."""
    make_connector: Callable[[str], Any] | None = None
    """Stands in for the way to the hosts."""
    _unsubscribe: Callable[[], None] | None = None

    def host(
        self, name: str = "host-a", *, access: list[dict[str, Any]] | None = None, **spec: Any
    ) -> SimulatedHost:
        """A hypervisor and its Hypervisor object; open to everybody unless ``access`` says otherwise."""
        host = self.add_host(name)
        self._tell_of(host, access, **spec)
        return host

    def adopt_host(self, host: SimulatedHost) -> None:
        """A hypervisor that another cluster reaches too."""
        self.hosts[host.hostname] = host
        self._tell_of(host, None)

    def _tell_of(self, host: SimulatedHost, access: list[dict[str, Any]] | None, **spec: Any) -> None:
        name = host.hostname
        everybody = [{"namespaces": ["*"], "domains": ["*"], "overlays": list(ALL_PLACES)}]
        body = {"uri": URI.format(name), "access": everybody if access is None else access, **spec}
        self.kube.create_object(HYPERVISOR, {"metadata": {"name": name}, "spec": body})

    def add_host(self, name: str) -> SimulatedHost:
        """A hypervisor that no Hypervisor object tells of."""
        host = self.hosts[name] = SimulatedHost(name, auto=True)
        return host

    def policy(self, name: str = "standard", *, default: bool = True, **spec: Any) -> None:
        """A class; deletions do not settle unless it says so."""
        merge = {"settleSeconds": 0, **spec.pop("merge", {})}
        annotations = {"varve.dev/is-default-class": "true"} if default else {}
        self.kube.create_object(
            VOLUME_SNAPSHOT_CLASS,
            {"metadata": {"name": name, "annotations": annotations}, "spec": {"merge": merge, **spec}},
        )

    def snapshot(self, name: str, domain: str = "web-1", disk: str = "vda", **spec: Any) -> Raw:
        """Apply a VolumeSnapshot."""
        source = spec.pop("source", {"domain": domain, "disk": disk})
        return self.kube.create_object(
            VOLUME_SNAPSHOT,
            {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"source": source, **spec}},
        )

    def delete(self, name: str, *, force: bool = False) -> None:
        """kubectl delete, without waiting."""
        self.kube.delete(VOLUME_SNAPSHOT, NAMESPACE, name, force=force)

    def edit(self, name: str, **spec: Any) -> None:
        """kubectl patch of a VolumeSnapshot's spec."""
        self.kube.edit(VOLUME_SNAPSHOT, NAMESPACE, name, lambda raw: raw["spec"].update(spec))

    def edit_hypervisor(self, name: str, **spec: Any) -> None:
        """kubectl patch of a Hypervisor's spec."""
        self.kube.edit(HYPERVISOR, None, name, lambda raw: raw["spec"].update(spec))

    def label(self, hypervisor: str, **labels: str) -> None:
        """kubectl label."""
        self.kube.edit(HYPERVISOR, None, hypervisor, lambda raw: raw["metadata"].update(labels=labels))

    def delete_hypervisor(self, name: str) -> None:
        """kubectl delete hypervisor."""
        self.kube.delete(HYPERVISOR, None, name)

    def create_hypervisor(self, name: str, spec: Raw) -> None:
        """kubectl apply of a Hypervisor."""
        self.kube.create_object(HYPERVISOR, {"metadata": {"name": name}, "spec": spec})

    # The controller ------------------------------------------------------------------------------------

    async def start(self, *, selector: str = "", first: Kind | None = None) -> None:
        """Start a controller; it finds what the last one left. It handles the Hypervisors with these labels,
        and hears of the objects of kind ``first`` some time before all others."""
        metrics = Metrics()
        client = self.mortal = Mortal(self.kube, self.written)
        self.recorder = EventRecorder(client, metrics)
        self.recorder.start()
        self.engine = Engine(
            client,
            self.recorder,
            metrics,
            EngineOptions(
                cluster_id=self.cluster,
                hypervisor_selector=selector,
                pulls_last=self.pulls_last,
                seals=self.seals,
                resync_seconds=3600,
                workers=4,
            ),
            make_connector=self._connector,
            now=self.now,
        )
        await self.engine.start()
        if first is not None:
            for kind, raw in self.kube._store.everything():
                if kind == first:
                    self.engine.on_object(kind, None, raw)
            await asyncio.sleep(5)
        self._unsubscribe = self.kube.subscribe(self._selected(self.engine.on_object, selector))

    def _selected(self, sink: Sink, selector: str) -> Sink:
        """The watch of Hypervisors is limited to the selector, those of the other kinds are not."""
        wanted = dict(pair.split("=") for pair in selector.split(",") if pair)

        def select(kind: Kind, event: str | None, raw: Raw) -> None:
            if kind != HYPERVISOR or wanted.items() <= raw["metadata"].get("labels", {}).items():
                self._deliver(sink, kind, event, raw)

        return select

    def _deliver(self, sink: Sink, kind: Kind, event: str | None, raw: Raw) -> None:
        if self.watch_lag:
            asyncio.get_running_loop().call_later(self.watch_lag, sink, kind, event, raw)
        else:
            sink(kind, event, raw)

    def _connector(self, uri: str) -> Any:
        if self.make_connector is not None:
            return self.make_connector(uri)
        return self.hosts[uri.rsplit("/", 1)[-1].partition("&")[0]].connect

    async def stop(self) -> None:
        """SIGTERM."""
        if self._unsubscribe:
            self._unsubscribe()
            self._unsubscribe = None
        if self.engine:
            await self.engine.stop(5)
        if self.recorder:
            await self.recorder.stop(1)
        self.engine = self.recorder = None

    async def crash(self) -> None:
        """SIGKILL: nothing of the controller reaches the cluster or a host any more."""
        assert self.mortal is not None
        self.mortal.dead = True
        for host in self.hosts.values():
            host.restart_libvirtd()  # its connections end with the process; jobs go on
        await self.stop()

    # Looking -------------------------------------------------------------------------------------------

    def object(self, name: str) -> Raw | None:
        """The VolumeSnapshot now."""
        return self.kube.object(VOLUME_SNAPSHOT, NAMESPACE, name)

    def condition(self, name: str, kind: str = "Ready") -> tuple[str, str, str]:
        """Status, reason and message of a condition; empty strings before there is one."""
        raw = self.object(name) or {}
        for found in raw.get("status", {}).get("conditions", []):
            if found["type"] == kind:
                return found["status"], found["reason"], found["message"]
        return "", "", ""

    def is_ready(self, name: str) -> bool:
        """kubectl wait --for=condition=Ready."""
        raw = self.object(name)
        if raw is None:
            return False
        current = raw.get("status", {}).get("observedGeneration") == raw["metadata"]["generation"]
        return current and self.condition(name)[0] == "True"

    async def until(self, holds: Callable[[], object], seconds: float = 10.0) -> None:
        """Wait until something holds; fails with the conditions of all objects when it does not."""
        try:
            async with asyncio.timeout(seconds):
                pause = 0.001
                while not holds():
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.1, 0.05)
        except TimeoutError:
            raise AssertionError(f"did not come true: {self.conditions()}") from None

    async def ready(self, *names: str) -> None:
        """Wait until all these are Ready."""
        await self.until(lambda: all(self.is_ready(name) for name in names))

    async def gone(self, *names: str) -> None:
        """Wait until none of these is there."""
        await self.until(lambda: all(self.object(name) is None for name in names))

    async def says(self, name: str, reason: str, *words: str, stalled: bool = False) -> str:
        """Wait until the object is not Ready for this reason, and says these words; returns the message.
        Words that tell of others may be in the Hypervisor's events instead (:meth:`details`).

        ``stalled``: a person is needed; otherwise it is waited for something that may come by itself."""
        await self.until(lambda: self.condition(name)[1] == reason)
        await self.settled()  # or the echo of this very status would look again, and hide a missing wake-up
        status, _, message = self.condition(name)
        assert status == "False"
        everything = "\n".join((message, *self.details()))
        for word in words:
            assert word in everything, f"{word!r} is not in {everything!r}"
        wanted = ("Stalled", "Reconciling") if stalled else ("Reconciling", "Stalled")
        assert [self.condition(name, kind)[0] for kind in wanted] == ["True", "False"]
        raw = self.object(name)
        assert raw is not None
        assert raw["status"]["observedGeneration"] == raw["metadata"]["generation"]
        return message

    def details(self, reason: str = "") -> list[str]:
        """What those are told who look after the hypervisors, of this reason or of all."""
        return [
            event["note"]
            for event in self.kube.events
            if event["regarding"]["kind"] == "Hypervisor" and (not reason or event["reason"] == reason)
        ]

    def events(self, reason: str) -> list[str]:
        """The notes of all Events with this reason."""
        return [event["note"] for event in self.kube.events if event["reason"] == reason]

    async def settled(self) -> None:
        """Wait until no pass runs or is due, and nothing was called for a while."""
        seen = -1
        while self._busy() or seen != self._calls():
            seen = self._calls()
            await asyncio.sleep(0.05)

    async def told(self) -> None:
        """Wait until everything is settled and the VolumeChains say so; later than that, nothing is due."""
        await self.settled()
        while self.engine is not None and any(isinstance(key, ReportKey) for key in self.engine._queue._due):
            await asyncio.sleep(0.5)
            await self.settled()

    def chain_object(self, name: str, namespace: str = NAMESPACE) -> Raw | None:
        """The VolumeChain now."""
        return self.kube.object(VOLUME_CHAIN, namespace, name)

    def policy_of_chain(
        self, name: str, domain: str = "web-1", disk: str = "vda", namespace: str = NAMESPACE, **spec: Any
    ) -> Raw:
        """Apply a VolumeChain."""
        source = spec.pop("source", {"domain": domain, "disk": disk})
        return self.kube.create_object(
            VOLUME_CHAIN,
            {"metadata": {"name": name, "namespace": namespace}, "spec": {"source": source, **spec}},
        )

    def edit_chain(self, name: str, **spec: Any) -> None:
        """kubectl patch of a VolumeChain's spec."""
        self.kube.edit(VOLUME_CHAIN, NAMESPACE, name, lambda raw: raw["spec"].update(spec))

    def _busy(self) -> bool:
        queue = self.engine._queue if self.engine is not None else None
        return queue is not None and bool(len(queue) or queue.since)

    def _calls(self) -> int:
        return len(self.kube.calls) + sum(len(host.faults.calls) for host in self.hosts.values())

    def check_writes(self) -> None:
        """Every status that was written keeps to what kstatus, Flux and Argo CD rely on. And no image was
        removed that a QEMU had open."""
        for host in self.hosts.values():
            assert not host.unlinked, f"removed from under a running machine: {host.unlinked}"
        for write in self.written:
            found = {one["type"]: one for one in write.status["conditions"]}
            truths = [found[kind]["status"] for kind in ("Reconciling", "Stalled")]
            assert truths.count("True") <= 1, f"Reconciling and Stalled at once: {write.status}"
            generations = {one["observedGeneration"] for one in found.values()}
            assert generations == {write.status["observedGeneration"]}, "not made in one go"
            assert write.status["observedGeneration"] <= write.before["metadata"]["generation"]
            assert write.status != write.before.get("status"), f"written without need: {write.status}"

    def conditions(self) -> dict[str, Any]:
        """Ready, Reconciling and Stalled of every VolumeSnapshot."""
        names = [
            raw["metadata"]["name"] for kind, raw in self.kube._store.everything() if kind == VOLUME_SNAPSHOT
        ]
        return {name: [self.condition(name, kind) for kind in ("Ready", "Stalled")] for name in names}

    def hypervisor(self, name: str) -> Raw:
        """The Hypervisor now."""
        raw = self.kube.object(HYPERVISOR, None, name)
        assert raw is not None
        return raw

    def chain(self, host: SimulatedHost, uuid: str, target: str = "vda") -> list[str]:
        """File names of the live chain, active first."""
        process = host.machine(uuid).process
        assert process is not None
        return [node.source.leaf for node in process.disks[target].nodes]


def _defaults(kind: Any, raw: Raw) -> None:
    if kind in (VOLUME_SNAPSHOT, VOLUME_CHAIN, HYPERVISOR):
        raw["status"] = {"observedGeneration": -1}
