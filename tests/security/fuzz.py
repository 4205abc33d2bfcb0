"""Fuzzes what clients may send: `python -m tests.security.fuzz --frames 1000000 --seed 1 [--live]`.

Frames are made from a grammar of the protocol and then damaged: bits, lengths, cuts, values of other types and sizes,
nesting, code points. Without `--live` they go through the decoder and the parsers of the wire, in pieces of any size;
with it through TLS to the edge of a stack of our own. What may happen is a refusal. What may not: any other exception,
a frame that takes long, a decoder that holds more than a frame, an `internal` error, a line of level error in the log,
a process that ends, an edge that grows, or somebody else who is kept from chatting meanwhile. A run is its seed: the
same seed makes the same frames. The last line is a summary in JSON, and the status is 1 where something was found.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import struct
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from services.common.wire import limits
from services.common.wire.envelope import WireError, parse
from services.common.wire.frames import Chunk, FrameDecoder
from services.common.wire.requests import parse_request
from services.common.wire.text_frames import parse_text_frame
from tests.security.fuzz_edge import Fault, fuzz_edge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SLOW_S: Final = 0.5
"""Of CPU: far beyond the slowest legal frame (some 2 ms). A clock on the wall would find whoever else is busy."""
LOOKS: Final = 3
"""A frame is slow if it always is. Once may be the collector's turn, which takes this long in a process with a long
past, such as one that runs all tests."""

TYPES: Final = (
    "hello", "register_request", "auth_request", "resume", "logout", "create_room", "join_room", "leave_room",
    "list_rooms", "user_list", "text_message", "history", "heartbeat", "file_offer", "file_get", "file_list",
    "file_cancel", "file_ack", "file_transfer", "trace", "trace_report", "success", "", "Text_Message",
)  # fmt: skip
KEYS: Final = (
    "username", "password", "takeover", "device", "token", "rooms", "room_id", "name", "topic", "private", "text",
    "key", "follows", "limit", "after", "before", "query", "cursor", "file_id", "size", "sha256", "mime", "offset",
    "protocol", "client", "action", "epoch", "seq", "__proto__", "$ref",
    "window", "transfer_id", "filename", "chunk_num", "total_chunks", "data", "message_id", "traceparent",
)  # fmt: skip
TEXTS: Final = (
    "", "a", "hello", "x" * 4_001, "\0", "\x1b[2J", "\u202e", "\ud800", "e\u0301" * 50, "\U0001f600" * 100, "../../etc",
    "' OR 1=1 --", "%s%n", "Å", "\ufeff", "\r\n", "{}",
)  # fmt: skip
ID: Final = "0123456789abcdef0123456789abcdef"
GOOD: Final[dict[str, dict[str, Any]]] = {
    "hello": {"protocol": 2, "client": "fuzz/1"},
    "register_request": {"username": "fuzz", "password": "correct horse battery"},
    "auth_request": {"username": "fuzz", "password": "correct horse battery", "takeover": True, "device": "fuzz"},
    "resume": {"token": "t" * 43, "rooms": {"room0001": {"epoch": "e1", "seq": 7}}},
    "logout": {},
    "create_room": {"name": "fuzz", "topic": "frames", "private": True},
    "join_room": {"room_id": "room0001"},
    "leave_room": {"room_id": "room0001"},
    "list_rooms": {"query": "fu", "limit": 10, "cursor": ""},
    "user_list": {"room_id": "room0001"},
    "text_message": {"text": "hello", "room_id": "room0001", "key": "k1", "follows": False},
    "history": {"room_id": "room0001", "after": 3, "limit": 10},
    "heartbeat": {},
    "file_offer": {
        "room_id": "room0001", "name": "a.txt", "size": 5, "sha256": ID * 2, "mime": "text/plain", "transfer_id": ID,
    },
    "file_get": {"file_id": ID, "offset": 0, "window": 65_536},
    "file_list": {"room_id": "room0001", "before": 9, "limit": 10},
    "file_cancel": {"file_id": ID},
    "file_ack": {"file_id": ID, "offset": 5, "window": 65_536},
    "file_transfer": {
        "transfer_id": ID, "filename": "a.txt", "chunk_num": 0, "total_chunks": 1, "data": "aGVsbG8=",
        "room_id": "room0001",
    },
    "trace": {"message_id": "room0001-e1-7"},
    "trace_report": {
        "traceparent": f"00-{ID}-0123456789abcdef-01", "sent_at_us": 1, "acknowledged_at_us": 2, "shown_at_us": 3,
    },
}  # fmt: skip
"""Every request as it should be; a test sees to it that none is missing."""

_GOOD: Final = tuple(GOOD.items())

NUMBERS: Final = (0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, 1e308, -0.0)


class Generator:
    """Frames from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._makers: tuple[Callable[[], bytes], ...] = (
            self._request, self._request, self._nearly_good, self._nearly_good, self._text, self._nested,
            self._garbage, self._chunk,
        )  # fmt: skip

    def frame(self) -> bytes:
        """One frame, damaged or not, with its length before it."""
        payload = self._random.choice(self._makers)()
        length = len(payload)
        damage = self._random.random()
        if damage < 0.25:
            payload = self._flip(payload)
        elif damage < 0.30:
            payload = payload[: self._random.randrange(len(payload) + 1)]
        elif damage < 0.31:
            length = self._random.choice((0, 1, length + 1, 65_537, 2**31, 2**32 - 1))
        return struct.pack(">I", length if damage >= 0.30 else len(payload)) + payload

    def cut(self, data: bytes) -> Iterator[bytes]:
        """The bytes in pieces."""
        start = 0
        while start < len(data):
            end = start + self._random.choice((1, 2, 3, 5, 17, 200, 4_096, 65_536))
            yield data[start:end]
            start = end

    def _value(self, depth: int = 0) -> Any:
        kind = self._random.random()
        if kind < 0.45:
            return self._random.choice(TEXTS)
        if kind < 0.65:
            return self._random.choice(NUMBERS)
        if kind < 0.8 or depth > 3:
            return self._random.choice((None, True, False))
        if kind < 0.9:
            return [self._value(depth + 1) for _ in range(self._random.randrange(4))]
        return {self._random.choice(KEYS): self._value(depth + 1) for _ in range(self._random.randrange(4))}

    def _request(self) -> bytes:
        data = {self._random.choice(KEYS): self._value() for _ in range(self._random.randrange(6))}
        return self._frame(self._random.choice(TYPES), data)

    def _nearly_good(self) -> bytes:
        """A good request of any type, of which one field may be another, or missing."""
        type_, data = self._random.choice(_GOOD)
        wrong = self._random.random()
        if wrong < 0.5:
            data = {**data, self._random.choice([*data, *KEYS]): self._value()}
        elif wrong < 0.6 and data:
            left_out = self._random.choice(list(data))
            data = {key: value for key, value in data.items() if key != left_out}
        return self._frame(type_, data)

    def _frame(self, type_: str, data: object) -> bytes:
        frame: dict[str, Any] = {"type": type_, "data": data}
        for key in ("id", "room_id", "priority", "timestamp", "traceparent"):
            if self._random.random() < 0.2:
                frame[key] = self._value()
        if self._random.random() < 0.05:
            frame["data"] = self._value()
        return json.dumps(frame, ensure_ascii=self._random.random() < 0.5).encode("utf-8", "surrogatepass")

    def _text(self) -> bytes:
        text = self._random.choice(TEXTS)
        frame = {"type": "text_message", "id": self._random.randrange(9), "room_id": "room0001", "data": {"text": text}}
        return json.dumps(frame, separators=(",", ":")).encode()

    def _nested(self) -> bytes:
        depth = self._random.choice((1, 15, 16, 17, 100, 5_000))
        opening, closing = self._random.choice((("[", "]"), ('{"a":', "}")))
        return b'{"type":"heartbeat","data":' + (opening * depth + "1" + closing * depth).encode() + b"}"

    def _garbage(self) -> bytes:
        return b"{" * self._random.randrange(2) + self._random.randbytes(self._random.randrange(200))

    def _chunk(self) -> bytes:
        size = self._random.choice((0, 1, 24, 25, 1_000))
        return b"\x01" + self._random.randbytes(size)

    def _flip(self, payload: bytes) -> bytes:
        damaged = bytearray(payload or b"\0")
        for _ in range(self._random.randrange(1, 4)):
            damaged[self._random.randrange(len(damaged))] ^= 1 << self._random.randrange(8)
        return bytes(damaged)


