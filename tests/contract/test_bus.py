"""What every bus must do: carry events in order to everyone who listens, without waiting and without raising.

The same assertions for the bus of one instance and for those between instances, in memory and over Redis; and what only
the latter do, which is to tell other instances, or to let them know that they missed something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.rooms.bus import Bus, Event, LocalBus, Lost, MembershipEnded, PresenceChanged, PresenceTold, Reached
from services.rooms.messages import Message, Run
from services.rooms.presence import Action, Change, Session
from services.rooms.presence_news import Announced, Asked, Attached, Closed, Entered, Opened
from tests.helpers.bus_net import Net, memory_net, redis_net
from tests.helpers.redis_server import be_patient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from services.rooms.bus import Listener


@pytest.fixture(params=["memory", "redis"])
async def net(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Net]:
    if request.param == "memory":
        async with memory_net() as made:
            yield made
    else:
        be_patient(monkeypatch)
        async with redis_net(request.getfixturevalue("redis_url")) as made:
            yield made


@pytest.fixture(params=["local", "memory", "redis"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "local":
        yield LocalBus()
    elif request.param == "memory":
        async with memory_net() as made:
            yield made.bus()
    else:
        async with redis_net(request.getfixturevalue("redis_url")) as made:
            yield made.bus()


@pytest.fixture
async def two(net: Net) -> Net:
    """Two instances that hear each other."""
    for _ in range(2):
        net.bus()
    await net.are_up()
    await net.until(lambda: all(net.heard))
    for events in net.heard:
        events.clear()
    return net


def run(seq: int) -> Run:
    return Run("room", "epoch", [Message(seq, "u1", "alice", f"text {seq}", 1)])


EVENTS: list[Event] = [
    run(1),
    PresenceChanged([Change("room", Action.ONLINE, "alice", 1)]),
    MembershipEnded("room", "u1", 1, except_boot_id="boot-1"),
    run(2),
]


async def test_everyone_gets_everything_in_order(bus: Bus) -> None:
    first: list[Event] = []
    second: list[Event] = []
    bus.subscribe(first.append)
    bus.subscribe(second.append)
    for event in EVENTS:
        bus.publish(event) if isinstance(event, Run | MembershipEnded) else bus.deliver(event)
    assert first == EVENTS
    assert second == EVENTS


async def test_who_comes_later_gets_what_is_new(bus: Bus) -> None:
    heard: list[Event] = []
    bus.publish(run(1))
    bus.subscribe(heard.append)
    bus.publish(run(2))
    assert heard == [run(2)]


async def test_who_has_gone_gets_nothing(bus: Bus) -> None:
    heard: list[Event] = []
    unsubscribe = bus.subscribe(heard.append)
    unsubscribe()
    unsubscribe()
    bus.publish(run(1))
    assert heard == []


async def test_an_event_that_a_listener_publishes_comes_after_the_one_that_it_heard(bus: Bus) -> None:
    heard: list[Event] = []

    def echo(event: Event) -> None:
        if event == run(1):
            bus.publish(run(2))

    bus.subscribe(echo)
    bus.subscribe(heard.append)
    bus.publish(run(1))
    assert heard == [run(1), run(2)]


async def test_a_listener_that_fails_disturbs_nobody(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []
    broken: Listener = lambda _event: 1 / 0  # type: ignore[assignment,return-value] # noqa: E731
    bus.subscribe(broken)
    bus.subscribe(heard.append)
    bus.publish(run(1))
    bus.publish(run(2))
    assert heard == [run(1), run(2)]


async def test_a_listener_may_leave_while_it_hears(bus: Bus) -> None:
    heard: list[Event] = []

    def once(event: Event) -> None:
        heard.append(event)
        unsubscribe()

    unsubscribe = bus.subscribe(once)
    bus.publish(run(1))
    bus.publish(run(2))
    assert heard == [run(1)]


ALICE = Session("session-1", "u1", "alice", "boot-1")
NEWS = [
    Attached([("boot-1", "edge-1")]),
    Opened(ALICE, ["room", "other"]),
    Entered(ALICE, "room", is_exclusive=True, is_newcomer=False),
    Asked(["boot-1", "boot-2"]),
    Announced("boot-1", "edge-1", [(ALICE, ["room"])]),
    Closed(["session-1"]),
]


async def test_others_hear_what_happens_here_and_the_publisher_hears_it_once(two: Net) -> None:
    here, _ = two.buses
    ended = MembershipEnded("room", "u1", 7, except_boot_id="boot-1", username="älice", number=3)
    here.publish(run(1))
    here.publish(ended)
    for news in NEWS:
        here.send(PresenceTold(news))
    told = [PresenceTold(news) for news in NEWS]
    await two.until(lambda: len(two.heard[1]) >= len(NEWS) + 2)
    assert two.heard[1] == [Reached("room", "epoch", 1), ended, *told]
    assert two.heard[0] == [run(1), ended]


async def test_what_is_delivered_here_is_heard_here_only(two: Net) -> None:
    here, _ = two.buses
    here.deliver(PresenceChanged([Change("room", Action.ONLINE, "alice", 1)]))
    here.publish(run(1))
    await two.until(lambda: two.heard[1])
    assert two.heard[1] == [Reached("room", "epoch", 1)]
    assert len(two.heard[0]) == 2


async def test_news_keep_their_order_through_many_batches(two: Net) -> None:
    here, there = two.buses
    for number in range(2_000):
        here.send(PresenceTold(Closed([f"session-{number}"])))
        if number % 100 == 0:
            there.send(PresenceTold(Closed([f"other-{number}"])))
            await two.until(lambda: True)
    await two.until(lambda: len(two.heard[1]) == 2_000 and len(two.heard[0]) == 20)
    assert two.heard[1] == [PresenceTold(Closed([f"session-{number}"])) for number in range(2_000)]


async def test_positions_are_told_at_least_in_the_end(two: Net) -> None:
    here, _ = two.buses
    for seq in range(1, 1_001):
        here.publish(run(seq))
        if seq % 200 == 0:
            await two.until(lambda: two.heard[1])
    await two.until(lambda: two.heard[1][-1:] == [Reached("room", "epoch", 1_000)])
    seqs = [event.last_seq for event in two.heard[1] if isinstance(event, Reached)]
    assert seqs == sorted(seqs)
    assert len(two.heard[0]) == 1_000


async def test_who_comes_later_is_told_that_something_was_missed(two: Net) -> None:
    two.buses[0].publish(run(1))
    await two.until(lambda: two.heard[1])
    two.bus()
    await two.are_up()
    await two.until(lambda: two.heard[2])
    assert two.heard[2] == [Lost()]
    two.heard[2].clear()
    two.buses[0].publish(run(2))
    await two.until(lambda: len(two.heard[2]) == 2)
    assert set(two.heard[2]) == {Lost(), Reached("room", "epoch", 2)}  # it cannot know what the first batch was
