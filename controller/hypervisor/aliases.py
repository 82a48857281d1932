"""Targets of failing devices: libvirt's events of I/O errors give the alias, ours the target."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from controller.hypervisor.driver import IOFailed
from controller.hypervisor.errors import HypervisorError
from controller.hypervisor.events import DeviceFailed


class Aliases:
    """Finds each alias once and hands the error on with its target. Use from one event loop."""

    def __init__(
        self, find: Callable[[str, str], Awaitable[str]], tell: Callable[[IOFailed], object]
    ) -> None:
        """``find`` gives the target of a domain's (UUID) alias, empty if it has none."""
        self._find = find
        self._tell = tell
        self._known: dict[tuple[str, str], str] = {}
        self._finding: dict[tuple[str, str], asyncio.Task[None]] = {}

    def failed(self, event: DeviceFailed) -> None:
        """Tell it, now or when the target is found."""
        key = (event.uuid, event.alias)
        if key in self._known:
            self._tell(IOFailed(event.uuid, self._known[key], event.reason))
        elif key not in self._finding:  # a failing disk reports thousands of errors a second
            self._finding[key] = asyncio.get_running_loop().create_task(self._resolve(event))

    def forget(self, uuid: str) -> None:
        """The domain has other devices than before: an alias may be another one's by now."""
        self._known = {key: target for key, target in self._known.items() if key[0] != uuid}

    def close(self) -> None:
        """Find nothing more."""
        for task in self._finding.values():
            task.cancel()

    async def _resolve(self, event: DeviceFailed) -> None:
        """Find the target, then tell. A guess is not made: unknown stays empty."""
        key = (event.uuid, event.alias)
        try:
            target = await self._find(event.uuid, event.alias)
            if target:
                self._known[key] = target
        except HypervisorError:
            target = ""
        finally:
            del self._finding[key]
        self._tell(IOFailed(event.uuid, target, event.reason))
