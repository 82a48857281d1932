"""What the process remembers between passes. All of it may be lost at any time: it only paces the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from controller.chain.blocked import Blocked, Why
from controller.chain.circumstances import Hold
from controller.chain.convergence import Progress
from controller.chain.journal import Operation, Owner
from controller.chain.observation import JobKind, Observation
from controller.chain.source import Source
from controller.chain.steps import Abort
from controller.hypervisor.driver import JobStatus
from controller.reconcile.accounts import Accounts
from controller.reconcile.attempts import Attempts
from controller.reconcile.queue import Backoff
from controller.reconcile.space import Space
from controller.reconcile.store import DomainKey

_BACKOFF = Backoff(first=1.0, most=60.0)
_QUESTION = Backoff(first=1.0, most=15.0)
"""When all that is tried again is one question to a storage server: its return has no event."""

_HEARSAY = timedelta(seconds=2)
"""How late the event of a job's end may come after the chain shows it."""

_OTHERS = frozenset(
    {Why.IMAGE_PROTECTED, Why.USERS_UNKNOWN, Why.HYPERVISOR_UNREACHABLE, Why.OVERLAY_UNUSABLE}
)
"""Reasons that other machines give, or nobody while they or their hypervisor do not answer."""

JOB_ENDED = {
    JobStatus.FAILED: "libvirt says that the job failed, and why only in its own log: look whether "
    "the storage is full or its server is gone",
    JobStatus.CANCELED: "libvirt says that the job was cancelled",
}
"""For people: the event of a failed job carries no reason (libvirt has none in its API)."""


def _told(why: Blocked, namespaces: Collection[str]) -> Blocked:
    """What failed for some is told in their namespaces; elsewhere only that it is not one's own."""
    if not namespaces:
        return why
    text = "what another namespace wants of this disk has failed; it waits, and nothing else does"
    own = tuple((namespace, why.message) for namespace in sorted(namespaces))
    return replace(why, message=text, own=own)


def _pace(why: Why) -> Backoff:
    return _QUESTION if why is Why.STORAGE_UNREACHABLE else _BACKOFF


