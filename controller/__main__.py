"""``python -m controller``, also installed as ``varve-controller``."""

import os
import sys
from typing import NoReturn

from controller.engine_port import Cluster
from controller.flags import Options, parse
from controller.kube.events import EventRecorder
from controller.kube.port import KubeClient
from controller.operator import serve
from controller.reconcile.engine import Engine, EngineOptions
from controller.telemetry.metrics import Metrics


def main() -> NoReturn:
    """Run the controller until it is told to stop, and end the process.

    Exit codes: 0 when it was told to stop and drained, 2 when it cannot work as configured, else 1.
    """
    serve(parse(sys.argv[1:], os.environ), make_engine)


def make_engine(
    client: KubeClient, events: EventRecorder, metrics: Metrics, options: Options, cluster: Cluster
) -> Engine:
    """The reconciler as the process was told to run it."""
    chosen = EngineOptions(
        cluster_id=cluster.id,
        cluster_named=options.cluster_id is not None,
        hypervisor_selector=options.hypervisor_selector,
        resync_seconds=options.resync_seconds,
        workers=options.workers,
        seals=cluster.seals,
    )
    return Engine(client, events, metrics, chosen)


if __name__ == "__main__":
    main()
