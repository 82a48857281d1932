"""Execution: carry out one step. The one place that changes anything on a hypervisor.

Every step has the same shape: write the intent to the journal, look at the live chain once more, resolve
indexes now, make one libvirt call, return. Jobs run in QEMU and nobody waits for them here. What came of a
call is told by the next observation, never by the call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

from controller.chain.blocked import Why
from controller.chain.disk import Disk, Layer
from controller.chain.explicit import NotThePrefix, made_true, spelled_out
from controller.chain.journal import DiskJournal, Journal, Operation, OperationKind
from controller.chain.journal_codec import encode
from controller.chain.naming import is_ours
from controller.chain.observation import Observation, RunState
from controller.chain.outcome import NOT_OURS, Outcome, asks_qemu, fits, outcome, uncertain
from controller.chain.seal import Sealing
from controller.chain.source import Source
from controller.chain.steps import (
    Abort,
    Discard,
    Pivot,
    Record,
    RecordWhy,
    SpellOut,
    StartMerge,
    Step,
    Take,
    targets_of,
)
from controller.hypervisor.driver import Driver, Facts, Removal, Running
from controller.hypervisor.errors import (
    CannotKeepRelative,
    FlagUnknown,
    HypervisorError,
    NotRemovable,
    OperationFailed,
    StillOpen,
    StorageUnreachable,
)
from controller.hypervisor.last_look import LastLook, Refused, Stale, disk_of
from controller.hypervisor.observe import Fleet, observe, with_opened
from controller.hypervisor.snapshot_xml import snapshot_xml

log = logging.getLogger(__name__)

_JUST_NOW = 1.0
"""Seconds for which a look at the headers of others holds: they are files, and nothing tells of them."""


@dataclass(frozen=True)
class Result:
    """What a step came to, beyond what the next observation shows."""

    left: str = ""
    """Why an image could not be removed; it stays in the inventory of orphans."""
    told: str = ""
    """The same for the objects of tenants."""


def _new_mark() -> str:
    return uuid4().hex[:12]


class Executor:
    """Carries out the steps of one pass over one domain; keeps the journal as it writes it."""

    def __init__(
        self,
        driver: Driver,
        observation: Observation,
        *,
        cluster: str,
        identities: Collection[str],
        sealing: Sealing | None = None,
        mark: Callable[[], str] = _new_mark,
        fleet: Fleet | None = None,
        facts: Facts | None = None,
    ) -> None:
        """``facts``: what the daemon can do, as far as it was asked; ``sealing``: by which the records that
        it writes are sealed."""
        self._driver = driver
        self._facts = facts
        self._observation = observation
        self._uuid = observation.uuid
        self._identities = identities
        self._sealing = sealing
        self._mark = mark
        self._last = LastLook(driver, observation, fleet or Fleet())
        self._journal = replace(observation.journal, cluster=cluster)
        self._surveyed: tuple[StartMerge, float] | None = None
        """What was surveyed, and when that began."""

    @asynccontextmanager
    async def surveying(self, step: StartMerge) -> AsyncIterator[None]:
        """Look, beside what is asked of Kubernetes, whether somebody's header names the image that the merge
        would write to; raises Refused at the end. :meth:`run` does it when nobody has done it just now."""
        began = asyncio.get_running_loop().time()
        look = asyncio.ensure_future(self._last.refuse_if_referred(step.operation))
        try:
            yield
        finally:
            await look
        self._surveyed = step, began

    async def run(self, step: Step) -> Result:
        """Carry out one step.

        Raises :class:`Stale` or :class:`Refused` when nothing was done, :class:`HypervisorError` when the
        daemon refused or the outcome is unknown.
        """
        match step:
            case Take():
                await self._take(step)
            case StartMerge():
                await self._start(step)
            case Pivot():
                await self._pivot(step)
            case Abort():
                await self._abort(step)
            case Record():
                await self._record(step)
            case Discard():
                return await self._discard(step)
            case SpellOut():
                await self._spell_out(step)
        return Result()

    @property
    def known(self) -> Observation:
        """What is known of the domain after steps that changed nothing but the journal: what was observed
        before them, with the journal as it was written. Who else uses the images is to be read anew."""
        return replace(
            self._observation,
            journal=self._journal,
            behind=frozenset(),
            unsealed=frozenset(),
            in_use_elsewhere=None,
        )

    # Steps ---------------------------------------------------------------------------------------------

    async def _take(self, step: Take) -> None:
        await self._last.refuse_unless_prepared(step)
        for one in step.disks:
            # A place that is lent is used again and again, so its operation must say which QEMU got the call.
            marked = replace(one.operation, process=self._mark()) if one.operation.lent else one.operation
            self._begin(one.target, marked)
        await self._write_journal()
        await self._last.refuse_if_claimed(step)
        definition = await self._last.look_again()
        for one in step.disks:
            disk = disk_of(definition, one.target)
            if disk.active is None or disk.active.key != one.operation.merged[0].key:
                raise Stale(f"the active layer of {one.target} is not {one.operation.merged[0].source.uri}")
        overlays = {one.target: one.operation.kept for one in step.disks}
        prepared = all(one.operation.prepared for one in step.disks)
        await self._driver.create_snapshot(self._uuid, snapshot_xml(definition, overlays), reuse=prepared)

    async def _start(self, step: StartMerge) -> None:
        operation = step.operation
        surveyed, began = self._surveyed or (None, 0.0)
        if surveyed is not step or asyncio.get_running_loop().time() - began > _JUST_NOW:
            await self._last.refuse_if_referred(operation)
        if operation.kind is OperationKind.PULL:
            operation = replace(operation, process=self._mark())
        self._begin(step.target, operation)
        await self._write_journal()
        disk = disk_of(await self._last.look_again(), step.target)
        if not fits(operation, disk):
            raise Stale(f"the chain of {step.target} is not the one that the merge was planned for")
        if operation.kind is OperationKind.PULL:
            await self._pull(step, _named(disk, operation.below) if operation.below else None)
        else:
            active = operation.kind is OperationKind.ACTIVE_COMMIT
            top = None if active else _named(disk, operation.merged[0])
            await self._commit(step, _named(disk, operation.kept), top)

    async def _commit(self, step: StartMerge, base: str, top: str | None) -> None:
        async def call(*, relative: bool) -> None:
            await self._driver.commit(
                self._uuid, step.target, base=base, top=top, relative=relative, bandwidth=step.bandwidth
            )

        if top is None:
            await call(relative=False)  # no header is rewritten: the layers above the kept one all go
            return
        await self._keeping_relative(call, "commit-relative")

    async def _pull(self, step: StartMerge, base: str | None) -> None:
        async def call(*, relative: bool) -> None:
            await self._driver.pull(
                self._uuid, step.target, base=base, relative=relative, bandwidth=step.bandwidth
            )

        if base is None:
            await call(relative=False)
            return
        await self._keeping_relative(call, "rebase-relative")

    async def _keeping_relative(self, call: Callable[..., Awaitable[None]], flag: str) -> None:
        """Make the call so that relative names in headers stay relative, where that can be.

        Not when the daemon is known not to have the flag, nor when a header in the range holds an absolute
        name: libvirt refuses that without touching anything, and a flag that it does not know as well.
        """
        if self._facts is not None and self._facts.flags_asked and flag not in self._facts.capabilities:
            await call(relative=False)
            return
        try:
            await call(relative=True)
        except (CannotKeepRelative, FlagUnknown):
            await call(relative=False)

    async def _pivot(self, step: Pivot) -> None:
        # libvirt can lose a machine whose pivot it does not survive: then it must be known that it was told.
        self._begin(step.target, replace(step.operation, pivoting=True))
        await self._write_journal()
        disk = disk_of(await self._last.look_again(), step.target)
        mirror = disk.mirror
        seen = self._observation.disks[step.target].live
        if mirror is None and seen is not None and seen.mirror is None and disk.keys == seen.keys:
            pass  # libvirtd died at the start of the job: none is shown, and an early pivot is refused
        elif mirror is None or not mirror.ready or mirror.source_key != step.operation.kept.key:
            raise Stale(f"the mirror of {step.target} is not ready, or not ours")
        await self._driver.pivot(self._uuid, step.target)

    async def _abort(self, step: Abort) -> None:
        again = await observe(self._driver, self._uuid, identities=self._identities)
        facts = again.disks.get(step.target)
        if facts is None or outcome(step.operation, facts) is not Outcome.RUNNING:
            raise Stale(f"the job of {step.target} is ready, over, or not ours")
        await self._driver.abort(self._uuid, step.target)

    async def _record(self, step: Record) -> None:
        if step.flush is not None:
            await self._driver.flush(self._uuid, step.target, step.flush)
        if step.why is RecordWhy.UNDONE and step.finished is not None:
            await self._really_undone(step.target, step.finished)
        self._journal = self._journal.with_disk(step.record)
        await self._write_journal()

    async def _really_undone(self, target: str, operation: Operation) -> None:
        """A call of an earlier process may still be under way in libvirtd. Writing the metadata takes the
        domain's job lock, so it comes back after that call; then the chain is looked at once more."""
        await self._write_journal()
        again = await observe(self._driver, self._uuid, identities=self._identities)
        facts = again.disks.get(target)
        if facts is not None and asks_qemu(operation, facts, Outcome.UNDONE):
            again = await with_opened(self._driver, again, {target}, identities=self._identities)
            facts = again.disks[target]
        before = self._observation.disks[target]
        if facts is None or outcome(operation, facts) is not Outcome.UNDONE or facts.opened != before.opened:
            raise Stale(f"a {operation.kind} of {target} came through after all")

    async def _discard(self, step: Discard) -> Result:
        source = step.removal.layer.source
        found = await self._why_left(step)
        if not found.left:
            try:
                removal = await self._driver.remove_image(source)
                log.info("image removed", extra={"image": source.uri, "was": removal is Removal.REMOVED})
            except NotRemovable as error:
                found = Result(error.message, error.told)
            except (StillOpen, OperationFailed) as error:
                given_up = step.open_for_long if isinstance(error, StillOpen) else step.refused_for_long
                if not given_up:
                    raise
                found = Result(error.message, error.told)
        record = self._journal.disk(step.target)
        removals = [removal for removal in record.removals if removal.layer.key != source.key]
        if found.left:
            removals.append(replace(step.removal, owners=(), left=found.left))
        self._journal = self._journal.with_disk(replace(record, removals=tuple(removals)))
        await self._write_journal()
        return found

    async def _why_left(self, step: Discard) -> Result:
        """Why the image stays although nobody seems to need it; empty when it may go."""
        source = step.removal.layer.source
        try:
            await self._last.refuse_if_used(source)
        except Refused as error:
            if not step.open_for_long or error.why is not Why.IMAGE_PROTECTED:
                raise
            return Result(str(error), error.told)
        except NotRemovable as error:  # NotListable among them
            return Result(error.message, error.told)
        if not is_ours(source.leaf):
            return Result(NOT_OURS, NOT_OURS)  # whatever the record says
        empty = not step.removal.attempted or await self._last.is_empty(step.target, source)
        text = "" if empty else uncertain(step.removal.since)
        return Result(text, text)

    # Servers -------------------------------------------------------------------------------------------

    async def reach(self, step: Step) -> None:
        """Raise StorageUnreachable when a server does not answer for which QEMU would freeze the guest.

        Call it before :meth:`run`, and before anything is written: while a server is away, nothing is begun.
        QEMU waits for the I/O of all disks before it changes one (``bdrv_drain_all`` in its transactions and
        in block-commit), so the servers of the other disks count as well.
        """
        if isinstance(step, Discard):
            await self._driver.reach([step.removal.layer.source])
        elif isinstance(step, Take | StartMerge | Pivot) or (isinstance(step, Record) and step.flush):
            mine, beside = list[Source](), list[Source]()
            for facts in self._observation.disks.values():
                if facts.live is not None:
                    place = mine if facts.target in targets_of(step) else beside
                    place += [layer.source for layer in facts.live.layers]
            lent = {key for record in self._observation.journal.disks for key in record.lent}
            named = [source for source in mine if source.key in lent]
            mine = [source for source in mine if source.key not in lent]
            if isinstance(step, Take):
                for one in step.disks:
                    (named if one.operation.lent else mine).append(one.operation.kept.source)
            running = Running.of(self._observation)
            await self._driver.reach(mine, beside=beside, running=running)
            if named:
                await self._reach_named(named, running)

    async def _reach_named(self, named: list[Source], running: Running) -> None:
        """Places that an object names: how a server answers is told to nobody who could name any."""
        try:
            await self._driver.reach(named, running=running)
        except StorageUnreachable as error:
            names = ", ".join(sorted({source.uri for source in named}))
            raise StorageUnreachable(error.message, public=f"{names} cannot be reached") from error

    async def _spell_out(self, step: SpellOut) -> None:
        """What shortened the chain may have left the journal out as well: it is written first, and the chain
        stays short, and is seen to be, until both are there. The definition is read before the chain that
        goes into it: a merge that ends between them has changed the definition, which is then not replaced.
        """
        await self._write_journal()
        before = await self._driver.definition(self._uuid)
        disk = disk_of(await self._last.look_again(), step.target)
        if step.chain and disk.keys != self._seen(step.target):
            raise Stale(f"the chain of {step.target} has changed")
        try:
            after = (
                made_true(before, step.target, step.chain, end=disk.end, leaving=step.leaving)
                if step.chain
                else spelled_out(before, disk)
            )
        except NotThePrefix as error:
            raise Stale(str(error)) from error
        await self._driver.define(self._uuid, after, replacing=before)

    def _seen(self, target: str) -> tuple[str, ...]:
        live = self._observation.disks[target].live
        return () if live is None else live.keys

    # The journal ---------------------------------------------------------------------------------------

    def _begin(self, target: str, operation: Operation) -> None:
        record: DiskJournal = self._journal.disk(target)
        self._journal = self._journal.with_disk(replace(record, operation=operation))

    async def _write_journal(self) -> None:
        """Write to the live and the persistent definition. The mark of a QEMU process goes to the live one
        only: it must be gone when the machine is started anew."""
        live = self._observation.state is not RunState.SHUTOFF
        config = self._observation.persistent
        whole, lasting = self._encoded(self._journal), self._encoded(self._journal.lasting)
        if whole == lasting or not (live and config):
            kept = whole if live else lasting
            await self._driver.set_metadata(self._uuid, kept, live=live, config=config)
            return
        # The live one counts while the machine runs: killed in between, nothing has been begun that it lacks.
        await self._driver.set_metadata(self._uuid, whole, live=True, config=False)
        await self._driver.set_metadata(self._uuid, lasting, live=False, config=True)

    def _encoded(self, journal: Journal) -> str | None:
        return encode(journal, self._sealing, domain=self._uuid)


def _named(disk: Disk, layer: Layer) -> str:
    """How a call names the layer: by the index that QEMU gives it in the chain as it is now. The active layer
    of old or foreign XML has none, and no call names it."""
    position = disk.position(layer.key)
    if position is None:
        raise Stale(f"{layer.source.uri} is not in the chain of {disk.target}")
    index = disk.layers[position].index
    if index is None:
        raise HypervisorError(
            f"libvirt shows no index for {layer.source.uri} of {disk.target}; it is too old"
        )
    return f"{disk.target}[{index}]"
