"""The Lease is renewed beside a main loop that is busy, and given up for one that hangs."""

import threading
from typing import Any

from controller.kube.fake import Call, FakeKube
from controller.kube.kinds import LEASE
from controller.kube.lease import Lease, LeaseTiming
from controller.kube.lease_thread import LeaseThread

FAST = LeaseTiming(duration=3.0, renew_deadline=2.0, retry_period=0.01)
PATIENCE = 30.0


class Scene:
    """A cluster that counts renewals, and a candidate."""

    def __init__(self, **options: Any) -> None:
        self.kube = FakeKube()
        self.renewed = threading.Semaphore(0)
        self.lost = threading.Event()
        self.reasons: list[str] = []
        self.closed = threading.Event()
        self.kube.hook = self.count
        lease = Lease(self.kube, "varve-system", "varve", "me", timing=FAST)
        self.thread = LeaseThread(lease, on_lost=self.on_lost, close=self.close, **options)

    def count(self, call: Call, phase: str) -> None:
        if call.verb == "replace" and phase == "after":
            self.renewed.release()

    def on_lost(self, reason: str) -> None:
        self.reasons.append(reason)
        self.lost.set()

    async def close(self) -> None:
        self.closed.set()

    @property
    def holder(self) -> str:
        found = self.kube.object(LEASE, "varve-system", "varve")
        return str(found["spec"]["holderIdentity"]) if found else ""


async def test_a_main_loop_that_is_busy_does_not_hold_up_renewals() -> None:
    scene = Scene()
    await scene.thread.acquire()
    assert scene.holder == "me"
    for _ in range(5):  # without a turn of the main loop
        assert scene.renewed.acquire(timeout=PATIENCE)
    assert not scene.lost.is_set()
    await scene.thread.release()
    assert scene.holder == ""
    assert scene.closed.is_set()


async def test_a_main_loop_that_hangs_loses_the_lease() -> None:
    scene = Scene(silence=0.05, beat=0.01)
    await scene.thread.acquire()
    assert scene.lost.wait(PATIENCE)
    assert scene.reasons == ["the event loop has made no turn for 0.05 s"]
    await scene.thread.release()


async def test_what_another_has_taken_is_lost() -> None:
    scene = Scene()
    await scene.thread.acquire()

    def steal(raw: Any) -> None:
        raw["spec"]["holderIdentity"] = "other"

    scene.kube.edit(LEASE, "varve-system", "varve", steal)
    assert scene.lost.wait(PATIENCE)
    assert scene.reasons == ["the Lease varve-system/varve was taken by other"]
    await scene.thread.release()
    assert scene.holder == "other"


async def test_a_defect_in_renewing_is_a_loss() -> None:
    scene = Scene()
    await scene.thread.acquire()
    scene.kube.fail("replace", ZeroDivisionError())
    assert scene.lost.wait(PATIENCE)
    assert scene.reasons == ["ZeroDivisionError()"]
    await scene.thread.release()
