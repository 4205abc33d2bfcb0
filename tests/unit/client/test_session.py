from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.address import Address
from client.errors import ConnectError, InvalidTextError, NotReadyError, OutboxUnwritableError, RequestError
from client.events import (
    ErrorReceived,
    Event,
    GoodbyeReceived,
    LoggedOut,
    MessageArrived,
    NoticeReceived,
    PresenceChanged,
    RoomLost,
    RoomReplaced,
    State,
    StateChanged,
    TextAcknowledged,
    TextFailed,
)
from client.outbox_file import OpenJournal, journals
from client.session import Session
from services.common.clock import FakeClock
from services.common.wire.codes import ErrorCode
from services.common.wire.events import messages_frames
from tests.helpers.fake_edge import FakeConnection, FakeEdge, FakeRoom


class Desk:
    """A session, its server, its clock, and everything that it told."""

    def __init__(self, open_journal: OpenJournal | None = None) -> None:
        self.edge = FakeEdge()
        self.edge.accounts = {"ada": "correct horse", "bob": "battery staple"}
        self.clock = FakeClock()
        self.seen: list[Event] = []
        self.delays: list[float] = []
        self._keys = iter(range(100_000))
        self._open_journal = open_journal
        self.session = self.make_session(self.edge)

    def make_session(self, edge: FakeEdge) -> Session:
        return Session(
            edge,
            on_event=self.seen.append,
            clock=self.clock,
            uniform=self._uniform,
            new_key=lambda: f"key{next(self._keys)}",
            open_journal=self._open_journal,
        )

    def _uniform(self, low: float, high: float) -> float:
        self.delays.append(high)
        return high

    async def until(self, condition: Callable[[], object], *, advance_s: float = 0.0) -> None:
        """Lets everything run until a condition holds; `advance_s` is the step of the clock, 0 to leave it alone."""
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0)
            if advance_s:
                await self.clock.advance(advance_s)
        raise AssertionError(f"it never came; seen: {self.seen}")

    async def is_live(self) -> None:
        await self.until(lambda: self.session.state is State.LIVE)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.seen if isinstance(event, kind)]

    def shown(self, room: FakeRoom) -> list[str]:
        return [
            event.message.text
            for event in self.seen
            if isinstance(event, MessageArrived) and event.room.room_id == room.room_id
        ]

    async def log_in(self, *rooms: str) -> list[FakeRoom]:
        made = [self.edge.add_room(name, "ada", "bob") for name in rooms]
        await self.session.start()
        await self.session.login("ada", "correct horse")
        return made

    async def lose_connection(self) -> None:
        self.edge.cut()
        await self.until(lambda: self.session.state is State.CONNECTING)

    async def come_back(self) -> None:
        await self.until(lambda: self.session.state is State.LIVE, advance_s=1.0)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    await desk.session.close()


async def test_start_greets_and_learns_the_limits(desk: Desk) -> None:
    await desk.session.start()
    assert desk.edge.sent("hello")[0]["protocol"] == 2
    assert desk.session.server is not None
    assert desk.session.server.server == "fake/1"
    assert desk.session.state is State.LIVE


async def test_start_fails_at_once_where_there_is_no_server(desk: Desk) -> None:
    desk.edge.is_down = True
    with pytest.raises(ConnectError):
        await desk.session.start()


async def test_a_server_of_another_version_is_refused(desk: Desk) -> None:
    desk.edge.server_info["protocol"] = 3
    with pytest.raises(ConnectError, match="version 3"):
        await desk.session.start()


async def test_a_server_that_never_answers_is_given_up(desk: Desk) -> None:
    desk.edge.silent_types = {"hello"}
    starting = asyncio.create_task(desk.session.start())
    await desk.until(starting.done, advance_s=1.0)
    with pytest.raises(ConnectError):
        await starting
    assert desk.clock.monotonic() < 20


async def test_register_and_login_and_their_refusals(desk: Desk) -> None:
    await desk.session.start()
    assert await desk.session.register("eve", "some password") == "u0000001"
    with pytest.raises(RequestError) as taken:
        await desk.session.register("eve", "some password")
    assert taken.value.code == "username_taken"
    with pytest.raises(RequestError) as wrong:
        await desk.session.login("eve", "other password")
    assert wrong.value.code == "invalid_credentials"
    assert desk.session.username is None
    await desk.session.login("eve", "some password")
    assert desk.session.username == "eve"
    with pytest.raises(NotReadyError):
        await desk.session.login("eve", "some password")


