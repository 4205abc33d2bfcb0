"""N concurrent clients register, log in, join one room and talk: `python tests/load_test.py 50`.

Nothing is assumed: an acknowledgement counts when it came, a delivery when it came, in order and once, to each
member. The exit status is 0 only when there was no error and no delivery is missing. Without a target it starts a
stack of its own with deploy/config/bench.toml, on free ports, in a home that is deleted afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it can be called by its path

from tests.helpers.raw_client import ClosedError, Frame, NoAnswerError, RawClient, encode  # noqa: E402
from tests.helpers.stack import running_stack  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# An address may hold 64 connections that are not logged in (docs/protocol.md, 8).
LOGINS_AT_ONCE = 32
RETRY_S = 0.5  # where a refusal names no time of its own
PASSWORD = "correct horse battery"
HEARTBEAT_S = 25.0  # the server hangs up after 60 s of silence
REFUSALS = {"rate_limited", "overloaded", "unavailable"}  # certainly not done; asking again later is right


@dataclass(frozen=True)
class Target:
    """Where the edges are."""

    host: str
    ports: tuple[int, ...]
    ca: str


@dataclass
class Tally:
    """What was counted, over all clients."""

    connected: int = 0
    sent: int = 0
    retried: int = 0
    delivered: int = 0
    talk_s: float = 0.0  # from the first text to the last delivery
    acknowledged: dict[int, str] = field(default_factory=dict)  # seq -> text
    acknowledgement_s: list[float] = field(default_factory=list)
    delivery_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


class Member:
    """One client: a connection, a reader that counts, and requests that are answered by it."""

    def __init__(self, name: str, tally: Tally, sent_at: dict[str, float]) -> None:
        self.name = name
        self.received: list[tuple[int, str]] = []
        self.news = asyncio.Event()
        self._tally = tally
        self._sent_at = sent_at
        self._replies: dict[int, asyncio.Future[Frame]] = {}
        self._last_id = 0
        self._client: RawClient | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: Exception | None = None

    async def enter(self, target: Target, port: int) -> None:
        """Connects, registers and logs in."""
        self._client = await RawClient.connect(target.host, port, target.ca)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._beat())]
        for kind in ("register_request", "auth_request"):
            await self.ask(kind, {"username": self.name, "password": PASSWORD})
        self._tally.connected += 1

    async def ask(self, type_: str, data: Frame, room_id: str | None = None) -> Frame:
        """The data of a successful reply; asks again while the server says `later`."""
        while True:
            reply = await self._ask_once(type_, data, room_id)
            answer: Frame = reply["data"]
            if reply["type"] != "error" and answer.get("success", True):
                return answer
            if answer.get("code") not in REFUSALS:
                raise AssertionError(f"{type_}: {answer.get('code')}")
            self._tally.retried += 1
            await asyncio.sleep(answer.get("retry_after_s", RETRY_S))

    async def _ask_once(self, type_: str, data: Frame, room_id: str | None) -> Frame:
        assert self._client is not None
        if self._failure is not None:
            raise self._failure
        self._last_id += 1
        frame: Frame = {"type": type_, "id": self._last_id, "data": data}
        if room_id is not None:
            frame["room_id"] = room_id
        reply = self._replies[self._last_id] = asyncio.get_running_loop().create_future()
        await self._client.send_bytes(encode(frame))
        return await reply

    async def talk(self, room_id: str, messages: int) -> None:
        """Sends one text after the other, each when the one before is acknowledged."""
        for number in range(messages):
            text = f"{self.name} says {number}"
            self._sent_at[text] = started = time.perf_counter()
            self._tally.sent += 1
            answer = await self.ask("text_message", {"text": text}, room_id)
            self._tally.acknowledgement_s.append(time.perf_counter() - started)
            if self._tally.acknowledged.setdefault(answer["seq"], text) != text:
                raise AssertionError(f"seq {answer['seq']} was given twice")

    async def _beat(self) -> None:
        assert self._client is not None
        with contextlib.suppress(ClosedError, NoAnswerError):  # the reader tells why
            while True:
                await asyncio.sleep(HEARTBEAT_S)
                await self._client.send("heartbeat")

    async def _read(self) -> None:
        """Until the connection fails, which then fails everything that waits for it."""
        try:
            await self._read_on()
        except (AssertionError, OSError, ClosedError) as error:
            self._failure = error
            for reply in self._replies.values():
                reply.set_exception(error)
            self._replies.clear()
            self.news.set()

    async def _read_on(self) -> None:
        assert self._client is not None
        while True:
            try:
                frame = await self._client.read()
            except NoAnswerError:
                continue  # silence is no fault here
            if "re" in frame:
                self._replies.pop(frame["re"]).set_result(frame)
            elif frame["type"] == "messages":
                self._take(frame["data"]["messages"])
            elif frame["type"] in {"goodbye", "error"}:
                raise AssertionError(f"{frame['type']}: {frame['data']}")

    def _take(self, messages: list[Frame]) -> None:
        now = time.perf_counter()
        for message in messages:
            if self.received and message["seq"] != self.received[-1][0] + 1:
                self._tally.errors[f"seq {message['seq']} came after {self.received[-1][0]}"] += 1
            self.received.append((message["seq"], message["text"]))
            self._tally.delivered += 1
            if message["text"] in self._sent_at:
                self._tally.delivery_s.append(now - self._sent_at[message["text"]])
        self.news.set()

    async def wait_for_last(self, count: int) -> None:
        """Until that many messages are in."""
        while len(self.received) < count:
            if self._failure is not None:
                raise self._failure
            self.news.clear()
            await self.news.wait()

    async def close(self) -> None:
        """Hangs up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.close()


