from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.wire import limits
from services.common.wire.codes import ErrorCode
from services.common.wire.frames import Chunk, FrameDecoder, encode_chunk, encode_json

FILE_ID = bytes(range(16))

json_payloads = st.binary(max_size=300).map(lambda tail: b"{" + tail)
chunks = st.builds(
    Chunk,
    file_id=st.binary(min_size=16, max_size=16),
    offset=st.integers(0, 2**64 - 1),
    data=st.binary(max_size=300),
)
frames = st.lists(st.one_of(json_payloads, chunks), max_size=12)


def encode(frame: bytes | Chunk) -> bytes:
    return encode_json(frame) if isinstance(frame, bytes) else encode_chunk(frame.file_id, frame.offset, frame.data)


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(c, len(stream)) for c in cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def header(size: int) -> bytes:
    return struct.pack(">I", size)


@given(frames, st.lists(st.integers(0, 4000), max_size=30))
def test_any_chunking_of_any_frames_gives_the_same_frames(sent: list[bytes | Chunk], cuts: list[int]) -> None:
    decoder = FrameDecoder()
    received: list[bytes | Chunk] = []
    for piece in cut(b"".join(map(encode, sent)), cuts):
        received += decoder.feed(piece)
    assert received == sent
    assert decoder.fault is None
    assert not decoder.is_partial


@given(frames, st.binary(max_size=200), st.lists(st.integers(0, 4000), max_size=30))
def test_where_a_stream_is_cut_changes_neither_frames_nor_fault(
    sent: list[bytes | Chunk], garbage: bytes, cuts: list[int]
) -> None:
    stream = b"".join(map(encode, sent)) + garbage
    whole = FrameDecoder()
    expected = whole.feed(stream)
    assert expected[: len(sent)] == sent

    pieces = FrameDecoder()
    received: list[bytes | Chunk] = []
    for piece in cut(stream, cuts):
        received += pieces.feed(piece)
    assert received == expected
    assert pieces.fault == whole.fault
    if whole.fault is None:
        assert pieces.held_bytes == whole.held_bytes


@given(st.lists(st.binary(max_size=100), max_size=30), st.booleans())
def test_garbage_raises_nothing_and_holds_no_more_than_came(pieces: list[bytes], accept_chunks: bool) -> None:
    decoder = FrameDecoder(accept_chunks=accept_chunks)
    came = 0
    for piece in pieces:
        came += len(piece)
        for frame in decoder.feed(piece):
            assert isinstance(frame, Chunk) or frame[:1] == b"{"
        assert decoder.held_bytes <= came
    assert decoder.fault in (None, ErrorCode.BAD_FRAME, ErrorCode.FRAME_TOO_LARGE)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_takes_any_bytes_and_gives_bytes(kind: type[bytes]) -> None:
    decoder = FrameDecoder()
    frame = encode_json(b"{}")
    assert decoder.feed(kind(frame + frame[:3])) == [b"{}"]
    received = decoder.feed(kind(frame[3:]))
    assert received == [b"{}"]
    assert type(received[0]) is bytes


def test_a_frame_byte_by_byte() -> None:
    decoder = FrameDecoder()
    stream = encode_json(b"{" + b" " * 100 + b"}")
    for byte in stream[:-1]:
        assert decoder.feed(bytes([byte])) == []
        assert decoder.is_partial
    assert decoder.feed(stream[-1:]) == [stream[4:]]
    assert not decoder.is_partial


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (header(0), ErrorCode.BAD_FRAME),
        (header(0) + b"{", ErrorCode.BAD_FRAME),
        (header(0) + b"\x01", ErrorCode.BAD_FRAME),
        (header(2) + b"[", ErrorCode.BAD_FRAME),
        (header(2) + b" ", ErrorCode.BAD_FRAME),
        (b"GET / HTTP/1.1\r\n\r\n", ErrorCode.FRAME_TOO_LARGE),
        (b"\xff\xff\xff\xff", ErrorCode.FRAME_TOO_LARGE),
        (header(limits.MAX_CHUNK_FRAME_BYTES + 1), ErrorCode.FRAME_TOO_LARGE),
        (header(limits.MAX_JSON_BYTES + 1) + b"{", ErrorCode.FRAME_TOO_LARGE),
        (header(24) + b"\x01", ErrorCode.BAD_FRAME),
    ],
)
def test_a_fault_is_known_as_soon_as_it_can_be(stream: bytes, fault: ErrorCode) -> None:
    decoder = FrameDecoder()
    assert decoder.feed(encode_json(b"{}") + stream) == [b"{}"]
    assert decoder.fault is fault
    assert not decoder.is_partial

    trickled = FrameDecoder()
    for byte in stream[:5]:
        trickled.feed(bytes([byte]))
    assert trickled.fault is fault


def test_after_a_fault_everything_is_ignored() -> None:
    decoder = FrameDecoder()
    decoder.feed(header(0))
    assert decoder.feed(encode_json(b"{}")) == []
    assert decoder.held_bytes == 0


def test_the_largest_frames_pass() -> None:
    decoder = FrameDecoder()
    payload = b"{" + b" " * (limits.MAX_JSON_BYTES - 1)
    data = bytes(limits.MAX_CHUNK_BYTES)
    assert decoder.feed(encode_json(payload) + encode_chunk(FILE_ID, 7, data)) == [payload, Chunk(FILE_ID, 7, data)]
    assert decoder.fault is None


def test_without_chunks_their_kind_and_their_sizes_are_faults() -> None:
    decoder = FrameDecoder(accept_chunks=False)
    decoder.feed(encode_chunk(FILE_ID, 0, b"x"))
    assert decoder.fault is ErrorCode.BAD_FRAME
    decoder = FrameDecoder(accept_chunks=False)
    decoder.feed(header(limits.MAX_JSON_BYTES + 1))
    assert decoder.fault is ErrorCode.FRAME_TOO_LARGE


def test_trickled_bytes_are_copied_once_and_not_once_per_byte() -> None:
    """65,536 single bytes: a decoder that copies what it holds each time would move 2 GiB here."""
    looked_at = 0

    class Counting(FrameDecoder):
        def _slice(self, data: bytes, end: int, frames: list[bytes | Chunk]) -> int:
            nonlocal looked_at
            looked_at += end
            return super()._slice(data, end, frames)

    decoder = Counting()
    stream = encode_json(b"{" + b" " * (limits.MAX_JSON_BYTES - 1))
    received = [frame for byte in stream for frame in decoder.feed(bytes([byte]))]
    assert received == [stream[4:]]
    assert looked_at <= 2 * len(stream)


@pytest.mark.parametrize("payload", [b"", b"{" * (limits.MAX_JSON_BYTES + 1)])
def test_encode_json_refuses_what_the_other_side_would(payload: bytes) -> None:
    with pytest.raises(ValueError, match="JSON frame"):
        encode_json(payload)


@pytest.mark.parametrize(
    ("file_id", "offset", "data"),
    [(b"short", 0, b""), (FILE_ID, -1, b""), (FILE_ID, 2**64, b""), (FILE_ID, 0, bytes(limits.MAX_CHUNK_BYTES + 1))],
)
def test_encode_chunk_refuses_what_the_other_side_would(file_id: bytes, offset: int, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"file id|offset|chunk"):
        encode_chunk(file_id, offset, data)
