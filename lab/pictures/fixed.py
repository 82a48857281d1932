"""The same words in each run.

UIDs, the hashes made of them and the lab's directory are different each time, and would be all that changes
in a picture. They are replaced where the command line reads the cluster, so that everything behind that is
laid out as always; what is written gets the real words back. Sizes, states and messages are left as they are.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from controller.kube.client import ApiClient
from controller.kube.kinds import Kind, Raw


class FixedWords:
    """Real words and what stands for them, longest first."""

    def __init__(self) -> None:
        self._fixed: dict[str, str] = {}

    def add(self, real: str, fixed: str) -> None:
        """Let ``fixed`` stand for ``real`` from now on."""
        self._fixed[real] = fixed

    def fix(self, value: Any) -> Any:
        """A JSON value with fixed words."""
        return self._replaced(value, self._fixed)

    def real(self, value: Any) -> Any:
        """The same with the real ones."""
        return self._replaced(value, {fixed: real for real, fixed in self._fixed.items()})

    @staticmethod
    def _replaced(value: Any, words: dict[str, str]) -> Any:
        text = json.dumps(value)
        for word in sorted(words, key=len, reverse=True):
            text = text.replace(json.dumps(word)[1:-1], json.dumps(words[word])[1:-1])
        return json.loads(text)


class FixedClient:
    """The cluster, in fixed words."""

    def __init__(self, client: ApiClient, words: FixedWords) -> None:
        self._client = client
        self._words = words

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Raw | None:
        """See ApiClient."""
        found: Raw | None = self._words.fix(await self._client.get(kind, namespace, name))
        return found

    async def listing(self, kind: Kind, *, namespace: str | None = None) -> tuple[Sequence[Raw], str]:
        """See ApiClient."""
        found, version = await self._client.listing(kind, namespace=namespace)
        return self._words.fix(list(found)), version

    async def watch(self, kind: Kind, version: str, *, namespace: str | None = None) -> AsyncGenerator[Raw]:
        """See ApiClient."""
        async for event in self._client.watch(kind, version, namespace=namespace):
            yield self._words.fix(event)

    async def apply(self, kind: Kind, body: Raw, *, field_manager: str) -> Raw:
        """See ApiClient."""
        written: Raw = self._words.fix(
            await self._client.apply(kind, self._words.real(body), field_manager=field_manager)
        )
        return written
