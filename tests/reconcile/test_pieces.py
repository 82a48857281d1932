"""Long work lets others have their turn."""

import asyncio

from controller.reconcile.pieces import PIECE_SECONDS, in_pieces


async def test_others_have_a_turn_after_each_piece() -> None:
    turns, done, seen = 0, False, list[int]()

    async def other() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await asyncio.sleep(0)
    async for item in in_pieces(range(100), clock=lambda: len(seen) * PIECE_SECONDS / 4):
        seen.append(item)
    done = True
    await beside
    assert seen == list(range(100))
    assert turns >= 20
