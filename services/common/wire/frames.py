"""Frames: the length-prefixed units on the byte stream, for JSON and for file chunks.

The decoder takes bytes as they come, in whatever pieces, and gives whole frames. A read that holds only whole frames
is sliced and never buffered; bytes of an incomplete frame are collected once and looked at again only when enough of
them are there, so trickled input costs linear time.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import msgspec

from services.common.wire import limits
from services.common.wire.codes import ErrorCode

JSON_KIND: Final = 0x7B
"""A JSON payload begins with ``{``, so no extra byte says what it is."""

CHUNK_KIND: Final = 0x01

_LENGTH = Struct(">I")
_CHUNK_HEADER = Struct(f">B{limits.FILE_ID_BYTES}sQ")
_CHUNK_PREFIX = Struct(f">IB{limits.FILE_ID_BYTES}sQ")
_unpack_length = _LENGTH.unpack_from


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of a file: ``data`` belongs at ``offset`` of the file that ``file_id`` (16 bytes) names."""

    file_id: bytes
    offset: int
    data: bytes


class FrameDecoder:
    """Turns a byte stream into frames; a fault ends it.

    ``fault`` is set, and nothing is raised, when the stream breaks the protocol: the frames before the fault are still
    returned, what comes later is ignored, because the next frame's beginning is unknown. At most one incomplete frame
    is held between calls.
    """

    __slots__ = ("_held", "_max_frame", "_need", "fault")

    def __init__(self, *, accept_chunks: bool = True) -> None:
        self.fault: ErrorCode | None = None
        self._max_frame = limits.MAX_CHUNK_FRAME_BYTES if accept_chunks else limits.MAX_JSON_BYTES
        self._held: bytearray | None = None
        self._need = 0  # bytes that must be held before looking again can change anything

    @property
    def is_partial(self) -> bool:
        """Whether the beginning of a frame is held that has not ended yet."""
        return self._held is not None

    @property
    def held_bytes(self) -> int:
        """How many bytes of an incomplete frame are held."""
        return len(self._held) if self._held is not None else 0

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes | Chunk]:
        """Take what was read; return the frames that are complete now: JSON payloads as bytes, file chunks as Chunk."""
        if self.fault is not None:
            return []
        held = self._held
        if held is not None:
            held += data
            if len(held) < self._need:
                return []
            data = bytes(held)
            self._held = None
        elif type(data) is not bytes:
            data = bytes(data)
        frames: list[bytes | Chunk] = []
        end = len(data)
        start = self._slice(data, end, frames)
        if start < end and self.fault is None:
            self._held = bytearray(data[start:])
        return frames

    def _slice(self, data: bytes, end: int, frames: list[bytes | Chunk]) -> int:
        """Cut whole frames from data; return where the incomplete rest begins."""
        start = 0
        while (body := start + limits.LENGTH_BYTES) < end:  # the length and the first byte of the payload are there
            size: int = _unpack_length(data, start)[0]
            kind = data[body]
            if kind == JSON_KIND and 0 < size <= limits.MAX_JSON_BYTES:
                stop = body + size
                if stop > end:
                    self._need = limits.LENGTH_BYTES + size
                    return start
                frames.append(data[body:stop])
            elif self._is_chunk(kind, size):
                stop = body + size
                if stop > end:
                    self._need = limits.LENGTH_BYTES + size
                    return start
                _, file_id, offset = _CHUNK_HEADER.unpack_from(data, body)
                frames.append(Chunk(file_id, offset, data[body + limits.CHUNK_HEADER_BYTES : stop]))
            else:
                self._fail(size)
                return start
            start = stop
        self._need = limits.LENGTH_BYTES
        if end - start == limits.LENGTH_BYTES:  # the length alone may be wrong already
            size = _unpack_length(data, start)[0]
            if not 0 < size <= self._max_frame:
                self._fail(size)
            self._need += 1
        return start

    def _is_chunk(self, kind: int, size: int) -> bool:
        return (
            kind == CHUNK_KIND
            and self._max_frame == limits.MAX_CHUNK_FRAME_BYTES
            and limits.CHUNK_HEADER_BYTES <= size <= limits.MAX_CHUNK_FRAME_BYTES
        )

    def _fail(self, size: int) -> None:
        too_large = size > limits.MAX_JSON_BYTES
        self.fault = ErrorCode.FRAME_TOO_LARGE if too_large else ErrorCode.BAD_FRAME


def encode_json(payload: bytes) -> bytes:
    """Make a frame of a JSON payload. Raises ValueError where it is empty or above the limit."""
    size = len(payload)
    if not 0 < size <= limits.MAX_JSON_BYTES:
        raise ValueError(f"a JSON frame holds 1 to {limits.MAX_JSON_BYTES} bytes, not {size}")
    return _LENGTH.pack(size) + payload


def encode_chunk(file_id: bytes, offset: int, data: bytes | memoryview) -> bytes:
    """Make a frame of a piece of a file. Raises ValueError where a part is out of its range."""
    if len(file_id) != limits.FILE_ID_BYTES:
        raise ValueError(f"a file id has {limits.FILE_ID_BYTES} bytes, not {len(file_id)}")
    if len(data) > limits.MAX_CHUNK_BYTES:
        raise ValueError(f"a chunk holds at most {limits.MAX_CHUNK_BYTES} bytes, not {len(data)}")
    if not 0 <= offset < 2**64:
        raise ValueError(f"an offset has 64 bits, {offset} has not")
    return _CHUNK_PREFIX.pack(limits.CHUNK_HEADER_BYTES + len(data), CHUNK_KIND, file_id, offset) + data
