"""What merges really copied, beside what the plan foresaw. A restart forgets what was begun before it.

libvirt tells how much of an active commit is copied. Of the other jobs it shows how far they have come in the
disk, empty parts included; there the image that was kept tells, by how much it has grown. What the guest
writes while an active layer is kept counts as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from controller.chain.journal import Operation, OperationKind
from controller.chain.observation import DiskFacts, Observation
from controller.reconcile.store import DomainKey


@dataclass(frozen=True)
class Account:
    """One job. All in bytes."""

    begun: str
    planned: int
    """The most that the layers could take to copy, as they were measured."""
    before: int
    """What the kept image held when the job began."""
    copied: int | None = None
    """What was really copied; None while it is not known."""

    def __str__(self) -> str:
        """For people."""
        return f"{self.copied} bytes were copied; the plan foresaw {self.planned} at most"


@dataclass
class Accounts:
    """Jobs that this process began, by disk."""

    _open: dict[tuple[DomainKey, str], Account] = field(default_factory=dict)

    def begun(self, key: DomainKey, target: str, operation: Operation, facts: DiskFacts) -> None:
        """A job is about to begin."""
        planned = sum(facts.bytes_of(layer.key) for layer in operation.merged)
        self._open[key, target] = Account(operation.begun, planned, facts.bytes_of(operation.kept.key))

    def watch(self, key: DomainKey, observation: Observation) -> None:
        """Take note of what active commits that are ready have copied."""
        for record in observation.journal.disks:
            facts, account = observation.disks.get(record.target), self._open.get((key, record.target))
            if facts is None or facts.job is None or account is None or record.operation is None:
                continue
            mirror = facts.live.mirror if facts.live is not None else None
            ready = mirror is not None and mirror.ready
            if ready and record.operation.kind is OperationKind.ACTIVE_COMMIT:
                self._open[key, record.target] = replace(account, copied=facts.job.copied)

    def closed(
        self, key: DomainKey, target: str, operation: Operation, facts: DiskFacts | None
    ) -> Account | None:
        """The job is done; None when this process did not begin it, or nothing was measured."""
        account = self._open.pop((key, target), None)
        if account is None or account.begun != operation.begun:
            return None
        if account.copied is not None:
            return account
        if facts is None or operation.kept.key not in facts.sizes:
            return None
        return replace(account, copied=max(0, facts.bytes_of(operation.kept.key) - account.before))

    def forget(self, key: DomainKey) -> None:
        """The domain is of no interest any more."""
        for pair in [pair for pair in self._open if pair[0] == key]:
            del self._open[pair]
