"""What goes onto the stream: each part of a parcel in its field."""

from __future__ import annotations

import pytest
from parley.rooms.v1 import feed_pb2

from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode
from services.rooms.bus import MembershipEnded
from services.rooms.feed import EncodedRun, _checked_hello, encode_parcel
from services.rooms.messages import RUN_CHARS_MAX, Message, Outcome, Run, split
from services.rooms.presence import Action, Change
from services.rooms.stream import PARCEL_BYTES_MAX, Parcel, Result


def run(first: int, last: int) -> Run:
    return Run(
        "room", "epoch", [Message(seq, "u1", "alice", f"text {seq}", 1000 + seq) for seq in range(first, last + 1)]
    )


def test_a_run_is_encoded_once() -> None:
    encoded = EncodedRun(run(3, 5))
    assert (encoded.epoch, encoded.first_seq, encoded.last_seq) == ("epoch", 3, 5)
    assert encoded.size == len(encoded.payload.SerializeToString())
    assert [(m.seq, m.user_id, m.username, m.text, m.sent_at_ms) for m in encoded.payload.messages] == [
        (seq, "u1", "alice", f"text {seq}", 1000 + seq) for seq in (3, 4, 5)
    ]


@pytest.mark.parametrize("seq", [3, 4])
def test_the_rest_of_a_run(seq: int) -> None:
    rest = EncodedRun(run(3, 5)).after(seq)
    assert rest.payload == EncodedRun(run(seq + 1, 5)).payload


def test_a_parcel_becomes_a_response() -> None:
    parcel = Parcel(
        results=[
            Result(1, Outcome("epoch", 7, 1_007)),
            Result(2, Outcome("epoch", 3, 1_003, is_duplicate=True)),
            Result(3, Outcome(code=ErrorCode.OVERLOADED, retry_after_s=0.5)),
        ],
        ended=[MembershipEnded("room", "u2", 7)],
        pieces=[EncodedRun(run(7, 7)), EncodedRun(run(8, 9))],
        changes=[Change("room", action, "bob", 4) for action in Action],
    )
    response = encode_parcel(parcel)
    assert list(response.results) == [
        feed_pb2.PublishResult(number=1, epoch="epoch", seq=7, sent_at_ms=1_007),
        feed_pb2.PublishResult(number=2, epoch="epoch", seq=3, sent_at_ms=1_003, duplicate=True),
        feed_pb2.PublishResult(number=3, error_code="overloaded", retry_after_s=0.5),
    ]
    assert [[m.seq for m in room.messages] for room in response.rooms] == [[7], [8, 9]]
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
