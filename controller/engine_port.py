"""The reconciler as the process sees it: what it is made of, and what it must answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from controller.chain.seal import Seals
from controller.flags import Options
from controller.kube.events import EventRecorder
from controller.kube.kinds import Kind, Raw
from controller.kube.port import KubeClient
from controller.telemetry.metrics import Metrics


class Engine(Protocol):
    """The reconciler, as the process sees it."""

    async def start(self) -> None:
        """Begin to work. Called once, while the Lease is held."""
        ...

    def on_object(self, kind: Kind, event_type: str | None, raw: Raw) -> None:
        """Take note of a watch event, at once; a listing has the type None. Does not change ``raw``."""
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Begin no more steps and return when those begun are done, at the latest after ``grace_seconds``."""
        ...

    def problems(self) -> list[str]:
        """What only a restart can mend, such as a dead worker or a pass without progress."""
        ...

    def ready(self) -> str | None:
        """What is missing until objects are acted on, or None."""
        ...


@dataclass(frozen=True)
class Cluster:
    """By what journals are known as ours."""

    id: str
    seals: Seals


MakeEngine = Callable[[KubeClient, EventRecorder, Metrics, Options, Cluster], Engine]
"""Makes the engine."""
