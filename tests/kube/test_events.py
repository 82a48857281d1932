"""Events: each once, in order, never in the way."""

import asyncio

import pytest

from controller.kube.errors import Forbidden, Unavailable
from controller.kube.events import CAPACITY, WINDOW, EventRecorder
from controller.kube.fake import FakeKube
from controller.kube.kinds import VOLUME_SNAPSHOT, Raw
from controller.telemetry.metrics import Metrics

from .conftest import FakeClock, snapshot, until


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def about(kube: FakeKube) -> Raw:
    return kube.create_object(VOLUME_SNAPSHOT, snapshot("a"))


def dropped(metrics: Metrics) -> dict[str, float]:
    samples = next(iter(metrics.events_dropped.collect())).samples
    return {sample.labels["cause"]: sample.value for sample in samples if sample.value}


async def test_events_are_written_in_their_order(kube: FakeKube, about: Raw) -> None:
    recorder = EventRecorder(kube, Metrics())
    recorder.normal(about, "Taken", "Take", "one")
    recorder.start()
    recorder.warning(about, "ChainDiverged", "Observe", "two")
    await recorder.stop(5)
    assert [(e["type"], e["reason"], e["action"], e["note"]) for e in kube.events] == [
        ("Normal", "Taken", "Take", "one"),
        ("Warning", "ChainDiverged", "Observe", "two"),
    ]
    assert kube.events[0]["regarding"]["uid"] == about["metadata"]["uid"]


async def test_the_same_words_are_written_once_in_a_while(
    kube: FakeKube, about: Raw, clock: FakeClock
) -> None:
    recorder = EventRecorder(kube, Metrics(), clock=clock)
    recorder.start()
    other = kube.create_object(VOLUME_SNAPSHOT, snapshot("b"))
    for _ in range(3):
        recorder.normal(about, "Taken", "Take", "one")
        recorder.normal(other, "Taken", "Take", "one")
        recorder.normal(about, "Taken", "Take", "two")
    await until(lambda: len(kube.events) == 3)
    clock.now += WINDOW
    recorder.normal(about, "Taken", "Take", "one")
    await recorder.stop(5)
    assert len(kube.events) == 4


async def test_too_many_are_dropped_and_counted_and_recording_never_waits(kube: FakeKube, about: Raw) -> None:
    metrics = Metrics()
    recorder = EventRecorder(kube, metrics)
    for number in range(CAPACITY + 5):
        recorder.normal(about, "Taken", "Take", str(number))
    assert dropped(metrics) == {"overfull": 5}
    recorder.start()
    await recorder.stop(20)
    assert len(kube.events) == CAPACITY


@pytest.mark.parametrize("error", [Unavailable("down"), Forbidden("no")])
async def test_one_that_fails_does_not_stop_the_next(kube: FakeKube, about: Raw, error: Exception) -> None:
    metrics = Metrics()
    recorder = EventRecorder(kube, metrics)
    kube.fail("event", error)
    recorder.start()
    recorder.normal(about, "Taken", "Take", "one")
    recorder.normal(about, "Taken", "Take", "two")
    await recorder.stop(5)
    assert [event["note"] for event in kube.events] == ["two"]
    assert dropped(metrics) == {"failed": 1}


async def test_stopping_does_not_wait_for_an_api_server_that_hangs(kube: FakeKube, about: Raw) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    kube.create_event = hang  # type: ignore[method-assign, assignment]
    recorder = EventRecorder(kube, Metrics())
    recorder.start()
    recorder.normal(about, "Taken", "Take", "one")
    await asyncio.wait_for(recorder.stop(0.05), 5)


async def test_stopping_what_never_began_is_no_error(kube: FakeKube) -> None:
    await EventRecorder(kube, Metrics()).stop(1)
