"""kill -9 in the middle of publishing: what was acknowledged is there, once, in order, without gaps.

The invariants are those of the delivery promise: I1 no loss, I3 no aborted read, I4 stored at most once, I5 agreement,
I6 gapless.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.helpers.rooms_process import rooms_process

if TYPE_CHECKING:
    from pathlib import Path

    from parley.rooms.v1 import rooms_pb2

    from tests.helpers.served_rooms import Feed

LIVES = 3
LIVES_MAX = 10  # where by chance nothing was under way at the end of any
ENOUGH = 30  # messages that a life acknowledges before its end may come
ROUNDS = 20_000  # more than any life is long enough for


@dataclass
class History:
    """What the edge was told, over all lives of the process."""

    acknowledged: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)  # (room, key) -> (seq, text)
    shown: dict[tuple[str, int], str] = field(default_factory=dict)  # (room, seq) -> text
    asked: dict[tuple[str, str], str] = field(default_factory=dict)  # (room, key) -> text
    unknown: list[tuple[str, str]] = field(default_factory=list)

    def note(self, feed: Feed, numbers: dict[int, tuple[str, str]]) -> None:
        for number, place in numbers.items():
            result = feed.results.get(number)
            if result is None:
                self.unknown.append(place)
                continue
            assert result.error_code == ""
            entry = (result.seq, self.asked[place])
            assert self.acknowledged.setdefault(place, entry) == entry
        for room_id, messages in feed.messages.items():
            for message in messages:
                assert self.shown.setdefault((room_id, message.seq), message.text) == message.text


async def talk_until_it_dies(
    feed: Feed, rooms: list[rooms_pb2.Room], history: History, killer: asyncio.Task[None], dice: random.Random
) -> None:
    numbers: dict[int, tuple[str, str]] = {}
    # What the life before left unanswered is asked again first, as an edge does.
    pending, history.unknown = history.unknown, []
    with contextlib.suppress(Exception):  # the stream breaks at any call, in any way
        for room in rooms:
            await feed.follow(room, 0)
        for round_number in range(ROUNDS):
            room = dice.choice(rooms)
            again = [place for place in pending if place[0] == room.room_id] if round_number == 0 else []
            fresh = [(room.room_id, f"e{dice.getrandbits(60):x}") for _ in range(dice.randrange(1, 12))]
            for place in fresh:
                history.asked[place] = f"text of {place[1]}"
            places = again + fresh
            pending = [place for place in pending if place not in again]
            sent = await feed.publish(
                "alice", room.room_id, *(history.asked[place] for place in places), keys=[key for _, key in places]
            )
            numbers |= dict(zip(sent, places, strict=True))
            if dice.random() < 0.2:
                await feed.until(lambda sent=sent: sent[-1] in feed.results)  # type: ignore[misc]
    history.unknown += pending
    await killer
    with contextlib.suppress(Exception):
        await feed.until(lambda: feed.is_over)
    history.note(feed, numbers)


def audit(folder: Path) -> dict[str, list[tuple[int, str, str]]]:
    """The logs as they are on disk: (seq, key, text) by room, after the same recovery that a restart makes."""
    with contextlib.closing(sqlite3.connect(folder / "data" / "rooms.db")) as connection:
        rooms = connection.execute("SELECT number, room_id, last_seq FROM rooms").fetchall()
        found = {}
        for number, room_id, last_seq in rooms:
            query = "SELECT seq, key, text FROM messages WHERE room_number = ? ORDER BY seq"
            found[room_id] = connection.execute(query, (number,)).fetchall()
            assert [seq for seq, _, _ in found[room_id]] == list(range(1, last_seq + 1)), "I6: gapless"
        return found


def check(history: History, logs: dict[str, list[tuple[int, str, str]]]) -> None:
    stored = {(room_id, key): (seq, text) for room_id, log in logs.items() for seq, key, text in log}
    assert len(stored) == sum(map(len, logs.values())), "I4: stored at most once"
    for place, entry in history.acknowledged.items():
        assert stored.get(place) == entry, "I1: no loss, I5: agreement"
    for place, (_, text) in stored.items():
        assert history.asked[place] == text, "nothing is invented"
    texts = {(room_id, seq): text for room_id, log in logs.items() for seq, _, text in log}
    for place, text in history.shown.items():
        assert texts[place] == text, "I5: what was shown is what is stored"


@pytest.mark.parametrize("seed", [1, 2])
async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    history = History()
    cut_off = 0
    for life in range(LIVES_MAX):
        if life >= LIVES and cut_off:
            break
        async with rooms_process(tmp_path) as (started, edge):
            if life == 0:
                for n in range(3):
                    await edge.create("alice", f"room {n}")
            rooms = await edge.open("alice")
            async with edge.attach() as feed:

                async def kill(victim: subprocess.Popen[bytes] = started, feed: Feed = feed) -> None:
                    await feed.until(lambda: len(feed.results) >= ENOUGH)
                    await asyncio.sleep(dice.uniform(0.05, 0.4))
                    victim.kill()

                await talk_until_it_dies(feed, rooms, history, asyncio.create_task(kill()), dice)
        check(history, audit(tmp_path))
        cut_off += len(history.unknown)
    assert len(history.acknowledged) > 50
    assert cut_off > 0, "no message was under way when the process died"
    async with rooms_process(tmp_path) as (_, edge):
        rooms = await edge.open("alice")
        async with edge.attach() as feed:
            for room in rooms:
                places = [place for place in history.asked if place[0] == room.room_id]
                results = await feed.say(
                    "alice", room.room_id, *(history.asked[place] for place in places), keys=[key for _, key in places]
                )
                for place, result in zip(places, results, strict=True):
                    assert result.error_code == ""
                    if place in history.acknowledged:
                        assert (result.seq, result.duplicate) == (history.acknowledged[place][0], True)
                    history.acknowledged[place] = (result.seq, history.asked[place])
    check(history, audit(tmp_path))
