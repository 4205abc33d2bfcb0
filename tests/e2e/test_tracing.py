"""The way of a message through a real stack of two edges, seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from parley.edge.v1 import edge_pb2
from parley.metrics.v1 import metrics_pb2

from tests.helpers.operator import KEPT_S, Operator, traceparent
from tests.helpers.people import People, fresh
from tests.helpers.stack import FAST_CONFIG, ROOT, Stack, parley, running_stack

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from parley.metrics.v1.metrics_pb2 import Span

SHOWN = {"span_id", "parent_id", "service", "instance", "name", "start_us", "duration_us", "error"}
# Nothing by chance, and nothing because the machine is busy: what is traced here was asked for.
QUIET = FAST_CONFIG + "[common]\ntrace_ratio = 0.0\ntrace_slow_s = 600.0\n"
ROWS = (
    "client +send",
    "edge-1 +text_message",
    "rooms-1 +store",
    "rooms-1 +commit",
    "edge-1 +deliver",
    "edge-2 +deliver",
)
DRAWN_S = 5.0
"""The client asks for no longer than this, and draws what there is then."""


@pytest.fixture(scope="module")
def two_edges() -> Iterator[Stack]:
    with running_stack(edges=2, config=QUIET) as running:
        yield running


@pytest.fixture
async def crowd(two_edges: Stack) -> AsyncIterator[People]:
    async with AsyncExitStack() as exits:
        yield People(two_edges, exits)


def names(spans: list[Span]) -> set[tuple[str, str]]:
    return {(span.instance, span.name) for span in spans}


async def test_one_message_is_one_trace_from_edge_to_edge(two_edges: Stack, crowd: People) -> None:
    operator = Operator(two_edges)
    alice, bob = await crowd.person(edge=1), await crowd.person(edge=2)
    room_id = await crowd.room(alice, bob)
    context, trace_id, span_id = traceparent()
    sent = await alice.expect("text_message", {"text": "traced"}, room_id=room_id, traceparent=context)
    [message] = await bob.messages(room_id, 1)
    assert message["seq"] == sent["seq"]
    expected = {
        ("edge-1", "text_message"), ("edge-1", "queue"), ("edge-1", "publish batch"), ("rooms-1", "store"),
        ("rooms-1", "commit"), ("edge-1", "deliver"), ("edge-2", "deliver"),
    }  # fmt: skip
    message_id = f"{room_id}-{sent['epoch']}-{sent['seq']}"
    trace = await operator.trace_of(message_id, lambda spans: names(spans) >= expected)
    assert trace.trace_id == trace_id
    assert names(list(trace.spans)) == expected
    by_id = {span.span_id: span for span in trace.spans}
    parents = {
        (span.instance, span.name): by_id[span.parent_span_id].name
        for span in trace.spans
        if span.parent_span_id in by_id
    }
    assert parents == {
        ("edge-1", "queue"): "text_message",
        ("edge-1", "publish batch"): "text_message",
        ("rooms-1", "store"): "publish batch",
        ("rooms-1", "commit"): "store",
        ("edge-1", "deliver"): "store",
        ("edge-2", "deliver"): "store",
    }
    [entry] = [span for span in trace.spans if span.name == "text_message"]
    assert entry.parent_span_id == span_id
    assert entry.kind == "server"
    assert entry.attributes["parley.message.id"] == message_id
    assert all(span.start_ns <= span.end_ns for span in trace.spans)
    assert not any(span.is_error for span in trace.spans)


async def test_people_see_where_the_time_of_their_own_messages_went(two_edges: Stack, crowd: People) -> None:
    alice, bob = await crowd.person(), await crowd.person()
    room_id = await crowd.room(alice, bob)
    context, trace_id, _ = traceparent()
    sent = await alice.expect("text_message", {"text": "traced"}, room_id=room_id, traceparent=context)
    now_us = time.time_ns() // 1_000
    report = {
        "traceparent": context,
        "sent_at_us": now_us - 9_000,
        "acknowledged_at_us": now_us - 2_000,
        "shown_at_us": now_us,
    }
    assert await bob.expect("trace_report", report) == {}  # it is not his to tell
    assert await alice.expect("trace_report", report) == {}
    message_id = f"{room_id}-{sent['epoch']}-{sent['seq']}"
    async with asyncio.timeout(KEPT_S):
        while True:
            shown = await alice.expect("trace", {"message_id": message_id})
            if {"client", "edge", "rooms"} <= {span["service"] for span in shown["spans"]}:
                break
            await asyncio.sleep(0.2)
    assert shown["trace_id"] == trace_id
    assert [span["name"] for span in shown["spans"] if span["service"] == "client"].count("send") == 1
    assert all(set(span) <= SHOWN for span in shown["spans"])
    theirs = await bob.expect("trace", {"message_id": message_id})
    assert (theirs["spans"], theirs["trace_id"]) == ([], "")
    assert await alice.refused("trace", {"message_id": "nonsense"}) == "bad_request"
    assert await alice.refused("trace_report", {**report, "sent_at_us": -1}) == "bad_request"


async def test_the_client_and_the_operator_s_command_draw_it(two_edges: Stack, crowd: People, tmp_path: Path) -> None:
    """All of a message's way in one trace: the client, its edge, rooms, the commit, and both edges that deliver it."""
    room_id = await crowd.room(await crowd.person(edge=2))
    command = parley("chat", f"localhost:{two_edges.port}", "--home", str(two_edges.home), "--plain")
    chat = await start(command, home=tmp_path)
    assert chat.stdin is not None
    chat.stdin.write(f"/register {fresh()} correct-horse-battery\n/join {room_id}\nhello\n".encode())
    said = await drawn_by(chat)
    (message_id,) = set(re.findall(r"Where the time of (\S+) went:", said))
    await end(chat, b"/quit\n")
    admin = await start(parley("admin", "--home", str(two_edges.home), "trace", message_id), home=tmp_path)
    drawn = await end(admin)
    assert not missing(drawn), drawn


