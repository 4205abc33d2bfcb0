"""A storm of logins, and of connections: those who are in go on, those from elsewhere get in, memory is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tests.helpers.people import fresh
from tests.helpers.raw_client import ClosedError, NoAnswerError
from tests.security.hardening.world import (
    Finding,
    address,
    chatting,
    connect_from,
    good_login_s,
    make_accounts,
    percentile,
    plain_context,
)

if TYPE_CHECKING:
    from tests.helpers.raw_client import RawClient
    from tests.helpers.stack import Stack

LOGINS_PER_S = 200
STORM_S = 15.0
STORM_ADDRESSES = 8
CONNECTIONS = 40
"""Of the storm: each sends a login every 0.2 s."""

P99_FACTOR_MAX = 1.5
GOOD_LOGIN_S_MAX = 3.0
ATTEMPTS = 20_000
ATTEMPT_ADDRESSES = 400
MEMORY_MIB_MAX = 500
"""connections_max (10,000) at the 35 KiB that a connection takes, and the edge itself."""

RECOVERED_S_MAX = 60.0


async def logins(stack: Stack) -> list[Finding]:
    """200 logins a second with names that nobody has, from eight addresses, while people chat."""
    async with AsyncExitStack() as exits:
        names = await make_accounts(stack, 4)
        async with chatting(stack, exits) as chat:
            before = await chat.measure(STORM_S)
            storm = Storm(stack)
            await storm.connect()
            running = asyncio.create_task(storm.run(STORM_S))
            began, waits = time.monotonic(), []
            begin = len(chat.latencies_s)
            for name in names:
                await asyncio.sleep(STORM_S / (len(names) + 1))
                waits.append(await good_login_s(stack, name))
            await running
            seconds = time.monotonic() - began
            during = chat.latencies_s[begin:]
            failures = chat.failures
        storm.close()
    base, worst = percentile(before, 0.99), percentile(during, 0.99)
    return [
        Finding("logins a second", f"{storm.sent / seconds:.0f} ({dict(storm.answers)})", storm.sent / seconds > 150),
        Finding(
            "chat p99, before and during",
            f"{base * 1e3:.1f} ms, {worst * 1e3:.1f} ms ({worst / base:.2f} times; p50 "
            f"{percentile(before, 0.5) * 1e3:.1f} and {percentile(during, 0.5) * 1e3:.1f} ms)",
            worst <= P99_FACTOR_MAX * base,
        ),
        Finding("texts that failed", str(failures), failures == 0),
        Finding(
            "a good user from elsewhere gets in",
            ", ".join(f"{wait_s:.2f} s" for wait_s in waits),
            max(waits) <= GOOD_LOGIN_S_MAX,
        ),
    ]


class Storm:
    """Connections from a few addresses, each of which tries a login every `CONNECTIONS / LOGINS_PER_S` seconds and
    does not wait for the answer."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._sources = [address() for _ in range(STORM_ADDRESSES)]
        self._clients: list[RawClient] = []
        self.sent = 0
        self.answers: Counter[str] = Counter()

    async def connect(self) -> None:
        for number in range(CONNECTIONS):
            self._clients.append(await connect_from(self._stack, self._sources[number % STORM_ADDRESSES]))

    async def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(self._clients):
                group.create_task(self._knock(client, number, until))

    async def _knock(self, client: RawClient, number: int, until: float) -> None:
        pause_s = CONNECTIONS / LOGINS_PER_S
        await asyncio.sleep(number * pause_s / CONNECTIONS)
        reading = asyncio.create_task(self._count(client))
        while time.monotonic() < until:
            with contextlib.suppress(ClosedError, NoAnswerError):
                await client.send("auth_request", {"username": fresh(), "password": "wrong password"}, id="x")
            self.sent += 1
            await asyncio.sleep(pause_s)
        reading.cancel()
        await asyncio.wait([reading])

    async def _count(self, client: RawClient) -> None:
        while True:
            try:
                frame = await client.read(60)
            except (ClosedError, NoAnswerError):
                self.answers["closed"] += 1
                return
            self.answers[str(frame["data"].get("code", frame["type"]))] += 1

    def close(self) -> None:
        for client in self._clients:
            client.abort()


async def attempts(stack: Stack) -> list[Finding]:
    """20,000 connection attempts from 400 addresses, some silent, some with a handshake, none of which says more."""
    (name,) = await make_accounts(stack, 1)
    at_rest = stack.memory_kib("edge-1") / 1024
    peak, results = at_rest, Counter[str]()
    sources = [address() for _ in range(ATTEMPT_ADDRESSES)]
    held: list[socket.socket | asyncio.StreamWriter] = []
    context, began = plain_context(), time.monotonic()

    async def attempt(number: int) -> None:
        source = sources[number % ATTEMPT_ADDRESSES]
        try:
            if number % 4:
                raw = socket.socket()
                raw.setblocking(False)
                raw.bind((source, 0))
                held.append(raw)
                await asyncio.wait_for(asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", stack.port)), 20)
                results["silent"] += 1
            else:
                _, writer = await asyncio.wait_for(
                    asyncio.open_connection("127.0.0.1", stack.port, ssl=context, local_addr=(source, 0)), 20
                )
                held.append(writer)
                results["handshakes"] += 1
        except (OSError, TimeoutError) as error:
            results[type(error).__name__] += 1

    for start in range(0, ATTEMPTS, 200):
        await asyncio.gather(*(attempt(number) for number in range(start, start + 200)))
        peak = max(peak, stack.memory_kib("edge-1") / 1024)
        while len(held) > 8_000:
            held.pop(0).close()
    seconds = time.monotonic() - began
    ended = time.monotonic()
    for each in held:
        each.close()
    recovered = float("inf")
    while recovered == float("inf") and time.monotonic() - ended < 2 * RECOVERED_S_MAX:
        with contextlib.suppress(OSError, ClosedError, NoAnswerError):
            if await good_login_s(stack, name) < GOOD_LOGIN_S_MAX:
                recovered = time.monotonic() - ended
    await asyncio.sleep(5)
    after = stack.memory_kib("edge-1") / 1024
    return [
        Finding("attempts", f"{sum(results.values())} in {seconds:.0f} s: {dict(results)}", True),
        Finding(
            "memory of the edge at rest, at most, and 5 s later",
            f"{at_rest:.0f}, {peak:.0f} and {after:.0f} MiB",
            peak <= MEMORY_MIB_MAX,
        ),
        Finding("somebody gets in again after", f"{recovered:.1f} s", recovered <= RECOVERED_S_MAX),
    ]
