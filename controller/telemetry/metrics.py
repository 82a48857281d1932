"""Every metric of the process. Names and labels are part of the interface: dashboards and alerts use them.

Queue metrics are named as controller-runtime names them, so that existing dashboards fit; everything else has
the prefix ``varve_``, base units and no object names in labels. One :class:`Metrics` per process, with a
registry of its own, so that tests never share state.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one, which nobody reads

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Buckets in seconds for a call, a pass or a wait in the queue."""

SLOW = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
"""Buckets in seconds for a step, which may copy a whole disk."""

LAYERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 200)
"""Buckets for the number of images in a chain; libvirt itself stops at 200."""


class Metrics:
    """All metrics, as attributes; see each one's help text for what it counts."""

    def __init__(self, version: str = "unknown") -> None:
        """Register everything with a new registry; ``version`` is what ``varve_build_info`` shows."""
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        self._queue()
        self._reconcile()
        self._hypervisors()
        self._kubernetes()
        info = self._gauge("varve_build_info", "Always 1; the labels say what runs.", "version", "python")
        info.labels(version, platform.python_version()).set(1)

    def render(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = FAST) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _queue(self) -> None:
        self.queue_depth = self._gauge("workqueue_depth", "Domains that wait for a pass.", "name")
        self.queue_adds = self._counter(
            "workqueue_adds_total", "Wake-ups that made a domain wait for a pass.", "name"
        )
        self.queue_retries = self._counter(
            "workqueue_retries_total", "Passes that will be repeated after an error.", "name"
        )
        self.queue_wait = self._histogram(
            "workqueue_queue_duration_seconds", "From the wake-up to the pass.", "name"
        )
        self.queue_work = self._histogram(
            "workqueue_work_duration_seconds", "How long a worker had a domain.", "name"
        )
        self.queue_unfinished = self._gauge(
            "workqueue_unfinished_work_seconds", "Sum of the ages of all passes that are running now.", "name"
        )
        self.queue_longest = self._gauge(
            "workqueue_longest_running_processor_seconds",
            "Age of the oldest pass that is running now.",
            "name",
        )

    def _reconcile(self) -> None:
        self.reconcile = self._counter(
            "varve_reconcile_total", "Passes by result: success, requeue, requeue_after or error.", "result"
        )
        self.reconcile_seconds = self._histogram(
            "varve_reconcile_seconds", "One pass: observe, plan, act and report. Jobs run outside of passes."
        )
        self.step_seconds = self._histogram(
            "varve_step_seconds",
            "A step, from the call that starts it until the chain shows its effect.",
            "step",
            "result",
            buckets=SLOW,
        )
        self.merge_bytes = self._counter(
            "varve_merge_bytes_total",
            "Bytes of merges that are done, by kind of job: planned (the most that the layers can take) and "
            "copied (by the job, or by the growth of the image that was kept).",
            "kind",
            "what",
        )
        self.chain_layers = self._histogram(
            "varve_chain_layers",
            "Images in a chain, base and active layer included, each time it is read.",
            buckets=LAYERS,
        )

    def _hypervisors(self) -> None:
        self.libvirt_up = self._gauge(
            "varve_libvirt_up", "1 while the hypervisor answers, else 0.", "hypervisor"
        )
        self.libvirt_call_seconds = self._histogram(
            "varve_libvirt_call_seconds",
            "One call to a hypervisor, by what it does (read, commit, set_metadata …), its waiting included.",
            "call",
        )
        self.block_jobs = self._gauge(
            "varve_block_jobs", "Block jobs of varve that run now.", "kind", "hypervisor"
        )
        self.orphan_images = self._gauge(
            "varve_orphan_images",
            "Images that a merge left over and that could not be removed.",
            "hypervisor",
        )

    def _kubernetes(self) -> None:
        self.api_writes = self._counter(
            "varve_api_writes_total",
            "Writes to the Kubernetes API by plural and call: status, finalizer, event, create, replace.",
            "kind",
            "call",
        )
        self.api_request_seconds = self._histogram(
            "varve_api_request_seconds",
            "One HTTP request to the API server, by method and answer.",
            "method",
            "code",
        )
        self.events_dropped = self._counter(
            "varve_events_dropped_total",
            "Kubernetes Events that were not written: overfull, or failed.",
            "cause",
        )
        self.watch_restarts = self._counter(
            "varve_watch_restarts_total", "Times the watches ended with an error and were started again."
        )
        self.loop_lag = self._histogram(
            "varve_loop_lag_seconds",
            "How late the main loop comes to what is due, because it is busy. Probed ten times a second.",
        )
        self.leader = self._gauge("varve_leader", "1 while this process holds the Lease, or needs none.")


@contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """Observe how long the block took, in seconds, whether it succeeded or not."""
    began = perf_counter()
    try:
        yield
    finally:
        histogram.observe(perf_counter() - began)