def missing(shown: str) -> list[str]:
    """The rows of a message's way that are not drawn there."""
    return [row for row in ROWS if not re.search(rf"{row} .*[▏▎▍▌▋▊▉█] .* ms", shown)]


async def start(command: list[str], *, home: Path) -> Process:
    return await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**os.environ, "HOME": str(home), "COLUMNS": "100"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def drawn_by(chat: Process) -> str:
    """What the chat says to /trace until all rows are drawn: the client may be content before the second edge has told
    what it has to tell."""
    assert chat.stdin is not None
    assert chat.stdout is not None
    said = b""
    async with asyncio.timeout(KEPT_S):
        while missing(said.decode(errors="ignore")):
            chat.stdin.write(b"/trace\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAWN_S):
                    while missing(said.decode(errors="ignore")):
                        said += (more := await chat.stdout.read(65_536))
                        assert more, said
    return said.decode(errors="ignore")


async def end(process: Process, last: bytes = b"") -> str:
    """Waits for the end of a program, and returns what it has said."""
    async with asyncio.timeout(60):
        said, _ = await process.communicate(last)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_malformed_or_unsampled_contexts_cost_nothing_but_the_trace(two_edges: Stack, crowd: People) -> None:
    operator = Operator(two_edges)
    alice = await crowd.person()
    room_id = await crowd.room(alice)
    before = (await operator.edge("GetTracing", edge_pb2.GetTracingRequest())).tracing.started
    good, _, _ = traceparent()
    for bad in (good[:-2] + "00", good[:-1], "ff" + good[2:], "", 5, None, {}, "00-" + "0" * 32 + good[35:], "x" * 600):
        await alice.expect("text_message", {"text": "still stored"}, room_id=room_id, traceparent=bad)
    assert (await operator.edge("GetTracing", edge_pb2.GetTracingRequest())).tracing.started == before


async def test_an_operator_traces_a_room_or_a_user_for_a_while(two_edges: Stack, crowd: People) -> None:
    operator = Operator(two_edges)
    alice, bob = await crowd.person(), await crowd.person()
    room_id, other = await crowd.room(alice, bob), await crowd.room(bob, alice)
    begun = await operator.edge("StartTracing", edge_pb2.StartTracingRequest(room_id=room_id, duration_s=60))
    assert [target.room_id for target in begun.tracing.targets] == [room_id]
    sent = await bob.say(room_id, "in the room")
    await bob.say(other, "elsewhere")
    trace = await operator.trace_of(f"{room_id}-{sent['epoch']}-{sent['seq']}", lambda spans: len(spans) >= 6)
    ended = await operator.edge("StopTracing", edge_pb2.StopTracingRequest(room_id=room_id))
    assert not ended.tracing.targets
    listed = await operator.metrics("ListTraces", metrics_pb2.ListTracesRequest(room_id=room_id))
    assert trace.trace_id in [one.trace_id for one in listed.traces]
    assert not (await operator.metrics("ListTraces", metrics_pb2.ListTracesRequest(room_id=other))).traces

    await operator.edge("StartTracing", edge_pb2.StartTracingRequest(username=alice.username))
    sent = await alice.say(other, "by the user")
    await operator.trace_of(f"{other}-{sent['epoch']}-{sent['seq']}", lambda spans: len(spans) >= 6)
    await operator.edge("StopTracing", edge_pb2.StopTracingRequest(username=alice.username))