async def run(target: Target, clients: int, messages: int, timeout_s: float) -> Tally:
    """Does the whole thing and returns what was counted."""
    tally = Tally()
    sent_at: dict[str, float] = {}
    run_id = secrets.token_hex(4)
    members = [Member(f"load{run_id}n{number}", tally, sent_at) for number in range(clients)]
    try:
        async with asyncio.timeout(timeout_s):
            room_id = await _gather_in_a_room(members, target, f"load {run_id}")
            started = time.perf_counter()
            await asyncio.gather(*(_talk(member, room_id, messages, tally) for member in members))
            await asyncio.gather(*(member.wait_for_last(len(tally.acknowledged)) for member in members))
            tally.talk_s = time.perf_counter() - started
    except TimeoutError:
        tally.errors[f"not done within {timeout_s:g} s"] += 1
    except (AssertionError, OSError, ClosedError, NoAnswerError) as error:
        tally.errors[f"{type(error).__name__}: {error}"] += 1
    finally:
        await asyncio.gather(*(member.close() for member in members), return_exceptions=True)
    _audit(members, tally)
    return tally


async def _gather_in_a_room(members: Sequence[Member], target: Target, room: str) -> str:
    doors = asyncio.Semaphore(LOGINS_AT_ONCE)

    async def enter(number: int, member: Member) -> None:
        async with doors:
            await member.enter(target, target.ports[number % len(target.ports)])

    await asyncio.gather(*(enter(number, member) for number, member in enumerate(members)))
    room_id = (await members[0].ask("create_room", {"name": room}))["room_id"]
    await asyncio.gather(*(member.ask("join_room", {}, room_id) for member in members[1:]))
    return str(room_id)


async def _talk(member: Member, room_id: str, messages: int, tally: Tally) -> None:
    try:
        await member.talk(room_id, messages)
    except (AssertionError, OSError, ClosedError, NoAnswerError) as error:
        tally.errors[f"{type(error).__name__}: {error}"] += 1


