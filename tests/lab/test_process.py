"""A process is its PID and its start time; another one with its PID is never touched."""

import dataclasses
import signal
import subprocess
from collections.abc import Iterator

import pytest

from lab import process
from lab.state import LabState


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


def test_a_running_process_is_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    record = process.record_of("sleeper", sleeper.pid)
    assert record is not None
    assert process.is_alive(record)
    assert not process.wait_gone(record, 0.01)
    assert process.send_signal(record, signal.SIGKILL)
    assert process.wait_gone(record, 5)


def test_a_process_that_reuses_a_pid_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    own = process.record_of("sleeper", sleeper.pid)
    assert own is not None
    earlier = dataclasses.replace(own, start=own.start - 1)
    assert not process.is_alive(earlier)
    assert not process.send_signal(earlier, signal.SIGKILL)
    assert process.wait_gone(earlier, 0)
    assert sleeper.poll() is None
    assert process.is_alive(own)


def test_a_zombie_does_not_count_as_running(sleeper: subprocess.Popen[bytes]) -> None:
    record = process.record_of("sleeper", sleeper.pid)
    assert record is not None
    sleeper.kill()
    assert process.wait_gone(record, 5)
    assert not process.is_alive(record)  # not waited for yet: it is a zombie
    assert process.record_of("sleeper", sleeper.pid) is None


def test_records_of_an_earlier_boot_mean_nothing(sleeper: subprocess.Popen[bytes]) -> None:
    record = process.record_of("sleeper", sleeper.pid)
    assert record is not None
    assert LabState(processes={"sleeper": record}).alive() == [record]
    assert LabState(boot_id="another", processes={"sleeper": record}).alive() == []
