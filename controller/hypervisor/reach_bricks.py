"""Where the bricks of a gluster volume are, asked of the daemons that know it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from controller.chain.source import DEFAULT_PORTS
from controller.hypervisor.reach_gluster import (
    HEAD,
    Brick,
    Needs,
    NotUnderstood,
    port_of,
    port_question,
    size_of,
    volume_of,
    volume_question,
)

_DAEMON_PORT = DEFAULT_PORTS["gluster"]


@dataclass(frozen=True)
class Volume:
    """What a volume needs, and on which port of its host each brick serves: 0 when it does not run, None when
    its host's daemon did not tell."""

    needs: Needs
    ports: dict[Brick, int | None]


async def volume_at(host: str, port: str, name: str) -> Volume:
    """Ask the daemon on ``host`` for the volume, and those of the bricks' hosts for their ports.

    Raises NotUnderstood, OSError, or ValueError when no daemon of gluster describes it; bound it in time.
    """
    [reply] = await _asked(host, port, [volume_question(name)])
    needs = volume_of(reply)
    by_host: dict[str, list[Brick]] = defaultdict(list)
    for brick in needs.bricks:
        by_host[brick.host].append(brick)
    found = await asyncio.gather(
        *(_ports(one, port if one == host else _DAEMON_PORT, bricks) for one, bricks in by_host.items())
    )
    return Volume(needs, {brick: port for ports in found for brick, port in ports.items()})


async def _ports(host: str, port: str, bricks: list[Brick]) -> dict[Brick, int | None]:
    try:
        replies = await _asked(host, port, [port_question(brick) for brick in bricks])
        return {brick: port_of(reply) for brick, reply in zip(bricks, replies, strict=True)}
    except (NotUnderstood, OSError, ValueError):
        return dict.fromkeys(bricks)


async def _asked(host: str, port: str, questions: list[bytes]) -> list[bytes]:
    """The replies, one after the other, over one connection."""
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        replies = []
        for question in questions:
            writer.write(question)
            replies.append(await reader.readexactly(size_of(await reader.readexactly(HEAD))))
    except asyncio.IncompleteReadError:
        raise NotUnderstood from None
    else:
        return replies
    finally:
        writer.close()
