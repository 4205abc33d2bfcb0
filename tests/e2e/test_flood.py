"""Too much of everything: pipelined sends, readers that do not read, thousands of connections that never speak."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from typing import TYPE_CHECKING

import pytest

from tests.helpers.raw_client import ClosedError, NoAnswerError, encode, tls_context
from tests.helpers.witness import CleanLogs, undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.people import People
    from tests.helpers.raw_client import RawClient
    from tests.helpers.stack import Stack

# What an edge may grow by under attack: a bound on leaks and unbounded queues, not a budget.
GROWTH_KIB = 100 * 1024


@pytest.fixture(autouse=True)
def bounded(stack: Stack) -> Iterator[None]:
    """No traceback, no lasting growth of any process."""
    logs = CleanLogs(stack)
    before = {name: stack.memory_kib(name) for name in stack.pids()}
    pids = stack.pids()
    yield
    logs.check()
    assert stack.pids() == pids, "a process died"
    for name, kib in before.items():
        assert stack.memory_kib(name) - kib < GROWTH_KIB, name


async def test_10_000_pipelined_sends_are_all_answered(people: People) -> None:
    alice = await people.person()
    room_id = await people.room(alice)
    count = 10_000
    stream = b"".join(
        encode({"type": "text_message", "id": number, "room_id": room_id, "data": {"text": f"text {number}"}})
        for number in range(count)
    )

    async def send() -> None:
        for start in range(0, len(stream), 65_536):
            await alice.send_bytes(stream[start : start + 65_536])

    async with undisturbed(people):
        sending = asyncio.create_task(send())
        answers: dict[int, str | int] = {}
        delivered: list[int] = []
        while len(answers) < count:
            frame = await alice.read()
            if "re" in frame:
                assert frame["re"] not in answers
                answers[frame["re"]] = frame["data"].get("seq") or frame["data"]["code"]
            elif frame["type"] == "messages":
                delivered += [message["seq"] for message in frame["data"]["messages"]]
        await sending
    stored = [answer for answer in answers.values() if isinstance(answer, int)]
    assert set(answers.values()) - set(stored) <= {"rate_limited", "overloaded"}
    by_number = [answers[number] for number in range(count) if isinstance(answers[number], int)]
    assert by_number == list(range(1, len(stored) + 1))
    while len(delivered) < len(stored):
        delivered += [message["seq"] for message in await alice.some_messages(room_id)]
    assert delivered == by_number


async def test_who_sends_without_reading_is_cut_off_and_holds_up_nobody(people: People, stack: Stack) -> None:
    alice = await people.person()
    room_id = await people.room(alice)
    for _ in range(20):
        await alice.say(room_id, "x" * 4000)
    before = stack.memory_kib("edge-1")
    ask = encode({"type": "history", "id": 1, "room_id": room_id, "data": {"limit": 200}}) * 200

    async def ask_for_ever() -> None:
        while True:
            await alice.send_bytes(ask)  # ends when the server hangs up, or stops reading for too long

    async with undisturbed(people):
        with contextlib.suppress(ClosedError, NoAnswerError, TimeoutError):
            await asyncio.wait_for(ask_for_ever(), 40)
        assert stack.memory_kib("edge-1") - before < GROWTH_KIB
    assert await alice.is_closed(), "still connected although it never read"


async def test_a_member_who_stops_reading_does_not_hold_up_the_room(people: People) -> None:
    alice, bob, sleepy = [await people.person() for _ in range(3)]
    room_id = await people.room(alice, bob, sleepy)
    sleepy.writer.transport.pause_reading()  # type: ignore[attr-defined] -- asyncio's transports can
    for number in range(1, 101):
        await alice.say(room_id, f"{number}" + "x" * 3900)
        [message] = await bob.messages(room_id, 1)
        assert message["seq"] == number


async def test_2_000_connections_that_never_speak(people: People, stack: Stack) -> None:
    """From many addresses, so that the limit by address does not help."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    silent: list[socket.socket] = []
    try:
        async with undisturbed(people):
            for number in range(2000):
                connection = socket.socket()
                connection.setblocking(False)
                connection.bind((f"127.0.1.{1 + number % 50}", 0))
                silent.append(connection)
                with contextlib.suppress(BlockingIOError):
                    connection.connect(("127.0.0.1", stack.port))
                if number % 100 == 0:
                    await asyncio.sleep(0)
            newcomer = await people.person()
            room_id = await people.room(newcomer)
            await newcomer.say(room_id, "in spite of them")
            loop = asyncio.get_running_loop()
            # The server has hung up on each of them when the five seconds of the handshake are over.
            async with asyncio.timeout(30):
                for connection in silent:
                    with contextlib.suppress(OSError):
                        assert await loop.sock_recv(connection, 1) == b""
    finally:
        for connection in silent:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_an_address_may_hold_64_that_are_not_logged_in(people: People, stack: Stack) -> None:
    context = tls_context(stack.ca)
    held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def connect() -> None:
        with contextlib.suppress(OSError):
            held.append(
                await asyncio.open_connection(
                    "127.0.0.1", stack.port, ssl=context, server_hostname="localhost", local_addr=("127.0.2.1", 0)
                )
            )

    try:
        async with undisturbed(people):
            for _ in range(10):
                await asyncio.gather(*(connect() for _ in range(20)))
            assert (await people.connect()) is not None

            async def is_open(reader: asyncio.StreamReader) -> bool:
                try:
                    async with asyncio.timeout(2):
                        while await reader.read(4096):
                            pass
                except TimeoutError:
                    return True
                except OSError:
                    pass
                return False

            still_open = await asyncio.gather(*(is_open(reader) for reader, _ in held))
            assert 0 < sum(still_open) <= 64
    finally:
        for _, writer in held:
            writer.transport.abort()


async def test_many_people_come_and_go_at_once(people: People) -> None:
    async def visit() -> None:
        client: RawClient = await people.person()
        room_id = await people.room(client)
        await client.say(room_id, "hello")
        await client.close()

    async with undisturbed(people):
        for _ in range(4):
            await asyncio.gather(*(visit() for _ in range(10)))


async def test_joining_and_leaving_a_thousand_times(people: People) -> None:
    alice, bob = await people.person(), await people.person()
    room_id = await people.room(alice)
    async with undisturbed(people):
        for _ in range(300):
            refusals = {"rate_limited", "overloaded"}
            for type_ in ("join_room", "leave_room"):
                reply = await bob.request(type_, room_id=room_id)
                assert reply["type"] == "success" or reply["data"]["code"] in refusals, reply
                if reply["type"] != "success":
                    refusals.add("not_a_member")  # who could not come in cannot leave
    await alice.say(room_id, "quiet at last")
    with contextlib.suppress(NoAnswerError, ClosedError):
        await bob.request("heartbeat")
    assert (await alice.request("heartbeat"))["type"] == "heartbeat"
