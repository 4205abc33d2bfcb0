"""The bus between instances: whatever is lost on the way, those who missed it learn that they did."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import msgspec
import pytest
from structlog.testing import capture_logs

from services.rooms.bus import Lost, MembershipEnded, PresenceTold, Reached
from services.rooms.messages import Message, Run
from services.rooms.presence import Session
from services.rooms.presence_news import Announced, Closed
from services.rooms.shared_bus import (
    BATCH_BYTES_MAX,
    BATCH_INTERVAL_S,
    MESSAGE_BYTES_MAX,
    QUEUE_BYTES_MAX,
    ROOMS_MAX,
    SENDERS_MAX,
    Batch,
)
from tests.helpers.bus_net import Net, memory_net

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    """Two instances that hear each other."""
    async with memory_net() as made:
        for _ in range(2):
            made.bus()
        for events in made.heard:
            assert events == [Lost()]
            events.clear()
        yield made


def run(seq: int, room_id: str = "room") -> Run:
    return Run(room_id, "epoch", [Message(seq, "u1", "alice", "text", 1)])


def closed(number: int) -> PresenceTold:
    return PresenceTold(Closed([f"session-{number}"]))


async def settle(net: Net) -> None:
    """Everything that waits has been sent or dropped."""
    await net.until(lambda: not any(bus._something_waits.is_set() for bus in net.buses))


async def test_a_batch_is_what_has_gathered(net: Net) -> None:
    here = net.buses[0]
    here.send(closed(0))
    await net.until(lambda: net.heard[1])
    for number in range(1, 100):
        here.send(closed(number))
        here.publish(run(number))
    await net.until(lambda: len(net.heard[1]) == 101)
    assert len(net.transports[0].messages) == 2


async def test_batches_go_at_intervals(net: Net) -> None:
    here, clock = net.buses[0], net.clock
    sent = net.transports[0].messages
    here.send(closed(1))
    await clock.advance(0)  # type: ignore[attr-defined]
    assert len(sent) == 1  # the first one at once
    here.send(closed(2))
    await clock.advance(0)  # type: ignore[attr-defined]
    assert len(sent) == 1
    await clock.advance(BATCH_INTERVAL_S)  # type: ignore[attr-defined]
    assert len(sent) == 2


@pytest.mark.parametrize("how", ["refused", "swallowed"])
async def test_a_batch_that_was_lost_is_noticed_by_the_next(net: Net, how: str) -> None:
    here, transport = net.buses[0], net.transports[0]
    here.send(closed(1))
    await settle(net)
    transport.is_up, transport.swallows = how != "refused", how == "swallowed"
    here.send(closed(2))
    here.publish(run(1))
    await settle(net)
    transport.is_up, transport.swallows = True, False
    assert net.heard[1] == [closed(1)]
    here.send(closed(3))
    await settle(net)
    assert net.heard[1] == [closed(1), Lost(), closed(3)]


async def test_whatever_happens_nothing_is_missed_without_a_word(net: Net) -> None:
    dice, here, transport = random.Random(7), net.buses[0], net.transports[0]
    for number in range(500):
        transport.is_up = dice.random() < 0.7
        transport.swallows = dice.random() < 0.2
        here.send(closed(number))
        if dice.random() < 0.5:
            await settle(net)
    transport.is_up, transport.swallows = True, False
    here.send(closed(500))
    await settle(net)
    expected = 0
    for event in net.heard[1]:
        if event == Lost():
            expected = -1
            continue
        assert isinstance(event, PresenceTold)
        assert isinstance(event.news, Closed)
        number = int(event.news.session_ids[0].removeprefix("session-"))
        assert expected in (-1, number)
        expected = number + 1
    assert expected == 501


async def test_writers_never_wait_and_what_waits_is_bounded(net: Net) -> None:
    here, transport = net.buses[0], net.transports[0]
    transport.blocked = asyncio.Event()
    here.send(closed(0))
    await net.clock.advance(0)  # type: ignore[attr-defined]
    sessions = [(Session(f"s{n}", f"u{n}", "name", "boot"), ["room"]) for n in range(2_000)]
    big = PresenceTold(Announced("boot", "edge", sessions))
    for _ in range(300):
        here.send(big)
        assert here._queued_bytes <= QUEUE_BYTES_MAX
    for number in range(2 * ROOMS_MAX + 10):
        here.publish(run(1, f"room-{number}"))
        assert len(here._reached) <= ROOMS_MAX
    assert here._counts.dropped.value > 100
    transport.blocked.set()
    here.send(closed(1))
    await settle(net)
    assert net.heard[1][0] == closed(0)
    assert Lost() in net.heard[1]
    assert net.heard[1][-1] == closed(1)
    assert all(len(message) < BATCH_BYTES_MAX * 4 for message in transport.messages)
    assert here._queued_bytes == 0


def test_no_batch_is_longer_than_what_is_read() -> None:
    assert QUEUE_BYTES_MAX < MESSAGE_BYTES_MAX


async def test_a_batch_that_comes_late_is_not_heard(net: Net) -> None:
    """A command to Redis that was given up may be carried out when a frozen server goes on."""
    here, messages = net.buses[0], net.transports[0].messages
    for number in range(3):
        here.send(closed(number))
        await settle(net)
    net.heard[1].clear()
    hear = net.transports[1].hear
    hear(messages[1])
    hear(messages[2])
    assert net.heard[1] == []


async def test_a_restarted_instance_begins_anew(net: Net) -> None:
    net.buses[0].send(closed(1))
    await settle(net)
    net.bus()
    net.buses[2].send(closed(2))
    await settle(net)
    assert net.heard[1] == [closed(1), closed(2)]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"x" * 100,
        b"\x91" * 100_000,
        msgspec.msgpack.encode(["sender", 1, [], [["unknown", 1]]]),
        msgspec.msgpack.encode(["sender", 1, [["room", "epoch", "7"]], []]),
        msgspec.msgpack.encode(["sender", 1, [], [["ended", "room"]]]),
        msgspec.msgpack.encode(["sender", 1, [], [["closed", ["\ud800".encode("utf-8", "surrogatepass")]]]]),
        b"\x00" * (MESSAGE_BYTES_MAX + 1),
    ],
)
async def test_what_cannot_be_read_is_a_loss(net: Net, message: bytes) -> None:
    with capture_logs() as logs:
        net.transports[1].hear(message)
    assert net.heard[1] == [Lost()]
    assert len(logs) == 1
    net.buses[0].send(closed(1))
    await settle(net)
    assert net.heard[1] == [Lost(), closed(1)]


async def test_the_instances_that_are_known_are_bounded(net: Net) -> None:
    hear = net.transports[1].hear
    for number in range(3 * SENDERS_MAX):
        hear(msgspec.msgpack.encode(Batch(f"s{number}", 1, [("room", "epoch", number)], [])))
    assert len(net.buses[1]._heard) == SENDERS_MAX
    assert Reached("room", "epoch", 3 * SENDERS_MAX - 1) in net.heard[1]


async def test_an_ended_membership_keeps_its_place_among_news(net: Net) -> None:
    here = net.buses[0]
    ended = MembershipEnded("room", "u1", 7, number=3)
    for event in (closed(1), ended, closed(2)):
        here.publish(event) if isinstance(event, MembershipEnded) else here.send(event)
    await settle(net)
    assert net.heard[1] == [closed(1), ended, closed(2)]
