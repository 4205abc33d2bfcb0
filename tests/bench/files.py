"""The workload of files: a large file up and down beside chat, and what both cost each other."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from tests.bench.link import make_text
from tests.bench.requester import percentile
from tests.bench.server import DRIVER_CORE, Server
from tests.bench.servers.parley import PASSWORD, Parley
from tests.bench.workloads import Figures, Room, close_all, drained, make_rooms

FILE_BYTES = 200_000_000
USER = "filer"
LINE_S = 120.0


class Chat:
    """Messages at a fixed rate over all rooms, until stopped; latencies by what went on meanwhile."""

    def __init__(self, rooms: list[Room], stamps: list[int], rate: float) -> None:
        self._rooms = rooms
        self._stamps = stamps
        self._rate = rate
        self._task = asyncio.create_task(self._talk())

    async def _talk(self) -> None:
        begin, number = time.monotonic(), 0
        while True:
            while number < (time.monotonic() - begin) * self._rate:
                self._rooms[number % len(self._rooms)].send(make_text(time.monotonic_ns()))
                number += 1
            await asyncio.sleep(max(0.0, begin + number / self._rate - time.monotonic()))

    def latencies_ms(self) -> list[float]:
        """Those since the last call, in milliseconds."""
        found = [stamp / 1e6 for stamp in self._stamps]
        self._stamps.clear()
        return found

    async def stop(self) -> int:
        """Ends; returns the deliveries that never came."""
        self._task.cancel()
        await asyncio.wait([self._task])
        return await drained(self._rooms)


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(LINE_S):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError("the file client has ended too early")
    answer: dict[str, Any] = json.loads(line)
    return answer


async def _go(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    return await _line(process)


async def files(server: Server, seconds: float, *, count: int = 20, size: int = 20, rate: float = 200.0) -> Figures:
    """Chat alone, then beside a file of 200 MB up and down.

    CPU time is that of all processes, less what chat took of it in each second while it was alone.
    """
    assert isinstance(server, Parley)
    stamps: list[int] = []
    rooms = await make_rooms(server, count, size, stamps=stamps)
    close_all([await server.open(USER)])
    ca = json.loads((server.home / "run" / "stack.json").read_text())["client_ca"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.file_client",
        str(server.port), ca, USER, PASSWORD, server.room_id(rooms[0].name), str(FILE_BYTES),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {DRIVER_CORE}),
    )  # fmt: skip
    try:
        await _line(process)
        chat = Chat(rooms, stamps, rate)
        await asyncio.sleep(1.0)
        chat.latencies_ms()
        cpu, wall = server.cpu(), time.monotonic()
        await asyncio.sleep(seconds)
        alone, chat_cpu_share = chat.latencies_ms(), (server.cpu() - cpu) / (time.monotonic() - wall)
        cpu, wall = server.cpu(), time.monotonic()
        async with server.measured():
            upload_s = (await _go(process))["upload_s"]
            beside_upload, up_cpu = chat.latencies_ms(), server.cpu() - cpu
            middle = server.cpu()
            download_s = (await _go(process))["download_s"]
            beside_download, down_cpu = chat.latencies_ms(), server.cpu() - middle
        cpu, wall = server.cpu() - cpu, time.monotonic() - wall
        lost = await chat.stop()
        await _line(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    for room in rooms:
        close_all([*room.members, room.sender])
    before = percentile(alone, 0.99)
    beside = percentile(beside_upload + beside_download, 0.99)
    return {
        "mb_per_cpu_s": 2 * FILE_BYTES / 1e6 / (cpu - chat_cpu_share * wall),
        "mb_per_cpu_s_with_chat": 2 * FILE_BYTES / 1e6 / cpu,
        "upload_mb_per_cpu_s": FILE_BYTES / 1e6 / (up_cpu - chat_cpu_share * upload_s),
        "download_mb_per_cpu_s": FILE_BYTES / 1e6 / (down_cpu - chat_cpu_share * download_s),
        "chat_cpu_share": chat_cpu_share,
        "upload_mb_per_s": FILE_BYTES / 1e6 / upload_s,
        "download_mb_per_s": FILE_BYTES / 1e6 / download_s,
        "chat_p99_ratio": beside / before,
        "chat_p50_alone_ms": percentile(alone, 0.5),
        "chat_p99_alone_ms": before,
        "chat_p99_upload_ms": percentile(beside_upload, 0.99),
        "chat_p99_download_ms": percentile(beside_download, 0.99),
        "server_busy": cpu / wall,
        "lost": lost,
    }
