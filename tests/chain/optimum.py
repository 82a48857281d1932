"""The fewest bytes that any legal sequence of libvirt jobs copies: exhaustive search, for small chains.

A state is the sizes of the layers, active first, and for each boundary whether it has to go. A job merges
adjacent layers whose boundaries all have to go, and copies every layer but the one it keeps:

- a commit into the lowest, of any range below the active layer, or of one that reaches it (with a pivot);
- a pull of any range that starts right below the active layer, into the active layer.

libvirt cannot pull into an intermediate layer. Sizes add up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Stack:
    """Layers with their sizes (bytes), boundaries that have to go, and layers that must not change.

    ``boundaries[i]`` is the one between ``sizes[i]`` and ``sizes[i + 1]``; ``fixed[i]`` says that layer i is
    read by somebody else, and so is every layer below it: no commit may write to it.
    """

    sizes: tuple[int, ...]
    boundaries: tuple[bool, ...]
    fixed: tuple[bool, ...]

    def jobs(self) -> Iterator[tuple[int, Stack]]:
        """Every legal job: the bytes that it copies, and the stack afterwards."""
        for top in range(len(self.sizes)):
            for bottom in range(top + 1, len(self.sizes)):
                if not all(self.boundaries[top:bottom]):
                    break
                whole = sum(self.sizes[top : bottom + 1])
                if not any(self.fixed[top : bottom + 1]):
                    yield whole - self.sizes[bottom], self._merged(top, bottom, bottom)
                if top == 0:
                    yield whole - self.sizes[0], self._merged(top, bottom, 0)

    def _merged(self, top: int, bottom: int, kept: int) -> Stack:
        return Stack(
            (*self.sizes[:top], sum(self.sizes[top : bottom + 1]), *self.sizes[bottom + 1 :]),
            (*self.boundaries[:top], *self.boundaries[bottom:]),
            (*self.fixed[:top], self.fixed[kept], *self.fixed[bottom + 1 :]),
        )


@cache
def fewest_bytes(stack: Stack) -> int | None:
    """The optimum; None when no sequence of jobs removes every boundary that has to go."""
    if not any(stack.boundaries):
        return 0
    found = [copied + rest for copied, after in stack.jobs() if (rest := fewest_bytes(after)) is not None]
    return min(found, default=None)
