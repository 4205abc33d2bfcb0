"""Kills an edge (-9) that has thousands of clients, and measures how they come back: `python -m tests.chaos.storm`.

The clients are the product's own library and know two edges. All of them are at the first, which dies and, so that
they have to go to the other, stays dead. At the other edge other people chat all the time. It prints, as JSON,

- `back_s`: after how many seconds the clients had their session again (p50, p99, max), and how they were spread
- `lost`: messages that somebody did not see, or not once and in order; talkers go on through all of it
- `reads`: what the storm has cost auth and rooms in reads of their databases, for each client, and what a client costs
  that resumes while nothing else happens; without a herd these are the same
- `chat_ms`: how long the others' messages took to each member, before and during the storm (p50, p99)

The crowd is a process of its own with the lowest priority: elsewhere it would have machines of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from client.events import LoggedOut, MessageArrived, StateChanged
from tests.helpers.people import fresh
from tests.helpers.raw_client import RawClient
from tests.helpers.stack import ROOT, Stack, running_stack
from tests.helpers.talkers import Talker, everything_of, until

CONFIG = (ROOT / "deploy" / "config" / "bench.toml").read_text()
AT_ONCE = 32  # registrations
ROOM_OF = 20
CALM_S = 10.0
OTHER_ROOMS = 5
OTHERS_IN_ROOM = 4
OTHERS_PAUSE_S = 0.05
TALK_PAUSE_S = 1.0
BACK_MAX_S = 60.0
USUAL = 100  # clients that resume one after the other


class Member(Talker):
    """One of the crowd: when it had its session again, and what it saw."""

    def __init__(self, stack: Any, folder: Path, ports: list[int]) -> None:
        super().__init__(stack, folder, ports=ports)
        self.live_at = 0.0
        self.state = ""
        self.seqs: list[int] = []

    def _on_event(self, event: object) -> None:
        if isinstance(event, MessageArrived):
            self.seqs.append(event.message.seq)
        elif isinstance(event, StateChanged):
            self.live_at = time.monotonic() if event.state == "live" else 0.0
            self.state = f"{event.state} {event.reason}"
        elif isinstance(event, LoggedOut):
            self.state = f"logged out: {event.reason}"


class Place:
    """Where a stack is, for a process that did not start it."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home, port
        self.ca = json.loads((home / "run" / "stack.json").read_text())["client_ca"]


async def crowd(home: Path, port: int, count: int) -> None:
    """The crowd's process: says "here" when all are there, waits for a line on stdin, and then reports."""
    stack = Place(home, port)
    with tempfile.TemporaryDirectory() as folder:
        members = [Member(stack, Path(folder), [port, port + 1]) for _ in range(count)]
        gate = asyncio.Semaphore(AT_ONCE)

        async def arrive(member: Member) -> None:
            async with gate:
                await member.arrive()

        await asyncio.gather(*map(arrive, members))
        rooms: list[tuple[str, list[Member]]] = []
        for start in range(0, count, ROOM_OF):
            group = members[start : start + ROOM_OF]
            room_id = (await group[0].session.create_room(fresh("room"))).room_id
            for member in group[1:]:
                await member.session.join_room(room_id)
            rooms.append((room_id, group))
        stop = asyncio.Event()
        talks = [asyncio.create_task(talk(group[0], room_id, stop)) for room_id, group in rooms]
        print("here", flush=True)
        died_at = float(await asyncio.to_thread(sys.stdin.readline))
        try:
            await until(lambda: all(member.live_at > died_at for member in members), timeout_s=BACK_MAX_S)
        except TimeoutError:
            away = Counter(member.state for member in members if member.live_at <= died_at)
            print(f"not back: {dict(away)}", file=sys.stderr)
            raise
        print("back", flush=True)
        back = sorted(member.live_at - died_at for member in members)
        await asyncio.sleep(2 * TALK_PAUSE_S)
        stop.set()
        await asyncio.gather(*talks)
        lost = await count_lost(stack, rooms)
        print(json.dumps({"back_s": spread(back), "lost": lost}), flush=True)
        for member in members:
            await member.session.close()


async def talk(member: Member, room_id: str, stop: asyncio.Event) -> None:
    posted = member.posted.setdefault(room_id, [])
    while not stop.is_set():
        text = f"{member.name} {len(posted)}"
        member.session.post_text(room_id, text)
        posted.append(text)
        await asyncio.sleep(TALK_PAUSE_S)


async def count_lost(stack: Any, rooms: list[tuple[str, list[Member]]]) -> dict[str, int]:
    """What is not in the log in the order in which it was posted, and what somebody did not see once and in order."""
    reader = await RawClient.connect("localhost", stack.port + 1, stack.ca)
    await reader.enter(fresh())
    unstored = unseen = messages = 0
    for room_id, group in rooms:
        assert await group[0].session.settle(20)
        await reader.expect("join_room", room_id=room_id)
        log = await everything_of(reader, room_id)
        messages += len(log)
        unstored += [message["text"] for message in log] != group[0].posted[room_id]
        seqs = [message["seq"] for message in log]
        await until(lambda: all(len(member.seqs) >= len(seqs) for member in group))  # noqa: B023 - awaited here
        unseen += sum(member.seqs != seqs for member in group)
    await reader.close()
    return {"messages": messages, "rooms_with_a_loss": unstored, "members_with_a_gap": unseen}


def spread(seconds: list[float]) -> dict[str, Any]:
    per_second = [sum(1 for one in seconds if second <= one < second + 1) for second in range(int(seconds[-1]) + 1)]
    return {**quantiles(seconds, 1), "clients": len(seconds), "in_each_second": per_second}


