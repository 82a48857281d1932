"""The controller's process with an engine that only says what it hears, for tests of the process."""

import asyncio
import json
import os
import sys
import threading

from controller.engine_port import Cluster
from controller.flags import Options, parse
from controller.kube.events import EventRecorder
from controller.kube.kinds import Kind, Raw
from controller.kube.port import KubeClient
from controller.operator import serve
from controller.telemetry.metrics import Metrics


class StubEngine:
    """Prints each call as a line of JSON. ``STUB_HANG`` lets a thread, and the draining, hang for ever."""

    def __init__(
        self, client: KubeClient, events: EventRecorder, metrics: Metrics, options: Options, cluster: Cluster
    ) -> None:
        self._say("made", cluster_id=cluster.id, keys=list(cluster.seals.ids))

    async def start(self) -> None:
        """Begin."""
        if os.environ.get("STUB_HANG"):
            threading.Thread(
                target=threading.Event().wait, name="hung"
            ).start()  # not a daemon, as libvirt's may be
        self._say("started")

    def on_object(self, kind: Kind, event_type: str | None, raw: Raw) -> None:
        """Say what came."""
        self._say("object", kind=kind.name, type=event_type, name=raw["metadata"]["name"])

    async def stop(self, grace_seconds: float) -> None:
        """Drain, or hang."""
        self._say("stopping", grace=grace_seconds)
        if os.environ.get("STUB_HANG"):
            await asyncio.Event().wait()

    def problems(self) -> list[str]:
        """None."""
        return []

    def ready(self) -> str | None:
        """At once."""
        return None

    @staticmethod
    def _say(what: str, **values: object) -> None:
        print(json.dumps({"what": what, **values}), flush=True)


if __name__ == "__main__":
    serve(parse(sys.argv[1:], os.environ), StubEngine)