def fuzz_wire(frames: int, seed: int) -> Counter[str]:
    """Frames through decoder and parsers; what became of them. Raises Fault."""
    made, outcomes = Generator(seed), Counter[str]()
    decoder = FrameDecoder()
    for _ in range(frames):
        for piece in made.cut(made.frame()):
            for payload in decoder.feed(piece):
                outcomes[_judge(payload, seed)] += 1
            if decoder.held_bytes > limits.MAX_CHUNK_FRAME_BYTES + limits.LENGTH_BYTES:
                raise Fault(f"seed {seed}: the decoder holds {decoder.held_bytes} bytes")
            if decoder.fault is not None:
                outcomes[f"stream ended: {decoder.fault}"] += 1
                decoder = FrameDecoder(accept_chunks=seed % 2 == 0)
                break
    return outcomes


def _judge(payload: bytes | Chunk, seed: int) -> str:
    if isinstance(payload, Chunk):
        return "chunk"
    for _ in range(LOOKS):
        began = time.thread_time()
        try:
            outcome = "text" if parse_text_frame(payload) is not None else type(parse_request(parse(payload))).__name__
        except WireError as error:
            outcome = f"refused: {error.code}"
        except Exception as error:
            raise Fault(f"seed {seed}: {type(error).__name__}: {error}: {payload!r}") from error
        took_s = time.thread_time() - began
        if took_s <= SLOW_S:
            return outcome
    raise Fault(f"seed {seed}: took {took_s:.2f} s: {payload[:200]!r}")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--live", action="store_true", help="to the edge of a stack")
    options = parser.parse_args(argv)
    began = time.monotonic()
    try:
        if options.live:
            outcomes = asyncio.run(fuzz_edge(Generator(options.seed), options.frames))
        else:
            outcomes = fuzz_wire(options.frames, options.seed)
    except Fault as fault:
        print(f"FOUND: {fault}")
        return 1
    summary = {"frames": options.frames, "seed": options.seed, "live": options.live}
    print(json.dumps({**summary, "seconds": round(time.monotonic() - began, 1), "outcomes": dict(outcomes)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
