"""What goes onto the stream: each part of a parcel in its field."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from parley.rooms.v1 import feed_pb2

from services.common.clock import FakeClock
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms.bus import MembershipEnded
from services.rooms.feed import EncodedRun, FeedServicer, _checked_hello, _publishes, encode_parcel
from services.rooms.messages import RUN_CHARS_MAX, Message, Outcome, Publish, Run, split
from services.rooms.presence import Action, Change
from services.rooms.stream import PARCEL_BYTES_MAX, Parcel
from services.rooms.vouchers import Vouchers
from tests.helpers import columns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def run(first: int, last: int) -> Run:
    return Run(
        "room", "epoch", [Message(seq, "u1", "alice", f"text {seq}", 1000 + seq) for seq in range(first, last + 1)]
    )


def sent(number: int) -> Publish:
    return Publish(number, "room", "u1", "alice", "text", f"e{number}")


def test_a_run_is_encoded_once() -> None:
    encoded = EncodedRun(run(3, 5))
    assert (encoded.epoch, encoded.first_seq, encoded.last_seq) == ("epoch", 3, 5)
    assert encoded.size == len(encoded.payload.SerializeToString())
    assert columns.message_rows(encoded.payload) == [
        columns.MessageRow(seq, "alice", f"text {seq}", 1000 + seq) for seq in (3, 4, 5)
    ]


@pytest.mark.parametrize("seq", [3, 4])
def test_the_rest_of_a_run(seq: int) -> None:
    rest = EncodedRun(run(3, 5)).after(seq)
    assert rest.payload == EncodedRun(run(seq + 1, 5)).payload


def test_a_parcel_becomes_a_response() -> None:
    parcel = Parcel(
        results=[
            (sent(1), Outcome("epoch", 7, 1_007)),
            (sent(2), Outcome("epoch", 3, 1_003, is_duplicate=True)),
            (sent(3), Outcome(code=ErrorCode.OVERLOADED, retry_after_s=0.5)),
        ],
        ended=[MembershipEnded("room", "u2", 7)],
        pieces=[EncodedRun(run(7, 7)), EncodedRun(run(8, 9))],
        changes=[Change("room", action, "bob", 4) for action in Action],
    )
    response = encode_parcel(parcel)
    assert response.stored == feed_pb2.Stored(numbers=[1], epochs=["epoch"], seqs=[7], sent_at_ms=[1_007])
    assert list(response.results) == [
        feed_pb2.PublishResult(number=2, epoch="epoch", seq=3, sent_at_ms=1_003, duplicate=True),
        feed_pb2.PublishResult(number=3, error_code="overloaded", retry_after_s=0.5),
    ]
    assert [[row.seq for row in columns.message_rows(room)] for room in response.rooms] == [[7], [8, 9]]
    assert list(response.membership_changes) == [feed_pb2.MembershipChange(room_id="room", user_id="u2", last_seq=7)]
    assert [feed_pb2.PresenceAction.Name(change.action) for change in response.presence_changes] == [
        f"PRESENCE_ACTION_{name}" for name in ("JOIN", "LEAVE", "ONLINE", "OFFLINE", "COUNT")
    ]
    assert {(change.username, change.online_count) for change in response.presence_changes} == {("bob", 4)}


def test_the_largest_parcel_is_below_a_mebibyte() -> None:
    """With texts and names at their longest, in four bytes a character; a parcel passes its limit by one run."""
    face = "\U0001f600"
    for chars in (1, 100, 4_000):
        message = Message(2**62, "u" * 16, face * 32, face * chars, 2**50)
        runs = split("r" * 16, "e" * 8, [message] * (3 * RUN_CHARS_MAX // (chars + 48)))
        assert max(EncodedRun(one).size for one in runs) + PARCEL_BYTES_MAX < 1024 * 1024 + 64 * 1024


@pytest.mark.parametrize(
    "hello",
    [
        None,
        feed_pb2.EdgeHello(edge_name="edge-1"),
        feed_pb2.EdgeHello(boot_id="boot-1"),
        feed_pb2.EdgeHello(edge_name="e" * 65, boot_id="boot-1"),
    ],
)
def test_a_stream_begins_with_hello(hello: feed_pb2.EdgeHello | None) -> None:
    with pytest.raises(ParleyError) as caught:
        _checked_hello(feed_pb2.AttachRequest(hello=hello))
    assert caught.value.code is ErrorCode.BAD_REQUEST


def test_columns_of_different_lengths_are_refused() -> None:
    whole = columns.publishes(
        columns.PublishRow(1, "r", "u", "n", "t", "k"), columns.PublishRow(2, "r", "u", "n", "t", "l")
    )
    assert [publish.key for publish in _publishes(whole)] == ["k", "l"]
    for name in ("numbers", "room_ids", "user_ids", "usernames", "texts", "keys"):
        torn = feed_pb2.Publishes()
        torn.CopyFrom(whole)
        del getattr(torn, name)[1:]
        with pytest.raises(ParleyError) as caught:
            _publishes(torn)
        assert caught.value.code is ErrorCode.BAD_REQUEST


class FakeService:
    """The log, the directory and a stream, as far as the beginning and the end of a stream need them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.boot_id = "boot-1"
        self.is_settled = asyncio.Event()
        self.stopped = asyncio.Event()

    async def settled(self) -> None:
        await self.is_settled.wait()
        self.calls.append("settled")

    async def announce(self, boot_id: str, _sessions: object) -> list[MembershipEnded]:
        self.calls.append(f"announce {boot_id}")
        return [MembershipEnded("room", "u1", 3)]

    def add_ended(self, ended: MembershipEnded) -> None:
        self.calls.append(f"ended {ended.user_id}")

    def publish(self, publishes: list[Publish], watcher: object = None) -> None:
        self.calls.append(f"publish {publishes[0].text}")

    async def wait_for_room(self) -> None:
        self.calls.append("wait for room")

    @property
    def servicer(self) -> FeedServicer:
        parts: Any = self
        return FeedServicer(
            log=parts,
            directory=parts,
            attendance=parts,
            streams=parts,
            open_stream=parts,
            vouchers=Vouchers(None, FakeClock()),
            follows_max=1,
            spans=parts,
        )


async def test_an_edge_is_welcome_when_what_it_sent_before_is_stored() -> None:
    fake: Any = FakeService()
    hello = feed_pb2.EdgeHello(edge_name="edge-1", boot_id="boot-1")
    welcome = asyncio.ensure_future(fake.servicer._welcome(fake, hello))
    await asyncio.sleep(0)
    assert fake.calls == []
    fake.is_settled.set()
    await welcome
    assert fake.calls == ["settled", "announce boot-1", "ended u1"]


async def test_a_stopped_stream_takes_nothing_more() -> None:
    fake: Any = FakeService()

    async def requests() -> AsyncIterator[feed_pb2.AttachRequest]:
        yield feed_pb2.AttachRequest(publishes=columns.publishes(columns.PublishRow(1, text="before")))
        fake.stopped.set()
        yield feed_pb2.AttachRequest(publishes=columns.publishes(columns.PublishRow(2, text="behind")))

    assert await fake.servicer._read(fake, Vouchers(None, FakeClock()).speakers("boot-1"), requests()) is None
    assert fake.calls == ["publish before", "wait for room"]
