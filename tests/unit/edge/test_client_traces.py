from __future__ import annotations

from typing import Any

import pytest

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.common.wire.requests import GetTrace, TraceReport
from services.common.wire.trace_context import format_traceparent
from services.edge.client_traces import REMEMBERED_MAX, ClientTraces, WishedTraces
from services.edge.decisions import User
from services.edge.ports import TracedSpan
from tests.helpers.spans import is_below, one, recorded

CONTEXT = bytes(range(1, 25))
ADA = User("u-ada", "ada", "s1", 0.0)
AT = 1_800_000_000_000_000


class Backend:
    async def own_message_trace(self, user: User, message_id: str) -> tuple[str, list[TracedSpan]]:
        span = TracedSpan(span_id="a", service="edge", instance="edge-1", name="x", start_us=0, duration_us=5)
        return ("t1", [span]) if user is ADA else ("", [])


class Caller:
    def __init__(self, user: User | None = ADA) -> None:
        self.user = user


class World:
    def __init__(self) -> None:
        self.wished = WishedTraces()
        self.traces = ClientTraces(self.wished, Backend())

    async def ask(self, request: Any, user: User | None = ADA) -> dict[str, Any]:
        caller: Any = Caller(user)
        command: Any = None
        answer = await self.traces.table[type(request)](caller, request, command)
        return answer.data

    async def report(self, context: bytes = CONTEXT, *, times: tuple[int, int, int] = (AT, AT + 10, AT + 15)) -> None:
        await self.ask(TraceReport(format_traceparent(context), *times))


async def test_what_a_client_has_measured_becomes_the_first_span_of_its_trace() -> None:
    world = World()
    world.wished.add(CONTEXT, "u-ada")
    with recorded() as spans:
        await world.report()
        await world.report()  # once is enough
    send = one(spans, "send")
    assert send.context is not None
    assert send.context.span_id.to_bytes(8, "big") == CONTEXT[16:]
    assert send.resource.attributes["service.name"] == "client"
    assert (send.start_time, send.end_time) == (AT * 1_000, (AT + 15) * 1_000)
    assert is_below(one(spans, "await acknowledgement"), send)
    assert is_below(one(spans, "await own message"), send)
    assert len({span.context.span_id for span in spans if span.context}) == len(spans) == 3


async def test_nobody_adds_to_a_trace_that_is_not_theirs() -> None:
    world = World()
    world.wished.add(CONTEXT, "u-eve")
    with recorded() as spans:
        await world.report()
        await world.report(bytes(range(2, 26)))
    assert not spans


@pytest.mark.parametrize("times", [(AT + 20, AT + 10, AT + 15), (AT, AT + 16, AT + 15), (0, AT, AT + 1)])
async def test_times_must_make_sense(times: tuple[int, int, int]) -> None:
    world = World()
    world.wished.add(CONTEXT, "u-ada")
    with recorded() as spans, pytest.raises(ParleyError) as caught:
        await world.report(times=times)
    assert caught.value.code is ErrorCode.BAD_REQUEST
    assert not spans


async def test_a_user_is_shown_what_metrics_says_is_theirs() -> None:
    world = World()
    data = await world.ask(GetTrace("r1-e-1"))
    assert (data["message_id"], data["trace_id"], len(data["spans"])) == ("r1-e-1", "t1", 1)
    with pytest.raises(ParleyError) as caught:
        await world.ask(GetTrace("r1-e-1"), None)
    assert caught.value.code is ErrorCode.NOT_AUTHENTICATED


def test_wishes_are_remembered_for_a_while() -> None:
    wished = WishedTraces()
    for number in range(REMEMBERED_MAX + 1):
        wished.add(number.to_bytes(24, "big"), "u")
    assert not wished.take((0).to_bytes(24, "big"), "u")
    assert not wished.take((1).to_bytes(24, "big"), "other")
    assert wished.take((1).to_bytes(24, "big"), "u")
    assert not wished.take((1).to_bytes(24, "big"), "u")
