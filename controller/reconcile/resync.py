"""The resync: look at everything once per period, whatever was or was not heard of."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from controller.kube.errors import KubeError
from controller.kube.kinds import HYPERVISOR, WATCHED, Kind, Raw, uid_of
from controller.reconcile.context import Context
from controller.reconcile.keys import ChainKey, HypervisorKey, Key, ObjectKey
from controller.reconcile.pieces import in_pieces
from controller.reconcile.queue import KeyedQueue

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resync:
    """Compares with a listing, and puts every key into the queue."""

    context: Context
    queue: KeyedQueue[Key]
    on_object: Callable[[Kind, str | None, Raw], None]
    hypervisors: Callable[[], Iterable[str]]
    seconds: float
    selector: str | None
    """Label selector of the Hypervisors."""

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(self.seconds * random.uniform(0.9, 1.1))  # noqa: S311 - spreading load
            try:
                await self._relist()
            except KubeError as error:
                log.warning("objects not listed", extra={"why": str(error)})
            self._spread()

    def _spread(self) -> None:
        """Put everything into the queue over half a period; the objects of one domain together, because each
        of them wakes it and one look serves them all."""
        store, turns = self.context.store, dict[Key, float]()
        keys: list[Key] = [*store.snapshots, *store.chains.chains, *map(HypervisorKey, self.hypervisors())]
        for key in keys:
            together: Key = key
            if isinstance(key, ObjectKey):
                together = store.bound(key) or key
            elif isinstance(key, ChainKey):
                together = store.chains.bound(key) or key
            turn = random.uniform(0, self.seconds / 2)  # noqa: S311 - spreading load
            self.queue.add_after(key, turns.setdefault(together, turn))

    async def _relist(self) -> None:
        """A deletion in a gap of a watch sends no event, ever."""
        for kind in WATCHED:
            known = self.context.store.known(kind)
            listed = await self.context.client.list(kind, self.selector if kind == HYPERVISOR else None)
            there = {uid_of(raw) for raw in listed}
            async for raw in in_pieces(listed):
                self.on_object(kind, None, raw)
            async for raw in in_pieces(known):
                if uid_of(raw) not in there:
                    self.on_object(kind, "DELETED", raw)