def _audit(members: Sequence[Member], tally: Tally) -> None:
    """Every acknowledged message, to every member, once, with its text."""
    for member in members:
        received = dict(member.received)
        if len(received) != len(member.received):
            tally.errors["delivered twice"] += len(member.received) - len(received)
        for seq, text in tally.acknowledged.items():
            if seq not in received:
                tally.errors["acknowledged but not delivered"] += 1
            elif received[seq] != text:
                tally.errors["delivered with another text"] += 1


def report(tally: Tally, *, clients: int, duration_s: float, talk_s: float) -> str:
    """The figures, one a line."""
    expected = len(tally.acknowledged) * clients
    rows = {
        "duration": f"{duration_s:.2f} s",
        "clients connected": f"{tally.connected}/{clients}",
        "messages sent": str(tally.sent),
        "acknowledged": str(len(tally.acknowledged)),
        "delivered": f"{tally.delivered} of {expected}",
        "asked again": f"{tally.retried} (after a refusal that named a time)",
        "errors": str(sum(tally.errors.values())),
        "messages/s": f"{len(tally.acknowledged) / talk_s:.1f} (deliveries/s {tally.delivered / talk_s:.1f})",
        "latency p50/p99": _quantiles(tally.acknowledgement_s) + " (send to acknowledgement)",
        "delivery p50/p99": _quantiles(tally.delivery_s) + " (send to each member)",
    }
    lines = [f"{name:<18} {value}" for name, value in rows.items()]
    return "\n".join(lines + [f"error: {text} ({count})" for text, count in tally.errors.most_common(20)])


def _quantiles(samples: list[float]) -> str:
    if not samples:
        return "-"
    ordered = sorted(samples)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1000 for q in (0.5, 0.99))
    return f"{p50:.1f} / {p99:.1f} ms"


@contextlib.contextmanager
def target_of(arguments: argparse.Namespace) -> Iterator[Target]:
    """The stack that was named, or one of our own."""
    if arguments.home is not None:
        try:
            info = json.loads((arguments.home / "run" / "stack.json").read_text())
        except OSError as error:
            raise SystemExit(f"load_test: no stack has its home in {arguments.home}: {error.strerror}") from None
        yield _target_at(info, arguments.host or "localhost")
    elif arguments.port is not None or arguments.host is not None:
        if arguments.ca is None:
            raise SystemExit("load_test: --host and --port need --ca, the certificate authority of that server")
        yield Target(arguments.host or "localhost", (arguments.port or 8888,), str(arguments.ca))
    else:
        with running_stack(config=(ROOT / "deploy" / "config" / "bench.toml").read_text()) as stack:
            yield _target_at(stack.info(), "localhost")


def _target_at(info: dict[str, Any], host: str) -> Target:
    ports = tuple(process["client_port"] for process in info["processes"] if "client_port" in process)
    return Target(host, ports, info["client_ca"])


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when everything that was acknowledged reached everybody and nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", type=int, nargs="?", default=50, metavar="N", help="concurrent clients (50)")
    parser.add_argument("--messages", type=int, default=10, metavar="M", help="texts that each client sends (10)")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="for everything (300)")
    parser.add_argument("--home", type=Path, metavar="DIR", help="home of the stack to talk to")
    parser.add_argument("--host", metavar="H", help="server to talk to")
    parser.add_argument("--port", type=int, metavar="P", help="its port (8888)")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="its certificate authority")
    arguments = parser.parse_args(argv)
    if arguments.clients < 1 or arguments.messages < 0:
        parser.error("N must be at least 1, and M not negative")
    with target_of(arguments) as target:
        started = time.perf_counter()
        tally = asyncio.run(run(target, arguments.clients, arguments.messages, arguments.timeout))
        duration_s = time.perf_counter() - started
    print(report(tally, clients=arguments.clients, duration_s=duration_s, talk_s=tally.talk_s or duration_s))
    return 0 if not tally.errors and tally.connected == arguments.clients else 1


if __name__ == "__main__":
    sys.exit(main())