@dataclass
class Ledger:
    """Failures to wait out, and the merges that run on each hypervisor."""

    now: Callable[[], datetime]
    attempts: Attempts = field(init=False)
    space: Space = field(init=False)
    accounts: Accounts = field(init=False)
    _holds: dict[DomainKey, dict[Owner | str, Hold]] = field(default_factory=dict)
    """By VolumeSnapshot, or by the disk's target where nobody is concerned in particular."""
    _failures: dict[DomainKey, Counter[Owner | str]] = field(default_factory=dict)
    _told: set[tuple[DomainKey, str]] = field(default_factory=set)
    _records: dict[DomainKey, dict[str, Hold]] = field(default_factory=dict)
    _distrusted: dict[DomainKey, set[tuple[str, str]]] = field(default_factory=dict)
    """What the status of the objects says as well, from the next report on."""
    _discards: dict[DomainKey, dict[str, Hold]] = field(default_factory=dict)
    _split: set[DomainKey] = field(default_factory=set)
    _merges: dict[DomainKey, dict[str, datetime]] = field(default_factory=dict)
    _job_errors: dict[tuple[DomainKey, str], str] = field(default_factory=dict)
    _progress: dict[tuple[DomainKey, str], tuple[int, datetime]] = field(default_factory=dict)
    """How far the job of a disk was, and since when."""
    _remote: dict[DomainKey, tuple[Source, ...]] = field(default_factory=dict)
    """The images on the network that a machine used when it was last read."""
    _jobs_seen: dict[tuple[DomainKey, str], set[JobKind]] = field(default_factory=dict)
    """By domain and target: jobs of others since the chain was as known."""
    _unlike_since: dict[tuple[DomainKey, str], datetime] = field(default_factory=dict)
    _queued: dict[str, dict[DomainKey, None]] = field(default_factory=dict)
    """By hypervisor: domains whose merge waits for another one to end, the longest wait first."""
    _held: set[DomainKey] = field(default_factory=set)
    """Domains that wait because of other machines, or of a hypervisor that does not answer."""
    _called: set[DomainKey] = field(default_factory=set)
    """Domains out of that queue that have not said yet whether they begin."""

    def __post_init__(self) -> None:
        """Share the clock."""
        self.attempts = Attempts(self.now)
        self.space = Space(self.now)
        self.accounts = Accounts()

    # Failures ------------------------------------------------------------------------------------------

    def holds(self, key: DomainKey, owners: Collection[Owner]) -> dict[Owner | str, Hold]:
        """What failed on this domain and has not worked since, and until when it is waited out. What failed
        for VolumeSnapshots that are not among ``owners`` any more is forgotten."""
        holds, failures = self._holds.get(key, {}), self._failures.get(key, Counter())
        for one in [one for one in failures if isinstance(one, Owner) and one not in owners]:
            del failures[one]
            holds.pop(one, None)
        return dict(holds)

    def discard_holds(self, key: DomainKey) -> dict[str, datetime]:
        """By image: not before when to try again to remove it."""
        return {image: hold.until for image, hold in self._discards.get(key, {}).items()}

    def discard_tries(self, key: DomainKey) -> dict[str, int]:
        """By image: how often removing it has failed."""
        failures = self._failures.get(key, Counter())
        return {image: failures[image] for image in self._discards.get(key, {})}

    def discard_reason(self, key: DomainKey, image: str) -> Blocked | None:
        """Why an image could not be removed so far."""
        hold = self._discards.get(key, {}).get(image)
        return hold.blocked if hold is not None else None

    def record_hold(self, key: DomainKey, target: str) -> Hold | None:
        """A failure to write the record of this disk, or to pivot, that is still waited out."""
        hold = self._records.get(key, {}).get(target)
        return hold if hold is not None and hold.until > self.now() else None

    def splits(self, key: DomainKey) -> bool:
        """A transaction over several disks failed: go disk by disk, so one stops no other."""
        return key in self._split

    def failed(self, key: DomainKey, concerned: Mapping[str, Collection[Owner]], why: Blocked) -> None:
        """Something failed: those whom it concerns wait before the next try, longer each time. By target, the
        VolumeSnapshots that it was done for; without one it is the disk that waits."""
        together = len(concerned) > 1
        blocked = _told(why, {one.namespace for owners in concerned.values() for one in owners})
        if together:
            self._split.add(key)
        for target, owners in concerned.items():
            self._told.add((key, target))
            for one in owners or (target,):
                count = self._failed(key, one)
                split_first = together and count == 1
                delay = timedelta(seconds=0.0 if split_first else _pace(why.why).delay(count))
                self._holds.setdefault(key, {})[one] = Hold(self.now() + delay, blocked)

    def _failed(self, key: DomainKey, one: Owner | str) -> int:
        """Once more; how often by now."""
        failures = self._failures.setdefault(key, Counter())
        failures[one] += 1
        return failures[one]

    def record_failed(self, key: DomainKey, target: str, why: Blocked) -> None:
        """The record of a disk could not be written, or a pivot was refused: that waits as well."""
        self.failed(key, {target: ()}, why)
        self._records.setdefault(key, {})[target] = self._holds[key][target]

    def undone(self, key: DomainKey, target: str, owners: Collection[Owner], what: str) -> bool:
        """An operation that was begun for ``owners`` had not happened. Once is what a restart looks like;
        again is a fault. What a failed call had begun is no news. True when libvirt said that its job has
        failed."""
        if (key, target) in self._told:
            self._told.discard((key, target))
            self._job_errors.pop((key, target), None)
            return False
        error = self._job_errors.pop((key, target), "")
        subjects = tuple(owners) or (target,)
        failures = self._failures.setdefault(key, Counter())
        count = max(failures[one] for one in subjects)
        if error or count:
            text = f"{what} on disk {target} ended without effect"
            self.failed(key, {target: owners}, Blocked(Why.FAILED, f"{text}: {error}" if error else text))
            self._told.discard((key, target))
        else:
            failures.update(subjects)
        return error == JOB_ENDED[JobStatus.FAILED]

    def distrust(self, key: DomainKey, operation: Operation) -> None:
        """QEMU has opened something else at the place of this take than was verified there."""
        place = operation.kept.source.footprint
        self._distrusted.setdefault(key, set()).update((owner.uid, place) for owner in operation.owners)

    def distrusted(self, key: DomainKey) -> frozenset[tuple[str, str]]:
        """UIDs of objects, each with the footprint of such a place."""
        return frozenset(self._distrusted.get(key, ()))

    def job_failed(self, key: DomainKey, target: str, message: str) -> None:
        """An event said that a block job failed; whether it was ours the chain tells."""
        self._job_errors[key, target] = message

    def discard_failed(self, key: DomainKey, image: str, why: Blocked) -> None:
        """An image cannot be removed now; try again later."""
        count = self._failed(key, image)
        until = self.now() + timedelta(seconds=_pace(why.why).delay(count))
        self._discards.setdefault(key, {})[image] = Hold(until, why)

    def succeeded(self, key: DomainKey, target: str, owners: Collection[Owner] = ()) -> None:
        """A step on this disk worked: forget what failed there before for nobody in particular, and for
        ``owners``."""
        subjects: tuple[Owner | str, ...] = (target, *owners)
        for one in subjects:
            self._failures.get(key, Counter()).pop(one, None)
            self._holds.get(key, {}).pop(one, None)
        self._records.get(key, {}).pop(target, None)
        self._told.discard((key, target))
        self._job_errors.pop((key, target), None)
        self._split.discard(key)

    def try_again(self, key: DomainKey) -> None:
        """Somebody changed what may have been in the way: what is waited out is tried now. How often it has
        failed counts all the same, if it fails again."""
        now = self.now()
        holds = self._holds.get(key, {})
        holds.update({one: Hold(now, hold.blocked) for one, hold in holds.items()})
        self._discards.pop(key, None)

    def forget(self, key: DomainKey) -> None:
        """The domain is of no interest any more."""
        for table in (self._holds, self._failures, self._records, self._discards, self._merges, self._remote):
            table.pop(key, None)
        self._distrusted.pop(key, None)
        self.attempts.forget(key)
        self.accounts.forget(key)
        self._queued.get(key.hypervisor, {}).pop(key, None)
        self._called.discard(key)
        self._held.discard(key)
        self._split.discard(key)
        self._told = {pair for pair in self._told if pair[0] != key}
        for mapping in (self._job_errors, self._progress, self._jobs_seen, self._unlike_since):
            for pair in [pair for pair in mapping if pair[0] == key]:
                del mapping[pair]

    # What others do ------------------------------------------------------------------------------------

    def saw_job(self, key: DomainKey, target: str, kind: JobKind) -> None:
        """A job that runs, or has ended; it counts unless it is our own."""
        if target not in self._merges.get(key, {}):
            self._jobs_seen.setdefault((key, target), set()).add(kind)

    def jobs_seen(self, key: DomainKey) -> dict[str, frozenset[JobKind]]:
        """By target: kinds of the jobs of others since the chain was as known."""
        return {target: frozenset(kinds) for (one, target), kinds in self._jobs_seen.items() if one == key}

    def missed_events(self, hypervisor: str) -> None:
        """Jobs may have come and gone unseen: what was seen does not say what happened."""
        for pair in [pair for pair in self._jobs_seen if pair[0].hypervisor == hypervisor]:
            del self._jobs_seen[pair]

    def unlike(self, key: DomainKey, target: str) -> datetime:
        """The chain is not as known; returns not before when to conclude from that without a witness."""
        return self._unlike_since.setdefault((key, target), self.now()) + _HEARSAY

    def alike(self, key: DomainKey, target: str) -> None:
        """The chain is as known, and nothing runs on it."""
        self._jobs_seen.pop((key, target), None)
        self._unlike_since.pop((key, target), None)

    def watch(self, key: DomainKey, observation: Observation) -> Mapping[str, Progress]:
        """Take note of the jobs that run; by target, how near the active commits came to their end."""
        self.accounts.watch(key, observation)
        return self.attempts.watch(key, observation)

    def gave_up(self, key: DomainKey, step: Abort) -> None:
        """A job was aborted because it did not converge. That it is undone is no news then."""
        self._told.add((key, step.target))
        self.attempts.gave_up(key, step.target, step.why, float(step.patience))

    # Merges --------------------------------------------------------------------------------------------

    def begin_merge(self, key: DomainKey, target: str) -> None:
        """A merge is about to begin: it takes a slot from now on."""
        self._merges.setdefault(key, {})[target] = self.now()

    def begun(self, key: DomainKey, target: str) -> datetime | None:
        """When this process began the merge that runs on the disk."""
        return self._merges.get(key, {}).get(target)

    def running(self, key: DomainKey, targets: Iterable[str]) -> None:
        """These disks of the domain have a merge now."""
        before = self._merges.pop(key, {})
        now = {
            target: before.get(target, datetime.min.replace(tzinfo=self.now().tzinfo)) for target in targets
        }
        if now:
            self._merges[key] = now

    def still_since(self, key: DomainKey, target: str, copied: int | None) -> datetime:
        """Since when the job of this disk has been where it is (bytes); None: it has no job."""
        if copied is None:
            self._progress.pop((key, target), None)
            return self.now()
        before, since = self._progress.get((key, target), (-1, self.now()))
        if before != copied:
            before, since = self._progress[key, target] = copied, self.now()
        return since

    def saw(self, key: DomainKey, observation: Observation) -> None:
        """The domain was read."""
        lives = (facts.live for facts in observation.disks.values() if facts.live is not None)
        remote = tuple(layer.source for live in lives for layer in live.layers if layer.source.protocol)
        if remote:
            self._remote[key] = remote
        else:
            self._remote.pop(key, None)

    def remote(self, key: DomainKey) -> tuple[Source, ...]:
        """The images on the network that the machine used when it was last read."""
        return self._remote.get(key, ())

    def waits(self, key: DomainKey, reasons: Collection[Why]) -> None:
        """The disks of this domain wait for these reasons. A merge that waits for another one to end keeps
        its place in the queue if it has one."""
        if Why.QUEUED in reasons:
            self._queued.setdefault(key.hypervisor, {})[key] = None
        if _OTHERS.isdisjoint(reasons):
            self._held.discard(key)
        else:
            self._held.add(key)

    def asks_others(self, key: DomainKey) -> None:
        """What other machines use is about to be read for this domain: from now on their news counts."""
        self._held.add(key)

    def held_by_others(self) -> tuple[DomainKey, ...]:
        """Domains for which something may have changed when another machine or a hypervisor has."""
        return tuple(self._held)

    def next_queued(self, hypervisor: str, slots: int) -> list[DomainKey]:
        """Take so many domains out of the queue as merges may begin now, less those that were called before
        and have not answered."""
        waiting = self._queued.get(hypervisor, {})
        free = slots - sum(key.hypervisor == hypervisor for key in self._called)
        called = list(waiting)[: max(free, 0)]
        for key in called:
            del waiting[key]
        self._called.update(called)
        return called

    def answered(self, key: DomainKey) -> None:
        """The domain, called or not, has looked whether it can begin a merge, or failed to."""
        self._called.discard(key)

    def merges_on(self, hypervisor: str) -> int:
        """Merges that run on this hypervisor."""
        return sum(len(disks) for key, disks in self._merges.items() if key.hypervisor == hypervisor)
