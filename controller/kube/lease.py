"""A Lease that says which process works: taken before work starts, renewed, given back at the end.

``kubernetes.aio.leaderelection`` is not used: it judges expiry by the wall clock of this machine (client-go
goes by the monotonic time since it last saw the record change, so that clocks need not agree and may jump),
has no release, blocks in one attempt for as long as the client's timeout (5 minutes), so that the renew
deadline does not hold, and imports the model layer (27 MiB).

The rules are those of client-go's leaderelection: a record that was not seen to change for the lease
duration may be taken; the holder stops being the holder when it could not renew for the renew deadline,
which is shorter, so that it has stopped before another can begin. Time that passes in a stopped process
(SIGSTOP, a suspended machine) is beyond any Lease: the last guards are preconditions checked again before
each step, and libvirt's own job lock.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from time import monotonic
from typing import Protocol

from controller.kube.errors import Conflict, KubeError, ObjectGone
from controller.kube.kinds import LEASE, Kind, Raw

log = logging.getLogger(__name__)


class LeaseStore(Protocol):
    """The three requests that a Lease needs; ``ApiClient`` and ``FakeKube`` have them."""

    async def get(self, kind: Kind, namespace: str | None, name: str, *, retry: bool = True) -> Raw | None:
        """Read one object, or None."""
        ...

    async def create(self, kind: Kind, namespace: str | None, body: Raw, *, retry: bool = True) -> Raw:
        """Create one. Raises Conflict."""
        ...

    async def replace(self, kind: Kind, body: Raw, *, retry: bool = True) -> Raw:
        """Replace one as it was read. Raises Conflict, also when it is gone."""
        ...


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Seconds, as in client-go: how long a silent holder is believed, how long it believes itself, a try."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        """Raises ValueError when the holder would not stop before another may begin."""
        if not self.duration > self.renew_deadline > self.retry_period > 0:
            raise ValueError("needed: lease duration > renew deadline > retry period > 0")


def lease_name(selector: str) -> str:
    """The default name of the Lease: processes for different hypervisors must not wait for each other."""
    return "varve" if not selector else f"varve-{sha256(selector.encode()).hexdigest()[:10]}"


class Lease:
    """One candidate for one Lease."""

    def __init__(
        self,
        store: LeaseStore,
        namespace: str,
        name: str,
        identity: str,
        *,
        timing: LeaseTiming | None = None,
        is_dead: Callable[[str], bool] = lambda identity: False,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``identity`` must be unique among all processes, also among restarts of one.

        ``is_dead`` says of another identity whether its process is known to be gone: then nobody waits for
        it.
        """
        self._store = store
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._timing = timing or LeaseTiming()
        self._is_dead = is_dead
        self._clock = clock
        self._sleep = sleep
        self._seen: Raw | None = None  # the spec as last seen, and when it was first seen so
        self._seen_at = 0.0
        self._problem: str | None = None
        self._held: Raw | None = None  # the object as this process last wrote it

    @property
    def where(self) -> str:
        """Namespace and name, for people."""
        return f"{self._namespace}/{self._name}"

    async def acquire(self) -> None:
        """Wait until the Lease is held."""
        waiting_for: str | None = None
        while not await self._try():
            holder = (self._seen or {}).get("holderIdentity")
            if holder and holder != waiting_for:
                log.info("waiting for the Lease", extra={"lease": self.where, "holder": holder})
                waiting_for = holder
            await self._sleep(self._timing.retry_period)
        log.info("holding the Lease", extra={"lease": self.where, "identity": self._identity})

    async def keep(self) -> str:
        """Renew the Lease until it is lost, and return why. Cancel to stop renewing."""
        renewed = self._clock()
        while True:
            left = renewed + self._timing.renew_deadline - self._clock()
            await self._sleep(max(0.0, min(self._timing.retry_period, left)))
            began = self._clock()
            left = renewed + self._timing.renew_deadline - began
            if left > 0 and await self._try(left):
                renewed = began  # others count from when the API server had it, which was later
            elif self._lost_to_other():
                return f"the Lease {self.where} was taken by {(self._seen or {}).get('holderIdentity')}"
            elif self._clock() - renewed >= self._timing.renew_deadline:
                return f"the Lease {self.where} could not be renewed for {self._timing.renew_deadline:g} s"

    async def release(self) -> None:
        """Give the Lease back, so that the next process need not wait. Failing is harmless."""
        if self._held is None:
            return
        body = {**self._held, "spec": {**self._held["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}}
        self._held = None
        try:
            await asyncio.wait_for(self._store.replace(LEASE, body, retry=False), self._timing.retry_period)
        except (KubeError, TimeoutError) as error:
            log.info("the Lease was not released and will run out", extra={"problem": str(error)})

    async def _try(self, seconds: float | None = None) -> bool:
        """One attempt to take or renew, for at most ``seconds`` (default: the renew deadline)."""
        try:
            return await asyncio.wait_for(self._take_or_renew(), seconds or self._timing.renew_deadline)
        except Conflict:
            self._held = None  # someone was faster: look again
        except ObjectGone as error:
            self._held = None
            self._complain(f"{error}: make the namespace, or name another with --lease-namespace")
        except (KubeError, TimeoutError) as error:
            self._complain(str(error) or "no answer in time")
        return False

    def _complain(self, problem: str) -> None:
        """Log what is in the way, once until it changes."""
        if problem != self._problem:
            log.warning("the Lease cannot be had", extra={"lease": self.where, "problem": problem})
        self._problem = problem

    async def _take_or_renew(self) -> bool:
        if self._held is not None:  # the usual case: one request
            self._held = await self._store.replace(LEASE, self._body(self._held), retry=False)
            self._see(self._held["spec"])
            return True
        found = await self._store.get(LEASE, self._namespace, self._name, retry=False)
        if found is None:
            self._held = await self._store.create(LEASE, self._namespace, self._body(None), retry=False)
        else:
            self._see(found.get("spec") or {})
            if not self._takeable():
                return False
            self._held = await self._store.replace(LEASE, self._body(found), retry=False)
        self._see(self._held["spec"])
        self._problem = None
        return True

    def _see(self, spec: Raw) -> None:
        """Remember when a record was first seen: only its age on this process's own clock counts."""
        if spec != self._seen:
            self._seen, self._seen_at = spec, self._clock()

    def _takeable(self) -> bool:
        spec = self._seen or {}
        holder = spec.get("holderIdentity")
        silent = self._clock() - self._seen_at
        if not holder or holder == self._identity or silent >= spec.get("leaseDurationSeconds", 0):
            return True
        return self._is_dead(holder)

    def _lost_to_other(self) -> bool:
        holder = (self._seen or {}).get("holderIdentity")
        return bool(holder) and holder != self._identity

    def _body(self, found: Raw | None) -> Raw:
        """The record that makes (or keeps) this process the holder."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # for people: nobody computes with it
        old = (found or {}).get("spec") or {}
        mine = old.get("holderIdentity") == self._identity
        transitions = old.get("leaseTransitions", 0) + (1 if found and not mine else 0)
        body: Raw = found or {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": {"name": self._name, "namespace": self._namespace},
        }
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._timing.duration)),
            "acquireTime": old["acquireTime"] if mine and "acquireTime" in old else stamp,
            "renewTime": stamp,
            "leaseTransitions": transitions,
        }
        return {**body, "spec": spec}
