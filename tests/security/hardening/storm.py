"""A storm of logins, and of connections: those who are in go on, those from elsewhere get in, memory is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.helpers.raw_client import ClosedError, NoAnswerError
from tests.helpers.stack import ROOT
from tests.security.hardening.world import (
    Finding,
    address,
    chatting,
    good_login_s,
    make_accounts,
    percentile,
    plain_context,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.helpers.stack import Stack

LOGINS_PER_S = 200
STORM_S = 30.0
WARM_UP_S = 10.0
SETTLED_S = 5.0
"""After a storm: what is queued then is refused or hashed."""

STORM_ADDRESSES = 8
LOGINS_SENT_MIN = 0.95
"""Of the rate: fewer would be another, smaller storm."""

P99_FACTOR_MAX = 1.5
GOOD_LOGIN_S_MAX = 3.0
ATTEMPTS = 20_000
ATTEMPT_ADDRESSES = 400
DESCRIPTORS_ELSE = 1_000
MEMORY_MIB_MAX = 500
"""connections_max (10,000) at the 35 KiB that a connection takes, and the edge itself."""

RECOVERED_S_MAX = 60.0


async def logins(stack: Stack) -> list[Finding]:
    """200 logins a second with names that nobody has, each on a connection of its own, while people chat."""
    return await _logins(stack, each="new")


async def held_logins(stack: Stack) -> list[Finding]:
    """200 logins a second on 400 connections that were there before, while people chat."""
    return await _logins(stack, each="held")


async def _logins(stack: Stack, *, each: str) -> list[Finding]:
    async with AsyncExitStack() as exits:
        names = await make_accounts(stack, 4)
        async with chatting(stack, exits) as chat:

            async def watch() -> tuple[list[float], list[float]]:
                """How long texts took, and how long people from elsewhere needed to get in meanwhile."""
                begin, waits = len(chat.latencies_s), []
                began = time.monotonic()
                for number, name in enumerate(names, 1):
                    await asyncio.sleep(began + STORM_S * number / (len(names) + 1) - time.monotonic())
                    waits.append(await good_login_s(stack, name))
                await asyncio.sleep(began + STORM_S - time.monotonic())
                return chat.latencies_s[begin:], waits

            await chat.measure(WARM_UP_S)
            before = await chat.measure(STORM_S)
            rest = cpu_s(stack)
            async with storming(stack, each=each) as storm:
                during, waits = await watch()
                counts = await storm.counts()
            busy = {name: f"{(cpu_s(stack)[name] - rest[name]) / STORM_S:.2f}" for name in rest}
            await asyncio.sleep(SETTLED_S)
            after = await chat.measure(STORM_S)
            failures = chat.failures
    base, worst = percentile(before + after, 0.99), percentile(during, 0.99)
    medians, tails = (
        [f"{percentile(each, part) * 1e3:.1f}" for each in (before, during, after)] for part in (0.5, 0.99)
    )
    rate = counts["sent"] / counts["seconds"]
    return [
        Finding(
            "logins a second",
            f"{rate:.0f} ({counts['answers']}; cores: {busy}, the driver {counts['cpu_s'] / counts['seconds']:.2f})",
            rate >= LOGINS_SENT_MIN * LOGINS_PER_S,
        ),
        Finding(
            "chat p99 before, during and after",
            f"{', '.join(tails)} ms: {worst / base:.2f} times (p50 {', '.join(medians)} ms)",
            worst <= P99_FACTOR_MAX * base,
        ),
        Finding("texts that failed", str(failures), failures == 0),
        Finding(
            "a good user from elsewhere gets in",
            ", ".join(f"{wait_s:.2f} s" for wait_s in waits),
            max(waits) <= GOOD_LOGIN_S_MAX,
        ),
    ]


def cpu_s(stack: Stack) -> dict[str, float]:
    """CPU time of each process until now."""
    ticks = os.sysconf("SC_CLK_TCK")
    spent = {}
    for name, pid in stack.pids().items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent[name] = (int(fields[11]) + int(fields[12])) / ticks
    return spent


class Storm:
    """The process that makes it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def begin(self) -> None:
        """Once its connections are there."""
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        assert await self._process.stdout.readline() == b"ready\n"
        self._process.stdin.write(b"go\n")

    async def counts(self) -> dict[str, Any]:
        """What it did, at its end."""
        assert self._process.stdout is not None
        return dict(json.loads(await self._process.stdout.readline()))


@asynccontextmanager
async def storming(stack: Stack, *, each: str) -> AsyncIterator[Storm]:
    """A storm from eight addresses that has begun."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.security.hardening.knocking", "--port", str(stack.port), "--each", each,
        "--sources", ",".join(address() for _ in range(STORM_ADDRESSES)), "--rate", str(LOGINS_PER_S),
        "--seconds", str(STORM_S), cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        storm = Storm(process)
        await storm.begin()
        yield storm
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def attempts(stack: Stack) -> list[Finding]:
    """20,000 connection attempts from 400 addresses, a quarter with a handshake, which say no more and stay."""
    (name,) = await make_accounts(stack, 1)
    at_rest = stack.memory_kib("edge-1") / 1024
    peak, results = at_rest, Counter[str]()
    sources = [address() for _ in range(ATTEMPT_ADDRESSES)]
    held: list[socket.socket | asyncio.StreamWriter] = []
    held_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - DESCRIPTORS_ELSE
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
        while len(held) > held_max:
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
        Finding(
            "attempts", f"{sum(results.values())} in {seconds:.0f} s: {dict(results)}; {len(held)} kept open", True
        ),
        Finding(
            "memory of the edge at rest, at most, and 5 s later",
            f"{at_rest:.0f}, {peak:.0f} and {after:.0f} MiB",
            peak <= MEMORY_MIB_MAX,
        ),
        Finding("somebody gets in again after", f"{recovered:.1f} s", recovered <= RECOVERED_S_MAX),
    ]
