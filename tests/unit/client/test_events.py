from __future__ import annotations

import pytest

from client.errors import EventsLostError
from client.events import WAITING_MAX, EventStream, NoticeReceived, State, StateChanged


async def test_events_come_in_order_and_end_with_the_session() -> None:
    stream = EventStream()
    stream.put(NoticeReceived("a"))
    stream.put(NoticeReceived("b"))
    stream.put(StateChanged(State.CLOSED))
    assert [event async for event in stream] == [NoticeReceived("a"), NoticeReceived("b")]
    assert [event async for event in stream] == []


async def test_a_reader_that_falls_too_far_behind_is_told() -> None:
    stream = EventStream()
    for number in range(WAITING_MAX + 5):
        stream.put(NoticeReceived(str(number)))
    read = [await anext(stream) for _ in range(WAITING_MAX)]
    assert read[-1] == NoticeReceived(str(WAITING_MAX - 1))
    with pytest.raises(EventsLostError):
        await anext(stream)
