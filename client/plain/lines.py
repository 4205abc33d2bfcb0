"""Lines from the standard input, without blocking and without reading further ahead than is needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import CancelledError

LINE_BYTES_MAX = 65_536
"""Above any text that can be sent; what is longer is cut here and refused there, with its reason."""

READ_BYTES = 65_536
READ_AHEAD_LINES = 64


class LineSplitter:
    """Turns bytes in any pieces into lines of text."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are complete now, without their ends."""
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._hold(piece)
            yield self._take()
        self._hold(rest)

    def end(self) -> Iterator[str]:
        """What is left when no line end follows."""
        if self._held:
            yield self._take()

    def _hold(self, piece: bytes) -> None:
        # One byte more than the limit, so that the line is seen to be too long.
        self._held += piece[: LINE_BYTES_MAX + 1 - len(self._held)]

    def _take(self) -> str:
        line = bytes(self._held).removesuffix(b"\r").decode(errors="replace")
        self._held.clear()
        return line


async def read_lines(descriptor: int) -> AsyncGenerator[str, None]:
    """The lines of a file descriptor, which may be a pipe, a terminal or a file."""
    queue: asyncio.Queue[str | None] = asyncio.Queue(READ_AHEAD_LINES)
    loop = asyncio.get_running_loop()

    def put(line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()

    def read() -> None:
        # Not through sys.stdin: a thread that waits inside it holds a lock that the interpreter needs at its end.
        splitter = LineSplitter()
        with contextlib.suppress(RuntimeError, CancelledError):  # the loop is gone, and with it whoever would read
            while data := _read(descriptor):
                for line in splitter.feed(data):
                    put(line)
            for line in splitter.end():
                put(line)
            put(None)

    # A thread because a regular file cannot be waited for, and a daemon because it may wait for ever.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    while (line := await queue.get()) is not None:
        yield line


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, READ_BYTES)
    except OSError:  # such as EIO: the terminal is gone
        return b""
