"""Metrics: names that dashboards know, and none that grows without end."""

import pytest

from controller.telemetry.metrics import Metrics, timed

NAMES = """
workqueue_depth workqueue_adds_total workqueue_retries_total workqueue_queue_duration_seconds
workqueue_work_duration_seconds workqueue_unfinished_work_seconds workqueue_longest_running_processor_seconds
varve_reconcile_total varve_reconcile_seconds varve_step_seconds varve_chain_layers varve_libvirt_up
varve_libvirt_call_seconds varve_block_jobs varve_orphan_images varve_api_writes_total
varve_api_request_seconds varve_events_dropped_total varve_watch_restarts_total varve_loop_lag_seconds
varve_leader varve_build_info
"""


def test_every_promised_metric_is_there() -> None:
    text = Metrics("1.2.3").render().decode()
    for name in NAMES.split():
        assert f"# TYPE {name} " in text, name
    assert 'version="1.2.3"' in text
    assert "process_resident_memory_bytes" in text


def test_no_label_names_an_object() -> None:
    metrics = Metrics()
    for value in vars(metrics).values():
        labels = set(getattr(value, "_labelnames", ()))
        assert not labels & {"namespace", "object", "uid", "domain", "disk", "snapshot"}


def test_two_do_not_share_anything() -> None:
    one, other = Metrics(), Metrics()
    one.libvirt_up.labels("a").set(1)
    assert b'hypervisor="a"' in one.render()
    assert b'hypervisor="a"' not in other.render()


def test_time_is_observed_also_when_it_fails() -> None:
    metrics = Metrics()
    with pytest.raises(ValueError, match="x"), timed(metrics.reconcile_seconds):
        raise ValueError("x")
    assert b"varve_reconcile_seconds_count 1.0" in metrics.render()
