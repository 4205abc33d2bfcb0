"""The storm itself, `python -m tests.security.hardening.knocking`: a process of its own, apart from who measures.

It keeps to its rate whatever the answers are: a login begins every 1/rate seconds, from one address after the other.
`--each new` opens a connection for each of them; `--each held` shares them out to connections that were there before,
on each of which the server takes one at a time. It says `ready`, waits for a line, and prints its counts as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from itertools import cycle
from typing import TYPE_CHECKING

import uvloop

from tests.helpers.people import fresh
from tests.helpers.raw_client import ClosedError, NoAnswerError, RawClient
from tests.security.hardening.world import frame, plain_context

if TYPE_CHECKING:
    from collections.abc import Sequence

HELD = 400
"""50 from each of eight addresses: what has not logged in and is fewer than 64 may stay."""

ANSWER_S = 20.0
"""Longer than the edge waits for auth (15 s)."""


class Storm:
    """Logins with names that nobody has; what became of them in `answers`."""

    def __init__(self, port: int, sources: Sequence[str]) -> None:
        self._port = port
        self._sources = cycle(sources)
        self._context = plain_context()
        self._held: list[RawClient] = []
        self.answers: Counter[str] = Counter()
        self.answered_s: list[float] = []
        self.sent = 0

    async def hold(self, count: int) -> None:
        """Opens connections before it begins."""
        for _ in range(count):
            self._held.append(await self._connect())

    async def run(self, rate: float, seconds: float) -> None:
        """Open loop: who is late does not make the next one late."""
        readers = [asyncio.create_task(self._count(client)) for client in self._held]
        began, number = time.monotonic(), 0
        under_way: set[asyncio.Task[None]] = set()
        while (due := began + number / rate) < began + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._knock(number))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number += 1
        for task in (*under_way, *readers):
            task.cancel()
        await asyncio.gather(*under_way, *readers, return_exceptions=True)
        for client in self._held:
            client.abort()

    async def _knock(self, number: int) -> None:
        request = frame("auth_request", username=fresh(), password="wrong password")
        began = time.monotonic()
        try:
            if self._held:
                await self._held[number % len(self._held)].send_bytes(request)
                self.sent += 1
                return
            client = await self._connect()
        except (OSError, ClosedError, NoAnswerError) as error:
            self.answers[type(error).__name__] += 1
            return
        try:
            await client.send_bytes(request)
            self.sent += 1
            await self._answer(client)
            self.answered_s.append(time.monotonic() - began)
        except (ClosedError, NoAnswerError):
            self.answers["closed"] += 1
        finally:
            client.abort()

    async def _count(self, client: RawClient) -> None:
        try:
            while True:
                await self._answer(client)
        except (ClosedError, NoAnswerError):
            self.answers["closed"] += 1

    async def _answer(self, client: RawClient) -> None:
        while (answer := await client.read(ANSWER_S))["type"] not in ("auth_response", "error"):
            pass
        self.answers[str(answer["data"].get("code", answer["type"]))] += 1

    async def _connect(self) -> RawClient:
        """Version 1, which needs no hello."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._context, local_addr=(next(self._sources), 0), ssl_handshake_timeout=30
        )
        return RawClient(reader, writer)


async def knock(options: argparse.Namespace) -> dict[str, object]:
    """The whole storm; its counts."""
    storm = Storm(options.port, options.sources.split(","))
    if options.each == "held":
        await storm.hold(HELD)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.monotonic()
    await storm.run(options.rate, options.seconds)
    waits = sorted(storm.answered_s)
    return {
        "sent": storm.sent,
        "seconds": time.monotonic() - began,
        "answers": dict(storm.answers),
        "median_s": waits[len(waits) // 2] if waits else None,
        "cpu_s": time.process_time(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sources", required=True, metavar="A,B", help="the addresses that it comes from")
    parser.add_argument("--each", choices=("new", "held"), default="new", help="a connection for each, or those held")
    parser.add_argument("--rate", type=float, default=200.0, metavar="PER_S")
    parser.add_argument("--seconds", type=float, default=15.0)
    # Whoever attacks has machines of their own: here they get the time that the stack and its clients leave over. The
    # rate is checked, so that it stays the same storm.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    print(json.dumps(uvloop.run(knock(parser.parse_args(argv)))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
