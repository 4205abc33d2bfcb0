"""Revocations: who is told, in which order, and what bounds the memory."""

from __future__ import annotations

import asyncio

from services.auth.revocations import (
    MESSAGE_MAX,
    STREAMS_PER_EDGE_MAX,
    WAITING_MAX,
    EdgeBoot,
    EndedSession,
    EndReason,
    Revocation,
    Revocations,
)

EDGE = EdgeBoot("edge-1", "boot-a")
REBORN = EdgeBoot("edge-1", "boot-b")


def ended(count: int, edge: EdgeBoot = EDGE) -> list[EndedSession]:
    return [EndedSession(f"s{n}", edge) for n in range(count)]


async def test_only_the_boot_that_holds_a_session_is_told() -> None:
    revocations = Revocations()
    own, other = revocations.subscribe(EDGE), revocations.subscribe(REBORN)
    revocations.publish([*ended(2), *ended(1, REBORN)], EndReason.REPLACED)
    assert await own.read() == [Revocation("s0", EndReason.REPLACED), Revocation("s1", EndReason.REPLACED)]
    assert await other.read() == [Revocation("s0", EndReason.REPLACED)]


async def test_a_reader_that_waits_is_woken() -> None:
    revocations = Revocations()
    subscription = revocations.subscribe(EDGE)
    reading = asyncio.create_task(subscription.read())
    await asyncio.sleep(0)
    assert not reading.done()
    revocations.publish(ended(1), EndReason.REVOKED)
    assert await reading == [Revocation("s0", EndReason.REVOKED)]


async def test_every_stream_of_a_boot_is_told() -> None:
    revocations = Revocations()
    streams = [revocations.subscribe(EDGE) for _ in range(STREAMS_PER_EDGE_MAX)]
    revocations.publish(ended(1), EndReason.REVOKED)
    assert all([await stream.read() for stream in streams])


async def test_one_stream_too_many_ends_the_oldest() -> None:
    revocations = Revocations()
    streams = [revocations.subscribe(EDGE) for _ in range(STREAMS_PER_EDGE_MAX + 1)]
    assert await streams[0].read() == []
    revocations.publish(ended(1), EndReason.REVOKED)
    assert await streams[-1].read() == [Revocation("s0", EndReason.REVOKED)]
    revocations.unsubscribe(EDGE, streams[0])  # it was forgotten before


async def test_a_stream_that_falls_behind_ends_and_takes_no_memory() -> None:
    revocations = Revocations()
    subscription = revocations.subscribe(EDGE)
    revocations.publish(ended(WAITING_MAX), EndReason.REVOKED)
    revocations.publish(ended(1), EndReason.REVOKED)
    revocations.publish(ended(1), EndReason.REVOKED)
    assert await subscription.read() == []


async def test_long_queues_are_read_in_parts_and_in_order() -> None:
    revocations = Revocations()
    subscription = revocations.subscribe(EDGE)
    revocations.publish(ended(MESSAGE_MAX + 1), EndReason.REVOKED)
    first, second = await subscription.read(), await subscription.read()
    assert [one.session_id for one in first + second] == [f"s{n}" for n in range(MESSAGE_MAX + 1)]
    assert len(first) == MESSAGE_MAX


async def test_closing_ends_streams_after_what_is_queued() -> None:
    revocations = Revocations()
    subscription, waiting = revocations.subscribe(EDGE), revocations.subscribe(REBORN)
    reading = asyncio.create_task(waiting.read())
    await asyncio.sleep(0)
    revocations.publish(ended(1), EndReason.REVOKED)
    revocations.close()
    assert await reading == []
    assert len(await subscription.read()) == 1
    assert await subscription.read() == []
    assert await revocations.subscribe(EDGE).read() == []


async def test_what_is_unsubscribed_is_forgotten() -> None:
    revocations = Revocations()
    subscription = revocations.subscribe(EDGE)
    revocations.unsubscribe(EDGE, subscription)
    revocations.unsubscribe(EDGE, subscription)
    revocations.publish(ended(1), EndReason.REVOKED)
    assert not revocations._subscriptions
