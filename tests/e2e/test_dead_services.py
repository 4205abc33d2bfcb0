"""A service that is dead or frozen: calls fail before their deadline, whoever talks goes on where that is possible,
and everything works again within five seconds of its return."""

from __future__ import annotations

import os
import signal
import time
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.people import HEALED_S, People, fresh
from tests.helpers.raw_client import RawClient
from tests.helpers.stack import Stack, is_alive, running_stack
from tests.helpers.talkers import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

DEADLINE_S = 5.0  # of a call from the edge to another service
AT_ONCE_S = 2.5  # once the edge knows: one attempt to connect anew may be under way
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as running:
        yield running


@pytest.fixture
async def people(stack: Stack) -> AsyncIterator[People]:
    async with AsyncExitStack() as exits:
        yield People(stack, exits)


@contextmanager
def frozen(stack: Stack, name: str) -> Iterator[None]:
    """The process is there and does not answer."""
    pid = stack.pids()[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def dead(stack: Stack, name: str) -> Iterator[None]:
    """The process is gone, and the frozen supervisor does not start another one."""
    assert stack.process is not None
    stack.process.send_signal(signal.SIGSTOP)
    try:
        pid = stack.pids()[name]
        os.kill(pid, signal.SIGKILL)
        while is_alive(pid):
            time.sleep(0.01)
        yield
    finally:
        stack.process.send_signal(signal.SIGCONT)


async def takes(client: RawClient, type_: str, data: dict[str, Any]) -> tuple[str, float]:
    """The code with which a request is refused, and the seconds until then."""
    began = time.monotonic()
    reply = await client.request(type_, data)
    return str(reply["data"].get("code")), time.monotonic() - began


@pytest.mark.parametrize("fault", [frozen, dead])
@pytest.mark.parametrize("victim", ["auth-1", "rooms-1"])
async def test_calls_fail_fast_and_everything_heals(
    stack: Stack, people: People, victim: str, fault: Callable[[Stack, str], Any]
) -> None:
    await people.heal()
    alice, bob = await people.person(), await people.person()
    room_id = await people.room(alice, bob)
    stranger = await people.connect()
    login = ("auth_request", {"username": fresh(), "password": PASSWORD})
    requests = {"auth-1": (stranger, *login), "rooms-1": (alice, "list_rooms", {})}
    with fault(stack, victim):
        code, seconds = await takes(*requests[victim])
        assert code == "unavailable"
        assert seconds < DEADLINE_S
        for _ in range(3):
            code, seconds = await takes(*requests[victim])
            assert code == "unavailable"
            assert seconds < AT_ONCE_S
        if victim == "auth-1":  # who is here talks on
            seq = (await alice.say(room_id, "still here"))["seq"]
            assert (await bob.messages(room_id, 1))[-1]["seq"] == seq
    await people.heal(timeout_s=HEALED_S)
    seq = (await alice.say(room_id, "and again"))["seq"]
    seen = 0
    while seen < seq:
        seen = (await bob.some_messages(room_id))[-1]["seq"]


async def test_a_frozen_rooms_is_noticed_although_nobody_says_anything(stack: Stack, people: People) -> None:
    await people.heal()
    lost = stack.log_text().count("stream to rooms lost")
    with frozen(stack, "rooms-1"):
        await until(lambda: stack.log_text().count("stream to rooms lost") > lost, timeout_s=DEADLINE_S)
    await people.heal()
