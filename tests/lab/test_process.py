"""A process is its PID and its start time; another one with its PID is never touched."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import process
from lab.deadline import wait_until
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


_MANY_THREADS = """
import os, threading
def talk():
    while True:
        os.write(1, b".")
for _ in range(15):
    threading.Thread(target=talk).start()
"""


def test_a_stopped_process_does_nothing_any_more() -> None:
    with subprocess.Popen([sys.executable, "-c", _MANY_THREADS], stdout=subprocess.PIPE, bufsize=0) as child:
        record = process.record_of("talker", child.pid)
        assert record is not None
        assert child.stdout is not None
        out = child.stdout
        os.set_blocking(out.fileno(), False)

        def heard() -> bytes | None:
            return out.read(1 << 20)

        try:
            for _ in range(20):
                wait_until(heard, timeout=10, what="a word")
                assert process.send_signal(record, signal.SIGSTOP)
                while heard():
                    pass  # what it said before
                for _ in range(100):
                    assert not heard()
                assert process.send_signal(record, signal.SIGCONT)
        finally:
            child.kill()


_WITHOUT_ITS_FIRST_THREAD = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60, 0)  # exit(2), of this thread only
"""


def test_a_process_whose_first_thread_ended_is_still_there() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WITHOUT_ITS_FIRST_THREAD], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        wait_until(lambda: _state(child.pid) == "Z", timeout=10, what="the end of its first thread")
        record = process.record_of("headless", child.pid)
        assert record is not None
        assert not process.wait_gone(record, 0.01)
        assert process.send_signal(record, signal.SIGKILL)
        assert process.wait_gone(record, 5)
        assert process.record_of("headless", child.pid) is None


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def test_records_of_an_earlier_boot_mean_nothing(sleeper: subprocess.Popen[bytes]) -> None:
    record = process.record_of("sleeper", sleeper.pid)
    assert record is not None
    assert LabState(processes={"sleeper": record}).alive() == [record]
    assert LabState(boot_id="another", processes={"sleeper": record}).alive() == []
