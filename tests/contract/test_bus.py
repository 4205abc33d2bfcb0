"""What every bus must do: carry events in order to everyone who listens, without waiting and without raising."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from services.rooms.bus import Bus, Event, LocalBus, MembershipEnded, PresenceChanged
from services.rooms.messages import Message, Run
from services.rooms.presence import Action, Change

if TYPE_CHECKING:
    from services.rooms.bus import Listener

MakeBus = Callable[[], Bus]


@pytest.fixture(params=["local"])
def bus(request: pytest.FixtureRequest) -> Bus:
    assert request.param == "local"
    return LocalBus()


def run(seq: int) -> Run:
    return Run("room", "epoch", [Message(seq, "u1", "alice", f"text {seq}", 1)])


EVENTS: list[Event] = [
    run(1),
    PresenceChanged([Change("room", Action.ONLINE, "alice", 1)]),
    MembershipEnded("room", "u1", 1, except_boot_id="boot-1"),
    run(2),
]


def test_everyone_gets_everything_in_order(bus: Bus) -> None:
    first: list[Event] = []
    second: list[Event] = []
    bus.subscribe(first.append)
    bus.subscribe(second.append)
    for event in EVENTS:
        bus.publish(event)
    assert first == EVENTS
    assert second == EVENTS


def test_who_comes_later_gets_what_is_new(bus: Bus) -> None:
    heard: list[Event] = []
    bus.publish(run(1))
    bus.subscribe(heard.append)
    bus.publish(run(2))
    assert heard == [run(2)]


def test_who_has_gone_gets_nothing(bus: Bus) -> None:
    heard: list[Event] = []
    unsubscribe = bus.subscribe(heard.append)
    unsubscribe()
    unsubscribe()
    bus.publish(run(1))
    assert heard == []


def test_an_event_that_a_listener_publishes_comes_after_the_one_that_it_heard(bus: Bus) -> None:
    heard: list[Event] = []

    def echo(event: Event) -> None:
        if event == run(1):
            bus.publish(run(2))

    bus.subscribe(echo)
    bus.subscribe(heard.append)
    bus.publish(run(1))
    assert heard == [run(1), run(2)]


def test_a_listener_that_fails_disturbs_nobody(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []
    broken: Listener = lambda _event: 1 / 0  # type: ignore[assignment,return-value] # noqa: E731
    bus.subscribe(broken)
    bus.subscribe(heard.append)
    bus.publish(run(1))
    bus.publish(run(2))
    assert heard == [run(1), run(2)]


def test_a_listener_may_leave_while_it_hears(bus: Bus) -> None:
    heard: list[Event] = []

    def once(event: Event) -> None:
        heard.append(event)
        unsubscribe()

    unsubscribe = bus.subscribe(once)
    bus.publish(run(1))
    bus.publish(run(2))
    assert heard == [run(1)]