def quantiles(values: list[float], factor: float) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {
        "p50": round(cuts[49] * factor, 2),
        "p99": round(cuts[98] * factor, 2),
        "max": round(max(values) * factor, 2),
    }


class Others:
    """People at the second edge who chat all the time, and how long each message took to each of them."""

    def __init__(self) -> None:
        self.delays: list[tuple[float, float]] = []  # when it was sent, and how long it took
        self._tasks: list[asyncio.Task[None]] = []
        self.people: list[RawClient] = []

    async def start(self, stack: Stack) -> None:
        for _ in range(OTHER_ROOMS):
            people = [await RawClient.connect("localhost", stack.port + 1, stack.ca) for _ in range(OTHERS_IN_ROOM)]
            for person in people:
                await person.enter(fresh())
            room_id = (await people[0].expect("create_room", {"name": fresh("room")}))["room_id"]
            for person in people[1:]:
                await person.expect("join_room", room_id=room_id)
            self.people += people
            self._tasks += [asyncio.create_task(self._listen(person)) for person in people]
            self._tasks.append(asyncio.create_task(self._talk(people[0], room_id)))

    async def _talk(self, person: RawClient, room_id: str) -> None:
        while True:
            text = repr(time.monotonic())
            await person.send("text_message", {"text": text}, room_id=room_id)
            await asyncio.sleep(OTHERS_PAUSE_S)

    async def _listen(self, person: RawClient) -> None:
        while True:
            frame = await person.read()
            if frame["type"] == "messages":
                now = time.monotonic()
                for message in frame["data"]["messages"]:
                    sent_at = float(message["text"])
                    self.delays.append((sent_at, now - sent_at))

    def during(self, start: float, end: float) -> dict[str, float]:
        return quantiles([delay for sent_at, delay in self.delays if start <= sent_at < end], 1_000)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for person in self.people:
            person.abort()


def reads(stack: Stack) -> int:
    """Reads of the databases of auth and rooms so far."""
    total = 0
    for name, process in stack.processes().items():
        if name.startswith(("auth", "rooms")):
            with urllib.request.urlopen(f"http://{process['prometheus']}/metrics", timeout=10) as answer:
                for line in answer.read().decode().splitlines():
                    if "_database_reads" in line and not line.startswith("#"):
                        total += int(float(line.rpartition(" ")[2]))
    return total


async def usual_reads(stack: Stack) -> float:
    """What a client costs that resumes while nothing else happens, in reads; rooms of as many members."""
    people = [await RawClient.connect("localhost", stack.port + 1, stack.ca) for _ in range(ROOM_OF)]
    logins = [await person.enter(fresh()) for person in people]
    room = await people[0].expect("create_room", {"name": fresh("room")})
    for person in people[1:]:
        await person.expect("join_room", room_id=room["room_id"])
    tokens = [login["token"] for login in logins]
    before, began = await asyncio.to_thread(reads, stack), time.monotonic()
    for number in range(USUAL):
        which = number % ROOM_OF
        people[which].abort()
        people[which] = await RawClient.connect("localhost", stack.port + 1, stack.ca)
        position = {room["room_id"]: {"epoch": room["epoch"], "seq": 0}}
        answer = await people[which].expect("resume", {"token": tokens[which], "rooms": position})
        tokens[which] = answer["token"]
    spent, seconds = await asyncio.to_thread(reads, stack) - before, time.monotonic() - began
    before = await asyncio.to_thread(reads, stack)
    await asyncio.sleep(5)
    idle = (await asyncio.to_thread(reads, stack) - before) / 5
    for person in people:
        person.abort()
    return (spent - idle * seconds) / USUAL


async def measure(stack: Stack, count: int) -> dict[str, Any]:
    usual = await usual_reads(stack)
    command = [sys.executable, "-m", "tests.chaos.storm", "--crowd", str(stack.home), str(stack.port)]
    process = await asyncio.create_subprocess_exec(
        *command, "--clients", str(count), cwd=ROOT, preexec_fn=lambda: os.nice(19),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert (await process.stdout.readline()) == b"here\n", "the crowd did not come"
    others = Others()
    await others.start(stack)
    await asyncio.sleep(3)
    began = time.monotonic()
    before = await asyncio.to_thread(reads, stack)
    await asyncio.sleep(CALM_S)
    idle = (await asyncio.to_thread(reads, stack) - before) / (time.monotonic() - began)
    calm = others.during(began, time.monotonic())
    assert stack.process is not None
    stack.process.send_signal(signal.SIGSTOP)  # or the edge would be back in a moment
    try:
        before, died_at = await asyncio.to_thread(reads, stack), time.monotonic()
        os.kill(stack.pids()["edge-1"], signal.SIGKILL)
        process.stdin.write(f"{died_at}\n".encode())
        await process.stdin.drain()
        assert (await process.stdout.readline()) == b"back\n", "they did not come back"
        back_at = time.monotonic()
        spent = await asyncio.to_thread(reads, stack) - before - idle * (back_at - died_at)
        storm = others.during(died_at, back_at)
        report: dict[str, Any] = json.loads(await process.stdout.readline())
        await others.stop()
        await process.wait()
    finally:
        stack.process.send_signal(signal.SIGCONT)
    return {
        **report,
        "reads": {"of_a_client": round(spent / count, 2), "usually": round(usual, 2)},
        "chat_ms": {"before": calm, "during": storm},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.storm", description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=2_000)
    parser.add_argument("--crowd", nargs=2, metavar=("HOME", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if arguments.crowd:
            home, port = arguments.crowd
            runner.run(crowd(Path(home), int(port), arguments.clients))
            return
        with running_stack(edges=2, config=CONFIG) as stack:
            print(json.dumps(runner.run(measure(stack, arguments.clients)), indent=1))


if __name__ == "__main__":
    main()
