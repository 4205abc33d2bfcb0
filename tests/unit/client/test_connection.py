"""Single connections: what a session's tests do not see."""

from __future__ import annotations

import asyncio

import pytest

from client.connection import Connection
from client.errors import ClientError, ConnectionLostError, ProtocolError, RequestError
from client.transport import MemoryTransport, memory_pair
from services.common.clock import FakeClock
from services.common.wire.envelope import ServerEnvelope, parse
from services.common.wire.events import Encoder
from services.common.wire.frames import FrameDecoder, encode_chunk


class Line:
    """A connection, and the server's end of it in the test's hands."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events: asyncio.Queue[ServerEnvelope] = asyncio.Queue()
        self.server: MemoryTransport
        transport, self.server = memory_pair()
        self.connection = Connection(
            transport, clock=self.clock, on_event=self.events.put_nowait, on_positions=lambda _: None
        )
        self.running = asyncio.create_task(self.connection.run())
        self._decoder = FrameDecoder()

    async def request_id(self) -> object:
        [frame] = self._decoder.feed(await self.server.receive())
        assert isinstance(frame, bytes)
        return parse(frame).id


ENCODER = Encoder(2)


async def test_answers_are_matched_by_id_in_any_order() -> None:
    line = Line()
    first = asyncio.create_task(line.connection.call("a", then=lambda envelope: envelope.data))
    second = asyncio.create_task(line.connection.call("b", then=lambda envelope: envelope.data))
    ids = [await line.request_id(), await line.request_id()]
    line.server.send(
        ENCODER.reply("success", {"n": 2}, re=ids[1]) + ENCODER.reply("success", {"n": 1}, re=ids[0])  # type: ignore[arg-type]
    )
    assert await first == {"n": 1}
    assert await second == {"n": 2}
    line.connection.end("done")
    await line.running


async def test_answers_to_nothing_and_foreign_chunks_are_ignored() -> None:
    line = Line()
    line.server.send(ENCODER.reply("success", {}, re=99) + ENCODER.reply("success", {}, re="x"))
    line.server.send(encode_chunk(b"0" * 16, 0, b"data") + ENCODER.reply("notice", {"text": "hi"}))
    assert (await line.events.get()).type == "notice"
    line.connection.end("done")
    await line.running


async def test_a_late_answer_is_an_error_first_and_ignored_then() -> None:
    line = Line()
    calling = asyncio.create_task(line.connection.call("a", then=lambda _: None))
    request_id = await line.request_id()
    await line.clock.wait_for_sleepers()
    await line.clock.advance(15.0)
    with pytest.raises(ConnectionLostError, match="in time"):
        await calling
    line.server.send(ENCODER.reply("success", {}, re=request_id) + ENCODER.reply("notice", {}))  # type: ignore[arg-type]
    assert (await line.events.get()).type == "notice"
    line.connection.end("done")
    await line.running


async def test_a_caller_that_gave_up_does_not_disturb_the_reader() -> None:
    line = Line()
    calling = asyncio.create_task(line.connection.call("a", then=lambda _: None))
    request_id = await line.request_id()
    calling.cancel()
    await asyncio.wait([calling])
    line.server.send(ENCODER.reply("success", {}, re=request_id) + ENCODER.reply("notice", {}))  # type: ignore[arg-type]
    assert (await line.events.get()).type == "notice"
    line.connection.end("done")
    await line.running


async def test_the_end_reaches_everybody_who_waits() -> None:
    line = Line()
    answers: list[ServerEnvelope | ClientError] = []
    calling = asyncio.create_task(line.connection.call("a", then=lambda _: None))
    line.connection.send("b", on_answer=answers.append)
    await asyncio.sleep(0)
    line.server.cut()
    with pytest.raises(ConnectionLostError):
        await calling
    assert isinstance(answers[0], ConnectionLostError)
    assert await line.connection.ended() == "the server closed the connection"
    with pytest.raises(ConnectionLostError):
        await line.connection.call("c", then=lambda _: None)
    await line.running


async def test_what_cannot_be_encoded_is_an_error_of_that_request_only() -> None:
    line = Line()
    for data in ({"text": "x" * 70_000}, {"text": "\ud800"}):
        with pytest.raises(ProtocolError):
            await line.connection.call("a", data, then=lambda _: None)
    assert not line.connection.is_ended
    line.connection.end("done")
    await line.running


async def test_refusals_carry_everything_the_server_said() -> None:
    line = Line()
    calling = asyncio.create_task(line.connection.call("a", then=lambda _: None))
    re = await line.request_id()
    data = {"error": "slow down", "code": "rate_limited", "retry_after_s": 2.5, "more": 1}
    line.server.send(ENCODER.reply("error", data, re=re))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="slow down") as refused:
        await calling
    assert (refused.value.code, refused.value.retry_after_s, refused.value.data["more"]) == ("rate_limited", 2.5, 1)
    line.connection.end("done")
    await line.running