async def test_a_second_login_learns_since_when_the_other_lives(desk: Desk) -> None:
    desk.edge.has_old_session = True
    await desk.session.start()
    with pytest.raises(RequestError) as refused:
        await desk.session.login("ada", "correct horse")
    assert refused.value.code == "already_logged_in"
    assert refused.value.data["since"] == 1_800_000_000_000


async def test_requests_before_login_say_so_without_asking_the_server(desk: Desk) -> None:
    await desk.session.start()
    with pytest.raises(NotReadyError, match="not logged in"):
        await desk.session.join_room("lobby")
    with pytest.raises(NotReadyError, match="not logged in"):
        desk.session.post_text("room0000", "hi")
    assert desk.edge.sent("join_room") == []


async def test_own_and_other_messages_are_shown_once_and_acknowledged(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    key = desk.session.post_text(room.room_id, "hi")
    desk.edge.say(room, "bob", "hello")
    await desk.until(lambda: len(desk.shown(room)) == 2)
    assert sorted(desk.shown(room)) == ["hello", "hi"]
    [acknowledged] = desk.of(TextAcknowledged)
    assert isinstance(acknowledged, TextAcknowledged)
    assert acknowledged.key == key
    own = {event.message.text: event.is_own for event in desk.seen if isinstance(event, MessageArrived)}
    assert own == {"hi": True, "hello": False}


async def test_messages_in_the_same_read_as_the_login_are_not_missed(desk: Desk) -> None:
    room = desk.edge.add_room("lobby", "ada", "bob")

    def speak_at_once(connection: FakeConnection, kind: str) -> None:
        if kind == "auth_request":
            desk.edge.before_answer = None
            asyncio.get_running_loop().call_soon(desk.edge.say, room, "bob", "right behind")

    await desk.session.start()
    desk.edge.before_answer = speak_at_once
    await desk.session.login("ada", "correct horse")
    await desk.until(lambda: desk.shown(room) == ["right behind"])


async def test_send_text_returns_the_position(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    assert await desk.session.send_text(room.room_id, "one") == ("e001", 1)
    assert await desk.session.send_text(room.room_id, "two") == ("e001", 2)


async def test_many_texts_keep_their_order(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    for number in range(500):
        desk.session.post_text(room.room_id, str(number))
    await desk.session.wait_until_below(1)
    assert [message.text for message in room.log] == [str(number) for number in range(500)]


@pytest.mark.parametrize(
    ("text", "message"),
    [("x" * 4001, "4001 characters"), ("", "nothing"), ("a\x1b[2Jb", "control"), ("a\0", "control")],
)
async def test_texts_that_would_be_refused_are_not_sent(desk: Desk, text: str, message: str) -> None:
    (room,) = await desk.log_in("lobby")
    with pytest.raises(InvalidTextError, match=message):
        desk.session.post_text(room.room_id, text)
    assert desk.edge.sent("text_message") == []


async def test_a_final_refusal_is_told_with_the_text(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    desk.edge.refuse("text_message", ErrorCode.FORBIDDEN)
    with pytest.raises(RequestError, match="forbidden"):
        await desk.session.send_text(room.room_id, "hi")
    [failed] = desk.of(TextFailed)
    assert isinstance(failed, TextFailed)
    assert failed.text == "hi"


async def test_a_passing_refusal_is_offered_again_under_the_same_key(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    desk.edge.refuse("text_message", ErrorCode.RATE_LIMITED, retry_after_s=3.0)
    desk.session.post_text(room.room_id, "one")
    desk.session.post_text(room.room_id, "two")
    await desk.until(lambda: len(desk.edge.sent("text_message")) >= 2)
    await desk.until(lambda: desk.session.unacknowledged == 0, advance_s=1.0)
    keys = [sent["key"] for sent in desk.edge.sent("text_message")]
    assert keys.count("key0") == 2
    assert 3.0 <= desk.clock.monotonic() < 10
    assert {message.text for message in room.log} == {"one", "two"}


async def test_what_was_not_acknowledged_is_sent_again_after_a_reconnect_and_stored_once(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")

    def store_and_lose(connection: FakeConnection, kind: str) -> None:
        if kind == "text_message":  # stored, but neither the acknowledgement nor the event gets out
            desk.edge.before_answer = None
            desk.edge.say(room, "ada", "precious", "key0")
            desk.edge.cut()

    desk.edge.lost_events = 1
    desk.edge.before_answer = store_and_lose
    desk.session.post_text(room.room_id, "precious")
    await desk.until(lambda: desk.session.state is State.CONNECTING)
    await desk.come_back()
    await desk.until(lambda: desk.session.unacknowledged == 0)
    assert [sent["key"] for sent in desk.edge.sent("text_message")] == ["key0", "key0"]
    assert [message.text for message in room.log] == ["precious"]
    await desk.until(lambda: desk.shown(room) == ["precious"])


async def test_texts_written_while_the_connection_is_away_go_out_afterwards(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    await desk.lose_connection()
    desk.session.post_text(room.room_id, "patience")
    assert desk.session.unacknowledged == 1
    await desk.come_back()
    await desk.until(lambda: desk.shown(room) == ["patience"])


async def test_a_text_without_any_answer_is_asked_for_on_a_new_connection(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    desk.edge.silent_types = {"text_message"}
    desk.session.post_text(room.room_id, "hi")
    await desk.until(lambda: desk.edge.attempts == 2, advance_s=1.0)
    desk.edge.silent_types = set()
    await desk.until(lambda: desk.shown(room) == ["hi"], advance_s=1.0)


async def test_messages_missed_while_away_are_shown_once_and_in_order(desk: Desk) -> None:
    one, other = await desk.log_in("lobby", "kitchen")
    for number in range(3):
        desk.edge.say(one, "bob", f"before {number}")
    await desk.until(lambda: len(desk.shown(one)) == 3)
    await desk.lose_connection()
    for number in range(450):  # more than two pages
        desk.edge.say(one, "bob", f"missed {number}")
    desk.edge.say(other, "bob", "elsewhere")
    await desk.come_back()
    desk.edge.say(one, "bob", "after")
    await desk.until(lambda: "after" in desk.shown(one))
    expected = [f"before {n}" for n in range(3)] + [f"missed {n}" for n in range(450)] + ["after"]
    assert desk.shown(one) == expected
    assert desk.shown(other) == ["elsewhere"]
    late = {event.message.text: event.is_late for event in desk.seen if isinstance(event, MessageArrived)}
    assert late["missed 7"]
    assert not late["after"]


async def test_after_a_lost_connection_the_session_is_resumed_and_the_missed_messages_come_by_themselves(
    desk: Desk,
) -> None:
    desk.edge.keeps_tokens = True
    desk.edge.has_old_session = False
    (room,) = await desk.log_in("lobby")
    desk.edge.say(room, "bob", "before")
    await desk.until(lambda: desk.shown(room) == ["before"])
    for round_number in range(2):  # each time with the newest token
        await desk.lose_connection()
        desk.edge.has_old_session = True  # which would keep a login out
        for number in range(300):
            desk.edge.say(room, "bob", f"missed {round_number} {number}")
        await desk.come_back()
        assert len(desk.shown(room)) == 1 + 300 * (round_number + 1)
    assert desk.shown(room) == [message.text for message in room.log]
    sent = desk.edge.sent("resume")
    assert [one["token"] for one in sent] == ["t0", "t1"]
    assert [one["rooms"][room.room_id]["seq"] for one in sent] == [1, 301]
    assert len(desk.edge.sent("auth_request")) == 1
    assert desk.edge.sent("history") == []
    late = {event.message.text: event.is_late for event in desk.seen if isinstance(event, MessageArrived)}
    assert late["missed 0 7"]
    desk.edge.say(room, "bob", "live")
    await desk.until(lambda: desk.shown(room)[-1] == "live")


async def test_the_session_is_behind_until_the_replay_is_there(desk: Desk) -> None:
    desk.edge.keeps_tokens, desk.edge.gives_replays = True, False
    (room,) = await desk.log_in("lobby")
    await desk.lose_connection()
    messages = [desk.edge.say(room, "bob", str(number)) for number in range(5)]
    await desk.until(lambda: desk.edge.sent("resume") and desk.session.username, advance_s=1.0)
    await desk.until(lambda: desk.session.state is State.BEHIND)
    for _ in range(50):
        await asyncio.sleep(0)
    assert desk.session.state is State.BEHIND
    desk.edge.to_room(room, messages_frames(room.room_id, room.epoch, messages[:4]))
    await desk.until(lambda: len(desk.shown(room)) == 4)
    assert desk.session.state is State.BEHIND
    desk.edge.to_room(room, messages_frames(room.room_id, room.epoch, messages[4:]))
    await desk.is_live()
    assert desk.edge.sent("history") == []


async def test_a_replay_that_does_not_come_is_fetched_after_a_heartbeat(desk: Desk) -> None:
    desk.edge.keeps_tokens, desk.edge.gives_replays = True, False
    (room,) = await desk.log_in("lobby")
    await desk.lose_connection()
    for number in range(5):
        desk.edge.say(room, "bob", str(number))
    await desk.come_back()
    assert desk.shown(room) == [str(number) for number in range(5)]
    assert len(desk.edge.sent("history")) == 1


async def test_what_is_not_recovered_is_fetched(desk: Desk) -> None:
    desk.edge.keeps_tokens, desk.edge.replay_max = True, 3
    few, many = await desk.log_in("few", "many")
    await desk.lose_connection()
    for number in range(4):
        desk.edge.say(many, "bob", str(number))
    desk.edge.say(few, "bob", "one")
    await desk.come_back()
    assert desk.shown(many) == ["0", "1", "2", "3"]
    assert desk.shown(few) == ["one"]
    assert [one["room_id"] for one in desk.edge.sent("history")] == [many.room_id]


async def test_a_token_that_is_not_good_any_more_gives_way_to_the_password(desk: Desk) -> None:
    desk.edge.keeps_tokens = True
    (room,) = await desk.log_in("lobby")
    await desk.lose_connection()
    desk.edge.tokens.clear()
    desk.edge.say(room, "bob", "missed")
    await desk.come_back()
    assert desk.shown(room) == ["missed"]
    assert len(desk.edge.sent("resume")) == 1
    assert len(desk.edge.sent("auth_request")) == 2


async def test_a_lost_answer_to_a_resume_does_not_lose_the_token(desk: Desk) -> None:
    desk.edge.keeps_tokens = True
    await desk.log_in("lobby")
    await desk.lose_connection()
    desk.edge.silent_types = {"resume"}
    await desk.until(lambda: desk.edge.sent("resume"), advance_s=1.0)
    desk.edge.silent_types = set()
    desk.edge.cut()
    await desk.until(lambda: len(desk.edge.sent("resume")) == 2, advance_s=1.0)
    await desk.come_back()
    assert [one["token"] for one in desk.edge.sent("resume")] == ["t0", "t0"]
    assert len(desk.edge.sent("auth_request")) == 1


async def test_a_busy_server_is_asked_to_resume_again(desk: Desk) -> None:
    desk.edge.keeps_tokens = True
    await desk.log_in("lobby")
    await desk.lose_connection()
    desk.edge.refuse("resume", ErrorCode.UNAVAILABLE, times=3)
    await desk.come_back()
    assert len(desk.edge.sent("resume")) == 4
    assert len(desk.edge.sent("auth_request")) == 1


async def test_a_login_may_take_over(desk: Desk) -> None:
    await desk.session.start()
    await desk.session.login("ada", "correct horse", takeover=True)
    assert desk.edge.sent("auth_request")[0]["takeover"] is True


async def next_client(desk: Desk, folder: Path) -> Desk:
    """Another run of the client, with the same server and the same files."""
    other = Desk(open_journal=journals(folder, Address()))
    other.edge = desk.edge
    other.session = other.make_session(desk.edge)
    await other.session.start()
    return other


async def test_what_a_killed_client_accepted_is_sent_by_the_next_one_and_stored_once(tmp_path: Path) -> None:
    desk = Desk(open_journal=journals(tmp_path, Address()))
    (room,) = await desk.log_in("lobby")
    desk.session.post_text(room.room_id, "acknowledged")
    await desk.until(lambda: desk.session.unacknowledged == 0)
    desk.edge.silent_types = {"text_message"}
    desk.session.post_text(room.room_id, "stored, but not acknowledged")
    await desk.until(lambda: len(desk.edge.sent("text_message")) == 2)
    desk.edge.say(room, "ada", "stored, but not acknowledged", "key1")
    desk.edge.is_down = True
    await desk.lose_connection()
    desk.session.post_text(room.room_id, "written offline")
    copy = tmp_path / "copy"  # what a kill leaves behind is what the disk has at this moment
    shutil.copytree(tmp_path, copy)
    await desk.session.close()
    desk.edge.is_down, desk.edge.silent_types = False, set()
    other = await next_client(desk, copy)
    await other.session.login("ada", "correct horse")
    await other.until(lambda: other.session.unacknowledged == 0 and len(room.log) == 3)
    assert [m.text for m in room.log] == ["acknowledged", "stored, but not acknowledged", "written offline"]
    await other.session.close()
    third = await next_client(desk, copy)
    await third.session.login("ada", "correct horse")
    assert third.session.unacknowledged == 0
    await third.session.close()


async def test_what_an_ended_session_leaves_is_told_and_kept(tmp_path: Path) -> None:
    desk = Desk(open_journal=journals(tmp_path, Address()))
    (room,) = await desk.log_in("lobby")
    desk.edge.is_down = True
    await desk.lose_connection()
    desk.session.post_text(room.room_id, "later")
    await desk.session.close()
    (failed,) = desk.of(TextFailed)
    assert isinstance(failed, TextFailed)
    assert "sent at the next login" in str(failed.error)
    desk.edge.is_down = False
    other = await next_client(desk, tmp_path)
    await other.session.login("ada", "correct horse")
    await other.until(lambda: [message.text for message in room.log] == ["later"])
    await other.session.close()


async def test_a_text_that_the_disk_does_not_take_is_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(open_journal=journals(tmp_path, Address()))
    (room,) = await desk.log_in("lobby")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("client.outbox_file.os.fdatasync", full)
    with pytest.raises(OutboxUnwritableError, match="No space"):
        desk.session.post_text(room.room_id, "hi")
    assert desk.session.unacknowledged == 0
    monkeypatch.undo()
    desk.session.post_text(room.room_id, "hi")
    await desk.until(lambda: desk.shown(room) == ["hi"])
    await desk.session.close()


async def test_live_messages_that_arrive_during_the_catch_up_wait_for_their_turn(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    await desk.lose_connection()
    for number in range(250):
        desk.edge.say(room, "bob", str(number))

    def speak(connection: FakeConnection, kind: str) -> None:
        if kind == "history" and len(room.log) < 260:
            desk.edge.say(room, "bob", str(len(room.log)))

    desk.edge.before_answer = speak
    await desk.come_back()
    await desk.until(lambda: len(desk.shown(room)) == len(room.log))
    assert desk.shown(room) == [str(number) for number in range(len(room.log))]


async def test_a_gap_in_the_live_messages_is_filled(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    desk.edge.lost_events = 2
    for text in ("a", "b", "c"):
        desk.edge.say(room, "bob", text)
    await desk.until(lambda: desk.shown(room) == ["a", "b", "c"])
    await desk.is_live()


async def test_a_lost_last_message_is_found_by_the_heartbeat(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    desk.edge.lost_events = 1
    desk.edge.say(room, "bob", "the last word")
    await desk.until(lambda: desk.shown(room) == ["the last word"], advance_s=1.0)
    assert 30 <= desk.clock.monotonic() < 40


async def test_a_busy_server_is_asked_again_for_the_history(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    desk.edge.refuse("history", ErrorCode.OVERLOADED, retry_after_s=2.0)
    desk.edge.lost_events = 1
    desk.edge.say(room, "bob", "a")
    desk.edge.say(room, "bob", "b")
    await desk.until(lambda: desk.shown(room) == ["a", "b"], advance_s=0.5)


async def test_a_replaced_log_is_told_and_its_newest_messages_shown(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    for number in range(5):
        desk.edge.say(room, "bob", f"old {number}")
    await desk.until(lambda: len(desk.shown(room)) == 5)
    await desk.lose_connection()
    room.epoch, room.log = "e002", room.log[:2]
    desk.edge.say(room, "bob", "new")
    await desk.come_back()
    await desk.until(lambda: desk.shown(room)[5:] == ["old 0", "old 1", "new"])
    assert len(desk.of(RoomReplaced)) == 1


async def test_a_log_that_is_replaced_while_connected_is_told_too(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    for number in range(5):
        desk.edge.say(room, "bob", f"old {number}")
    await desk.until(lambda: len(desk.shown(room)) == 5)
    room.epoch, room.log = "e002", room.log[:2]
    desk.edge.say(room, "bob", "new")
    await desk.until(lambda: desk.shown(room)[5:] == ["old 0", "old 1", "new"])
    assert len(desk.of(RoomReplaced)) == 1
    await desk.is_live()


async def test_reconnects_back_off_and_start_over_after_a_good_connection(desk: Desk) -> None:
    await desk.log_in("lobby")
    desk.edge.is_down = True
    await desk.lose_connection()
    await desk.until(lambda: desk.edge.attempts >= 8, advance_s=1.0)
    assert desk.delays[:7] == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]
    desk.edge.is_down = False
    await desk.come_back()
    await desk.clock.advance(20.0)
    desk.delays.clear()
    await desk.lose_connection()
    assert desk.delays == [1.0]


async def test_a_connection_that_dies_young_does_not_reset_the_backoff(desk: Desk) -> None:
    await desk.log_in("lobby")
    await desk.lose_connection()
    await desk.come_back()
    await desk.lose_connection()
    assert desk.delays == [1.0, 2.0]


async def test_a_silent_server_is_left_after_its_heartbeat(desk: Desk) -> None:
    await desk.log_in("lobby")
    desk.edge.silent_types = {"heartbeat"}
    await desk.until(lambda: desk.session.state is State.CONNECTING, advance_s=1.0)
    assert 40 <= desk.clock.monotonic() <= 50


async def test_heartbeats_keep_a_connection_alive(desk: Desk) -> None:
    await desk.log_in("lobby")
    for _ in range(300):
        await desk.clock.advance(1.0)
    assert 9 <= len(desk.edge.sent("heartbeat")) <= 10
    assert desk.edge.attempts == 1


async def test_draining_is_told_and_the_client_returns_when_it_was_asked_to(desk: Desk) -> None:
    await desk.log_in("lobby")
    desk.edge.connections[0].event("goodbye", {"reason": "draining", "reconnect_after_ms": 7000})
    await desk.lose_connection()
    [goodbye] = desk.of(GoodbyeReceived)
    assert goodbye == GoodbyeReceived("draining", 7.0)
    changed = desk.seen[-1]
    assert isinstance(changed, StateChanged)
    assert changed.retry_in_s == 7.0
    await desk.clock.advance(6.0)
    assert desk.edge.attempts == 1
    await desk.clock.advance(1.5)
    assert desk.edge.attempts == 2
    await desk.is_live()
    assert desk.session.username == "ada"


@pytest.mark.parametrize("reason", ["revoked", "replaced"])
async def test_after_a_revocation_it_does_not_log_in_again(desk: Desk, reason: str) -> None:
    (room,) = await desk.log_in("lobby")
    desk.edge.connections[0].event("goodbye", {"reason": reason})
    await desk.lose_connection()
    await desk.come_back()
    assert len(desk.edge.sent("auth_request")) == 1
    assert desk.session.username is None
    assert len(desk.of(LoggedOut)) == 1
    with pytest.raises(NotReadyError):
        desk.session.post_text(room.room_id, "hi")


async def test_the_old_session_is_waited_for(desk: Desk) -> None:
    await desk.log_in("lobby")
    desk.edge.has_old_session = True
    await desk.lose_connection()
    await desk.until(lambda: desk.session.state is State.BEHIND, advance_s=1.0)
    for _ in range(40):
        await desk.clock.advance(1.0)
    assert desk.session.state is State.BEHIND
    desk.edge.has_old_session = False
    await desk.come_back()
    assert desk.session.username == "ada"


async def test_waiting_for_the_old_session_has_an_end(desk: Desk) -> None:
    await desk.log_in("lobby")
    desk.edge.has_old_session = True
    await desk.lose_connection()
    await desk.until(lambda: desk.of(LoggedOut), advance_s=1.0)
    assert desk.clock.monotonic() > 180


async def test_a_changed_password_ends_the_login_and_gives_the_texts_back(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    await desk.lose_connection()
    desk.session.post_text(room.room_id, "unsaid")
    desk.edge.accounts["ada"] = "changed"
    await desk.come_back()
    assert len(desk.of(LoggedOut)) == 1
    [failed] = desk.of(TextFailed)
    assert isinstance(failed, TextFailed)
    assert failed.text == "unsaid"


async def test_rooms_join_create_leave(desk: Desk) -> None:
    await desk.log_in("lobby")
    kitchen = await desk.session.create_room("kitchen", topic="soup", private=True)
    assert kitchen.role == "owner"
    assert desk.edge.sent("create_room")[0]["private"] is True
    desk.edge.add_room("attic", room_id="attic123")
    attic = await desk.session.join_room("atti")
    assert attic.name == "attic"
    assert [room.name for room in desk.session.rooms] == ["lobby", "kitchen", "attic"]
    await desk.session.leave_room(kitchen.room_id)
    assert [room.name for room in desk.session.rooms] == ["lobby", "attic"]
    with pytest.raises(RequestError):
        await desk.session.join_room("nowhere")
    users = await desk.session.list_users(attic.room_id)
    assert users.users == ["ada"]
    page = await desk.session.list_rooms("att")
    assert [room.name for room in page.rooms] == ["attic"]


async def test_leaving_waits_for_what_was_written_before(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    desk.session.post_text(room.room_id, "goodbye")
    await desk.session.leave_room(room.room_id)
    assert [message.text for message in room.log] == ["goodbye"]


async def test_logout_forgets_the_login_and_the_rooms(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    desk.session.post_text(room.room_id, "last words")
    await desk.session.logout()
    assert [message.text for message in room.log] == ["last words"]
    assert len(desk.session.rooms) == 0
    await desk.lose_connection()
    await desk.come_back()
    assert len(desk.edge.sent("auth_request")) == 1


async def test_presence_notices_errors_and_removal_are_told(desk: Desk) -> None:
    (room,) = await desk.log_in("lobby")
    connection = desk.edge.connections[0]
    connection.send(desk.edge.encoder.presence(room.room_id, "online", username="bob"))
    connection.send(desk.edge.encoder.presence(room.room_id, "count", online=120))
    connection.event("notice", {"text": "tea at five"})
    connection.send(desk.edge.encoder.error(ErrorCode.BAD_JSON, "what?"))
    connection.event("something_new", {"a": 1})
    connection.send(desk.edge.encoder.presence(room.room_id, "leave", username="ada"))
    await desk.until(lambda: desk.of(RoomLost))
    assert [(event.action, event.online) for event in desk.seen if isinstance(event, PresenceChanged)] == [
        ("online", 0),
        ("count", 120),
    ]
    assert desk.of(NoticeReceived) == [NoticeReceived("tea at five")]
    assert desk.of(ErrorReceived) == [ErrorReceived("bad_json", "what?")]
    assert len(desk.session.rooms) == 0


async def test_garbage_from_the_server_ends_the_connection_only(desk: Desk) -> None:
    await desk.log_in("lobby")
    for garbage in (
        b"\xff\xff\xff\xff",
        b"\0\0\0\x02{]",
        b"\0\0\0\x16" + b'{"type":"messages"}   ',
        b"\0\0\0\x0a{" + b"x" * 9,
    ):
        before = desk.edge.attempts
        desk.edge.connections[0].send(garbage)
        await desk.until(lambda before=before: desk.edge.attempts > before, advance_s=1.0)  # type: ignore[misc]
        await desk.come_back()
    assert desk.session.username == "ada"


async def test_events_can_be_iterated_until_the_end(desk: Desk) -> None:
    stream = desk.session.events()
    (room,) = await desk.log_in("lobby")
    desk.edge.say(room, "bob", "hello")
    seen = []

    async def read() -> None:
        seen.extend([event async for event in stream])

    reading = asyncio.create_task(read())
    await desk.until(lambda: desk.shown(room))
    await desk.session.close()
    await reading
    assert [event.message.text for event in seen if isinstance(event, MessageArrived)] == ["hello"]
    assert desk.session.state is State.CLOSED


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["say", "post", "cut", "lose", "refuse", "busy", "late", "pass"]), st.integers(0, 9)),
    max_size=25,
)


def do_step(desk: Desk, rooms: list[FakeRoom], step: Step, posted: dict[str, list[str]]) -> None:
    kind, number = step
    room = rooms[number % 2]
    if kind == "say":
        desk.edge.say(room, "bob", f"said {room.last_seq + 1}")
    elif kind == "post":
        text = f"posted {sum(map(len, posted.values()))}"
        desk.session.post_text(room.room_id, text)
        posted[room.room_id].append(text)
    elif kind == "cut":
        desk.edge.cut()
    elif kind == "lose":
        desk.edge.lost_events = number
    elif kind == "refuse":
        desk.edge.refuse("text_message", ErrorCode.UNAVAILABLE, times=number % 3)
    elif kind == "busy":
        desk.edge.refuse("history", ErrorCode.OVERLOADED, times=number % 3)
    elif kind == "late":  # the next text is stored, and then the connection is lost before anybody hears of it

        def store_and_lose(connection: FakeConnection, kind: str) -> None:
            if kind == "text_message":
                desk.edge.before_answer = None
                request = desk.edge.requests[-1][1]
                target = desk.edge.rooms[request["room_id"]]
                if ("ada", request["key"]) not in target.keys:
                    desk.edge.say(target, "ada", request["text"], request["key"])
                desk.edge.cut()

        desk.edge.before_answer = store_and_lose


@settings(deadline=None, max_examples=60)
@given(steps=STEPS, resumes=st.booleans(), replay_max=st.sampled_from([0, 3, 1000]))
async def test_whatever_fails_everything_is_stored_once_and_shown_once_in_order(
    steps: list[Step], resumes: bool, replay_max: int
) -> None:
    desk = Desk()
    desk.edge.keeps_tokens, desk.edge.replay_max = resumes, replay_max
    rooms = await desk.log_in("one", "two")
    posted: dict[str, list[str]] = {room.room_id: [] for room in rooms}
    for step in steps:
        do_step(desk, rooms, step, posted)
        for _ in range(step[1]):
            await desk.clock.advance(0.4)
    desk.edge.lost_events, desk.edge.before_answer = 0, None
    desk.edge.refusals.clear()
    for _ in range(150):  # time for reconnects, for what was refused, and for a heartbeat
        await desk.clock.advance(1.0)
    for room in rooms:
        assert sorted(m.text for m in room.log if m.username == "ada") == sorted(posted[room.room_id])
        assert desk.shown(room) == [message.text for message in room.log]
    assert desk.session.unacknowledged == 0
    assert desk.session.state is State.LIVE
    assert desk.of(TextFailed) == []
    await desk.session.close()


async def test_a_command_waits_for_the_connection_and_the_login_to_be_back(desk: Desk) -> None:
    await desk.log_in("lobby")
    await desk.lose_connection()
    creating = asyncio.create_task(desk.session.create_room("den"))
    await asyncio.sleep(0)
    assert not creating.done()
    assert desk.edge.sent("create_room") == []
    await desk.until(creating.done, advance_s=0.1)
    assert (await creating).name == "den"
    assert len(desk.edge.sent("create_room")) == 1


async def test_nothing_waits_for_a_session_that_has_ended(desk: Desk) -> None:
    await desk.log_in("lobby")
    await desk.session.close()
    with pytest.raises(NotReadyError):
        await desk.session.create_room("den")


async def test_what_a_draining_server_did_not_answer_was_not_done_and_is_asked_of_the_next(desk: Desk) -> None:
    await desk.log_in("lobby")
    desk.edge.silent_types = {"create_room"}
    creating = asyncio.create_task(desk.session.create_room("den"))
    await desk.until(lambda: desk.edge.sent("create_room"))
    desk.edge.connections[0].event("goodbye", {"reason": "draining", "reconnect_after_ms": 100})
    await desk.until(lambda: desk.of(GoodbyeReceived))
    late = asyncio.create_task(desk.session.create_room("late"))
    await asyncio.sleep(0)
    assert len(desk.edge.sent("create_room")) == 1  # nobody reads that any more
    desk.edge.silent_types = set()
    await desk.lose_connection()
    await desk.until(lambda: creating.done() and late.done(), advance_s=0.1)
    assert ((await creating).name, (await late).name) == ("den", "late")
