"""Workloads that only Parley is asked to stand: far too much at once, and one class of requests against another."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable

from tests.bench.link import make_text
from tests.bench.requester import Requester, percentile
from tests.bench.server import Server
from tests.bench.servers.parley import Parley
from tests.bench.workloads import Figures, closed_loop, connect_all, make_rooms

TICK_S = 0.005
RECOVERY_S = 5.0
SEND_BUFFER_BYTES = 4_096
"""Twenty texts: what a sender may have in its own kernel. By itself Linux makes it megabytes on one machine."""
PROBES = 60
PROBE_INTERVAL_S = 0.05


async def _requesters(server: Server, rooms: int, size: int) -> list[tuple[Requester, str]]:
    """Members of rooms, with the room that each sends to."""
    assert isinstance(server, Parley)
    return [
        (Requester(link), server.room_id(room.name))
        for room in await make_rooms(server, rooms, size)
        for link in room.members
    ]


async def _answered(requesters: Iterable[Requester], timeout: float = 30.0) -> float:
    """Waits until no request is without its answer; returns the seconds that took."""
    watched = list(requesters)
    begin = time.monotonic()
    until = begin + timeout
    while any(one.outstanding for one in watched) and time.monotonic() < until:  # noqa: ASYNC110 - fewer wake-ups
        await asyncio.sleep(0.02)
    return time.monotonic() - begin


async def _probe(requester: Requester, room_id: str) -> list[float]:
    """How long single texts wait for their acknowledgement when nothing presses."""
    requester.waits.clear()
    for _ in range(PROBES):
        requester.send("text_message", {"text": "probe"}, room_id=room_id)
        await asyncio.sleep(PROBE_INTERVAL_S)
    return requester.waits.get("success", [])


def _hold_little(requester: Requester) -> None:
    """Keeps small what was offered and not read yet: a load that still lies in our own kernel has not ended."""
    transport = requester.link.transport
    assert transport is not None
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)


async def overload(server: Server, seconds: float, *, rooms: int, times: float) -> Figures:
    """Offers a multiple of the peak to rooms of four; goodput is what was acknowledged then, as a share of the peak.

    A sender whose socket takes no more sheds what it cannot place (`written` is the rest); somebody who sends a text
    now and then probes what others have of it.
    """
    peak = (await closed_loop(server, seconds, count=rooms, size=4, window=16))["messages_per_s"]
    members = await _requesters(server, rooms + 1, 4)
    prober, probe_room = members.pop()
    before = percentile(await _probe(prober, probe_room), 0.99)
    for requester, _ in members:
        _hold_little(requester)
    rate, offered = peak * times / len(members), 0  # texts a second and member, and how many were offered to each
    text: dict[str, object] = {"text": make_text(0).decode()}
    memory, blocked = server.memory(), 0
    prober.waits.clear()
    begin, probed_at, own = time.monotonic(), 0.0, time.process_time()
    async with server.measured():
        while (now := time.monotonic()) < begin + seconds:
            count = int((now - begin) * rate) - offered
            offered += count
            for requester, room_id in members:
                if requester.link.is_writable:
                    requester.send("text_message", text, room_id=room_id, count=count)
                else:
                    blocked += count
            if now - probed_at >= PROBE_INTERVAL_S:
                prober.send("text_message", {"text": "probe"}, room_id=probe_room)
                memory, probed_at = max(memory, server.memory()), now
            await asyncio.sleep(max(0.0, TICK_S - (time.monotonic() - now)))
    wall, own = time.monotonic() - begin, time.process_time() - own
    acknowledged = sum(requester.answers["success"] for requester, _ in members)
    meanwhile = percentile(prober.waits.get("success", []), 0.99)
    cleared = await _answered(requester for requester, _ in members)
    await asyncio.sleep(max(0.0, RECOVERY_S - cleared))
    after = percentile(await _probe(prober, probe_room), 0.99)
    refusals = [wait for requester, _ in [*members, (prober, "")] for wait in requester.waits.get("error", [])]
    sent = sum(requester.sent for requester, _ in members)
    for requester, _ in members:
        requester.link.abort()
    return {
        "goodput_share": acknowledged / wall / peak,
        "peak_messages_per_s": peak,
        "offered_times_peak": (sent + blocked) / wall / peak,
        "written_times_peak": sent / wall / peak,
        "driver_busy": own / wall,
        "refused_per_s": len(refusals) / wall,
        "refusal_p99_ms": percentile(refusals, 0.99) * 1000,
        "refusal_max_ms": percentile(refusals, 1.0) * 1000,
        "unanswered": sum(requester.outstanding for requester, _ in members),
        "edge_memory_mib": memory / 2**20,
        "cleared_after_s": cleared,
        "probe_p99_before_ms": before * 1000,
        "probe_p99_meanwhile_ms": meanwhile * 1000,
        "probe_p99_after_ms": after * 1000,
    }


async def classes(server: Server, seconds: float) -> Figures:
    """First heartbeats while history pages saturate the server, then history pages while texts do."""
    assert isinstance(server, Parley)
    members = await _requesters(server, 10, 4)
    watcher = Requester((await connect_all(server, ["watcher"]))[0])
    for requester, room_id in members:
        requester.send("text_message", {"text": "something to page through"}, room_id=room_id, count=50)
    await _answered(requester for requester, _ in members)
    for requester, room_id in members:
        requester.keep_in_flight(8, "history", {"limit": 200}, room_id=room_id)
    await asyncio.sleep(0.5)
    async with server.measured():
        begin = time.monotonic()
        while time.monotonic() < begin + seconds:
            watcher.send("heartbeat", {})
            await asyncio.sleep(0.01)
    for requester, _ in members:
        requester.stop()
    await _answered([watcher, *(requester for requester, _ in members)])
    critical = watcher.waits["heartbeat"]

    for requester, room_id in members[1:]:
        requester.keep_in_flight(64, "text_message", {"text": make_text(0).decode()}, room_id=room_id)
        requester.waits.clear()
    low, low_room = members[0]
    low.waits.clear()
    await asyncio.sleep(0.5)
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        low.send("history", {"limit": 200}, room_id=low_room)
        await asyncio.sleep(0.05)
    for requester, _ in members:
        requester.stop()
    await _answered(requester for requester, _ in members)
    waits = low.waits["messages"]
    for requester, _ in members:
        requester.link.abort()
    watcher.link.abort()
    return {
        "critical_p99_ms": percentile(critical, 0.99) * 1000,
        "critical_max_ms": percentile(critical, 1.0) * 1000,
        "low_max_ms": percentile(waits, 1.0) * 1000,
        "low_p50_ms": percentile(waits, 0.5) * 1000,
    }
