"""Fuzzes what clients may send: `python -m tests.security.fuzz --frames 1000000 --seed 1 [--live]`.

Frames are made from a grammar of the protocol and then damaged: bits, lengths, cuts, values of other types and sizes,
nesting, code points. Without `--live` they go through the decoder and the parsers of the wire, in pieces of any size;
with it through TLS to the edge of a stack of our own. What may happen is a refusal. What may not: any other exception,
a frame that takes long, a decoder that holds more than a frame, an `internal` error, a line of level error in the log,
a process that ends, or somebody else who cannot log in afterwards. A run is its seed: the same seed makes the same
frames. The last line is a summary in JSON, and the status is 1 where something was found.
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
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from services.common.wire import limits
from services.common.wire.envelope import WireError, parse
from services.common.wire.frames import Chunk, FrameDecoder
from services.common.wire.requests import parse_request
from services.common.wire.text_frames import parse_text_frame
from tests.helpers.people import People
from tests.helpers.raw_client import ClosedError, NoAnswerError, RawClient
from tests.helpers.stack import FAST_CONFIG, running_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SLOW_S: Final = 0.5
"""Of CPU: far beyond the slowest legal frame (some 2 ms). A clock on the wall would find whoever else is busy."""

LIVE_FRAMES_MAX: Final = 60
"""Sent on one connection: with 20 faulty ones the edge closes it, and reads no more."""

SENDERS: Final = 8

TYPES: Final = (
    "hello", "register_request", "auth_request", "resume", "logout", "create_room", "join_room", "leave_room",
    "list_rooms", "user_list", "text_message", "history", "heartbeat", "file_offer", "file_get", "file_list",
    "file_cancel", "file_ack", "file_transfer", "success", "", "Text_Message",
)  # fmt: skip
KEYS: Final = (
    "username", "password", "takeover", "device", "token", "rooms", "room_id", "name", "topic", "private", "text",
    "key", "follows", "limit", "after", "before", "query", "cursor", "file_id", "size", "sha256", "mime", "offset",
    "protocol", "client", "action", "epoch", "seq", "__proto__", "$ref",
)  # fmt: skip
TEXTS: Final = (
    "", "a", "hello", "x" * 4_001, "\0", "\x1b[2J", "\u202e", "\ud800", "e\u0301" * 50, "\U0001f600" * 100, "../../etc",
    "' OR 1=1 --", "%s%n", "Å", "\ufeff", "\r\n", "{}",
)  # fmt: skip
NUMBERS: Final = (0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, 1e308, -0.0)


class Generator:
    """Frames from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._makers: tuple[Callable[[], bytes], ...] = (
            self._request, self._request, self._request, self._text, self._nested, self._garbage, self._chunk,
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
        frame: dict[str, Any] = {"type": self._random.choice(TYPES), "data": data}
        for key in ("id", "room_id", "priority", "timestamp"):
            if self._random.random() < 0.3:
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


class Fault(Exception):  # noqa: N818 - what was found
    """Something that must not happen; the text has what it takes to repeat it."""


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
    began = time.thread_time()
    try:
        outcome = "text" if parse_text_frame(payload) is not None else type(parse_request(parse(payload))).__name__
    except WireError as error:
        outcome = f"refused: {error.code}"
    except Exception as error:
        raise Fault(f"seed {seed}: {type(error).__name__}: {error}: {payload!r}") from error
    if time.thread_time() - began > SLOW_S:
        raise Fault(f"seed {seed}: took {time.thread_time() - began:.2f} s: {payload[:200]!r}")
    return outcome


async def fuzz_edge(frames: int, seed: int) -> Counter[str]:
    """Frames to a stack of our own, on connections that are logged in and on others. Raises Fault."""
    with running_stack(config=FAST_CONFIG + "[edge]\ntext_rate = 0\ncommand_rate = 0\n") as stack:
        made, outcomes, done = Generator(seed), Counter[str](), 0
        pids = stack.pids()
        async with AsyncExitStack() as exits:
            people = People(stack, exits)
            while done < frames:
                # Made one after the other, so that a seed makes the same ones; sent at the same time.
                batches = []
                while done < frames and len(batches) < SENDERS:
                    count = min(random.Random(seed + done).randrange(1, LIVE_FRAMES_MAX), frames - done)
                    batches.append((done, [made.frame() for _ in range(count)]))
                    done += count

                async def send(number: int, batch: list[bytes]) -> Counter[str]:
                    client = await (people.person() if number % 3 else people.connect())
                    try:
                        return await _send(client, batch)
                    finally:
                        client.abort()

                for outcome in await asyncio.gather(*(send(*each) for each in batches)):
                    outcomes += outcome
            good = [await people.person(), await people.person()]
            await good[0].say(await people.room(*good), "still here")
        if stack.pids() != pids:
            raise Fault(f"seed {seed}: a process has ended")
        wrong = [line for line in stack.log_events() if line["level"] in ("error", "critical")]
        if wrong or outcomes["internal"]:
            raise Fault(f"seed {seed}: {outcomes['internal']} internal errors, {wrong[:3]}")
    return outcomes


async def _send(client: RawClient, frames: list[bytes]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    try:
        await client.send_bytes(b"".join(frames))
        while True:
            frame = await client.read(1.0)
            outcomes[str(frame["data"].get("code", frame["type"]))] += 1
    except ClosedError:
        outcomes["connection closed"] += 1
    except NoAnswerError:
        outcomes["connection open"] += 1
    outcomes["sent"] += len(frames)
    return outcomes


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
            outcomes = asyncio.run(fuzz_edge(options.frames, options.seed))
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
