"""What is traced although chance traces nothing: what is slow, what fails, and what is logged on the way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from parley.process.v1 import process_pb2, process_pb2_grpc

from client.admin.channels import ask_one, open_stack
from tests.e2e.test_admin import admin, done
from tests.helpers.operator import traceparent
from tests.helpers.people import People
from tests.helpers.stack import FAST_CONFIG, Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SLOW_S = 0.5
CONFIG = f"{FAST_CONFIG}[common]\ntrace_ratio = 0.0\ntrace_slow_s = {SLOW_S}\nmetrics_interval_s = 1.0\n"
ARRIVES_S = 60.0


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(config=CONFIG) as running:
        yield running


async def listed(stack: Stack, *arguments: str, is_there: Callable[[list[dict[str, Any]]], object]) -> None:
    """Waits until `parley admin` lists it: spans and records are on their way for a second or two."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(ARRIVES_S):
        while not is_there(found):
            found = await done(stack, *arguments)


async def test_what_is_slow_and_what_fails_is_traced(stack: Stack) -> None:
    async with AsyncExitStack() as exits:
        people = People(stack, exits)
        alice = await people.person()
        room_id = await people.room(alice)
        for number in range(20):
            await alice.say(room_id, f"as usual {number}")
        rooms = stack.pids()["rooms-1"]
        os.kill(rooms, signal.SIGSTOP)
        try:
            slow = asyncio.create_task(alice.say(room_id, "slow"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(slow), 2 * SLOW_S)
        finally:
            os.kill(rooms, signal.SIGCONT)
        await slow
        of_room = ("traces", "--room", room_id)
        await listed(
            stack, *of_room, "--slower-than", str(1_000 * SLOW_S),
            is_there=lambda found: any(one["name"] == "text_message" for one in found),
        )  # fmt: skip
        os.kill(rooms, signal.SIGSTOP)
        try:
            await alice.request("text_message", {"room_id": room_id, "text": "in vain"})
        finally:
            os.kill(rooms, signal.SIGCONT)
        await listed(stack, *of_room, "--errors", is_there=lambda found: any(one["is_error"] for one in found))
        # Nothing of what went as usual: chance had said no.
        assert len(await done(stack, *of_room)) < 10


async def test_a_line_of_the_log_says_to_which_trace_and_span_it_belongs(stack: Stack) -> None:
    context, trace_id, parent = traceparent()
    request = process_pb2.SetLogLevelRequest(log_level="info")

    def change() -> None:
        ask_one(
            open_stack(stack.home, "local"),
            "rooms",
            lambda channel: process_pb2_grpc.ProcessAdminServiceStub(channel).SetLogLevel(
                request, timeout=20, metadata=(("traceparent", context),)
            ),
        )

    await asyncio.to_thread(change)
    lines = [line for line in stack.log_events() if line.get("trace_id") == trace_id]
    assert [line["event"] for line in lines] == ["log level changed"]
    span_id = lines[0]["span_id"]
    assert span_id != parent
    # The same as an OTLP record, and the span itself.
    await listed(
        stack, "logs", "--trace", trace_id,
        is_there=lambda found: [(one["body"], one["span_id"]) for one in found] == [("log level changed", span_id)],
    )  # fmt: skip
    async with asyncio.timeout(ARRIVES_S):
        while (shown := await admin(stack, "--json", "trace", trace_id))[0] != 0:
            assert "There is no trace of" in shown[2]  # spans come by a way of their own
    spans = json.loads(shown[1])["spans"]
    assert [(one["span_id"], one["parent_span_id"]) for one in spans] == [(span_id, parent)]
