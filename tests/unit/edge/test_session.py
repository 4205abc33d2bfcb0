"""Transcripts: bytes in, decisions out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.common.wire.codes import ErrorCode
from services.common.wire.frames import Chunk
from services.common.wire.requests import REQUESTS, Authenticate, CreateRoom, JoinRoom, LeaveRoom, Logout, Register
from services.edge.decisions import Close, Command, Decision, Pulse, Reply, Text, User
from services.edge.qos.classes import QosClass
from services.edge.request_rules import BEFORE_LOGIN, LOGINS
from services.edge.session import Phase, Rules, Session
from services.edge.token_bucket import TokenBucket

RULES = Rules(
    server_info={"protocol": 2},
    command_rate=0,
    command_burst=0,
    faults_per_minute=20,
    held_max=8,
    texts_max=4,
)
USER = User("u1", "amy", "s1", 1_800_000_000.0)
CREDENTIALS = {"username": "amy", "password": "correct horse"}
FILE_ID = "0" * 32
DATA: dict[str, dict[str, Any]] = {
    "hello": {"protocol": 2, "client": "test/1"},
    "register_request": CREDENTIALS,
    "auth_request": CREDENTIALS,
    "resume": {"token": "t", "rooms": {}},
    "logout": {},
    "create_room": {"name": "lobby"},
    "join_room": {"room_id": "lobby"},
    "leave_room": {"room_id": "lobby"},
    "list_rooms": {},
    "user_list": {"room_id": "lobby"},
    "text_message": {"room_id": "room0001", "text": "hi"},
    "history": {"room_id": "room0001"},
    "heartbeat": {},
    "file_offer": {"room_id": "room0001", "name": "a.txt", "size": 1, "sha256": "0" * 64},
    "file_get": {"file_id": FILE_ID, "offset": 0},
    "file_list": {"room_id": "room0001"},
    "file_cancel": {"file_id": FILE_ID},
    "file_ack": {"file_id": FILE_ID, "offset": 0},
    "file_transfer": {
        "transfer_id": FILE_ID,
        "filename": "a.txt",
        "chunk_num": 0,
        "total_chunks": 1,
        "data": "AAAA",
    },
    "trace": {"message_id": "room0001-e001-1"},
    "trace_report": {"traceparent": "00-x", "sent_at_us": 1, "acknowledged_at_us": 2, "shown_at_us": 3},
}
V1 = {
    "register_request",
    "auth_request",
    "create_room",
    "join_room",
    "leave_room",
    "list_rooms",
    "user_list",
    "text_message",
    "heartbeat",
    "file_transfer",
}
COMMANDS = {"create_room", "join_room", "leave_room", "list_rooms", "user_list", "history", "logout"} | {
    "file_offer", "file_get", "file_list", "file_cancel", "trace", "trace_report",
}  # fmt: skip


def frame(type_: str, data: dict[str, Any] | None = None, **envelope: Any) -> bytes:
    return json.dumps({"type": type_, "data": DATA.get(type_, {}) if data is None else data, **envelope}).encode()


class Client:
    """A session and the clock in front of it."""

    def __init__(self, rules: Rules = RULES, *, version: int = 2) -> None:
        self.session = Session(rules)
        self.now = 100.0
        if version == 2:
            (greeting,) = self.send("hello")
            assert isinstance(greeting, Reply)
            assert greeting.type == "server_info"

    def send(self, type_: str, data: dict[str, Any] | None = None, **envelope: Any) -> list[Decision]:
        return self.session.receive(frame(type_, data, **envelope), self.now)

    def log_in(self, rate: float = 0) -> Client:
        (command,) = self.send("auth_request")
        assert isinstance(command, Command)
        self.session.log_in(USER, TokenBucket(rate=rate, burst=3))
        assert self.session.finish(self.now) == []
        return self

    def code(self, type_: str, data: dict[str, Any] | None = None, **envelope: Any) -> str:
        (reply,) = self.send(type_, data, **envelope)
        assert isinstance(reply, Reply), reply
        return str(reply.data["code"])


def ready(version: int = 2, rules: Rules = RULES) -> Client:
    return Client(rules, version=version).log_in()


def refusals(decisions: list[Decision]) -> list[str]:
    return [str(one.data["code"]) for one in decisions if isinstance(one, Reply)]


# Versions.


def test_hello_first_makes_version_2() -> None:
    session = Session(RULES)
    (reply,) = session.receive(frame("hello", id=7), 0.0)
    assert reply == Reply("server_info", {"protocol": 2}, 7, lane=QosClass.HIGH)
    assert (session.version, session.client, session.phase) == (2, "test/1", Phase.ANONYMOUS)


@pytest.mark.parametrize("type_", sorted(V1 - {"file_transfer"}))
def test_anything_else_first_makes_version_1(type_: str) -> None:
    client = Client(version=1)
    client.send(type_)
    assert client.session.version == 1


def test_a_faulty_hello_may_be_tried_again() -> None:
    client = Client(version=1)
    assert client.code("hello", {"protocol": "two"}) == "bad_request"
    assert client.session.phase is Phase.FRESH
    (reply,) = client.send("hello")
    assert isinstance(reply, Reply)
    assert reply.type == "server_info"
    assert client.session.version == 2


def test_garbage_first_makes_version_1() -> None:
    client = Client(version=1)
    assert refusals(client.session.receive(b"{garbage", 0.0)) == ["bad_json"]
    assert client.session.version == 1
    assert client.code("hello") == "bad_request"


def test_a_second_hello_is_refused() -> None:
    assert Client().code("hello") == "bad_request"


# Every request in every state.


@pytest.mark.parametrize("type_", sorted(set(REQUESTS) - {"hello"}))
@pytest.mark.parametrize("version", [1, 2])
def test_before_login(type_: str, version: int) -> None:
    client = Client(version=version)
    (decision,) = client.send(type_, id="x")
    known = V1 if version == 1 else set(REQUESTS) - {"file_transfer"}
    if type_ not in known:
        assert isinstance(decision, Reply)
        assert (decision.data["code"], decision.re) == ("unknown_type", "x")
    elif type_ in ("register_request", "auth_request", "resume"):
        assert isinstance(decision, Command)
        assert (decision.request.type, decision.re) == (type_, "x")
    elif type_ == "heartbeat":
        assert decision == Pulse("x")
    else:
        assert isinstance(decision, Reply)
        assert (decision.type, decision.data["code"], decision.re) == ("error", "not_authenticated", "x")


@pytest.mark.parametrize("type_", sorted(REQUESTS))
@pytest.mark.parametrize("version", [1, 2])
def test_after_login(type_: str, version: int) -> None:
    client = ready(version)
    if (version, type_) == (2, "file_ack"):
        assert client.send(type_, id=5) == []  # late, and no request
        return
    (decision,) = client.send(type_, id=5)
    known = V1 if version == 1 else set(REQUESTS) - {"file_transfer"}
    if type_ == "hello":
        assert refusals([decision]) == ["bad_request"]
    elif type_ not in known:
        assert refusals([decision]) == ["unknown_type"]
    elif type_ == "file_transfer":
        assert refusals([decision]) == ["not_a_member"]  # of no room
    elif type_ in COMMANDS or type_ == "register_request":
        assert isinstance(decision, Command)
        assert decision.re == 5
    elif type_ == "text_message":
        assert isinstance(decision, Text)
        assert (decision.room_id, decision.text, decision.key, decision.re) == ("room0001", "hi", None, 5)
        assert (decision.user_id, decision.username) == ("u1", "amy")
    elif type_ == "heartbeat":
        assert decision == Pulse(5)
    else:
        assert type_ in ("auth_request", "resume")
        assert isinstance(decision, Reply)
        assert decision.type == "auth_response"
        assert decision.data["code"] == "already_logged_in"
        assert decision.data["since"] == "2027-01-15T08:00:00.000+00:00"


@pytest.mark.parametrize("type_", sorted(REQUESTS))
def test_after_the_end_nothing_is_decided(type_: str) -> None:
    client = ready()
    client.session.close()
    assert client.send(type_) == []
    assert client.session.user is None


@pytest.mark.parametrize(
    ("type_", "response"),
    [
        ("register_request", "register_response"),
        ("auth_request", "auth_response"),
        ("resume", "auth_response"),
        ("join_room", "error"),
    ],
)
def test_a_failure_has_the_form_of_its_request(type_: str, response: str) -> None:
    (reply,) = Client().send(type_, {"username": 1, "token": 1, "room_id": 1}, id="x")
    assert isinstance(reply, Reply)
    assert (reply.type, reply.re, reply.data["code"]) == (response, "x", "bad_request")
    assert reply.data.get("success", False) is False


# Classes.


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("logout", QosClass.CRITICAL),
        ("create_room", QosClass.HIGH),
        ("list_rooms", QosClass.HIGH),
        ("history", QosClass.LOW),
        ("text_message", QosClass.NORMAL),
    ],
)
@pytest.mark.parametrize("wish", [None, 1, 2, 3, 4])
def test_a_wish_lowers_a_class_and_never_raises_it(type_: str, expected: QosClass, wish: int | None) -> None:
    (decision,) = ready().send(type_, **({} if wish is None else {"priority": wish}))
    assert isinstance(decision, Command | Text)
    assert decision.qos_class == min(expected, wish or 4)


# Barriers.


def test_a_client_may_pipeline_everything() -> None:
    client = Client()
    (command,) = client.send("auth_request")
    assert isinstance(command, Command)
    assert client.session.is_signing_in
    assert client.send("create_room") == []
    assert client.send("text_message") == []
    assert client.send("text_message", {"room_id": "room0001", "text": "there"}) == []
    client.session.log_in(USER, TokenBucket(rate=0, burst=0))
    (create,) = client.session.finish(client.now)
    assert isinstance(create, Command)
    assert isinstance(create.request, CreateRoom)
    assert client.session.is_barrier(create.request)
    first, second = client.session.finish(client.now)
    assert isinstance(first, Text)
    assert isinstance(second, Text)
    assert [first.text, second.text] == ["hi", "there"]


def test_what_was_held_is_judged_by_the_state_it_finds() -> None:
    client = Client()
    client.send("auth_request")
    client.send("create_room", id=1)
    client.send("text_message", id=2)
    assert refusals(client.session.finish(client.now)) == ["not_authenticated"] * 2


@pytest.mark.parametrize("barrier", [Register, Authenticate, Logout, CreateRoom, JoinRoom, LeaveRoom])
def test_every_barrier_holds(barrier: type) -> None:
    client = Client() if barrier in (Register, Authenticate) else ready()
    (command,) = client.send(barrier.type)  # type: ignore[attr-defined]
    assert isinstance(command, Command)
    assert client.send("list_rooms") == []
    assert client.send("heartbeat", id=9) == [Pulse(9)]
    assert refusals(client.session.receive(b"{", client.now)) == ["bad_json"]
    assert len(client.session.finish(client.now)) == 1


def test_lists_and_texts_do_not_wait_for_each_other() -> None:
    client = ready()
    for type_ in ("list_rooms", "user_list", "history", "text_message"):
        assert len(client.send(type_)) == 1


def test_too_much_held_is_reported() -> None:
    client = Client()
    client.send("auth_request")
    for _ in range(8):
        assert not client.session.is_full
        client.send("list_rooms")
    assert client.session.is_full
    client.session.finish(client.now)
    assert not client.session.is_full


def test_as_many_texts_under_way_as_there_may_be_are_reported() -> None:
    client = ready()
    for _ in range(4):
        assert not client.session.is_full
        client.send("text_message")
    assert client.session.is_full
    client.session.finish_text(client.now)
    assert not client.session.is_full


@pytest.mark.parametrize("type_", ["leave_room", "logout"])
def test_leaving_waits_for_the_texts_before_it(type_: str) -> None:
    client = ready()
    client.send("text_message")
    client.send("text_message")
    assert client.send(type_, id="bye") == []
    assert client.send("text_message", {"room_id": "room0001", "text": "late"}) == []
    assert client.session.finish_text(client.now) == []
    (command,) = client.session.finish_text(client.now)
    assert isinstance(command, Command)
    assert (command.request.type, command.re) == (type_, "bye")
    (late,) = client.session.finish(client.now)
    assert isinstance(late, Text)


def test_a_join_does_not_wait_for_texts() -> None:
    client = ready()
    client.send("text_message")
    assert len(client.send("join_room")) == 1
    assert client.session.finish_text(client.now) == []


# Version 1's room.


def test_version_1_speaks_in_its_current_room() -> None:
    client = ready(1)
    assert client.code("text_message", {"text": "hi"}) == "not_a_member"
    assert client.code("user_list", {}) == "not_a_member"
    assert client.code("leave_room", {}) == "not_a_member"
    assert client.session.enter("room0001") is None
    (text,) = client.send("text_message", {"text": "hi"})
    assert isinstance(text, Text)
    assert text.room_id == "room0001"
    (users,) = client.send("user_list", {})
    assert isinstance(users, Command)
    assert users.request.room_id == "room0001"  # type: ignore[union-attr]
    assert client.session.enter("room0002") == "room0001"
    assert client.session.enter("room0002") is None
    client.session.leave("room0001")
    assert client.session.current_room == "room0002"
    client.session.leave("room0002")
    assert client.code("text_message", {"text": "hi"}) == "not_a_member"


def test_version_2_names_its_room() -> None:
    client = ready()
    assert client.session.enter("room0001") is None
    for type_ in ("text_message", "user_list", "leave_room"):
        assert client.code(type_, {"text": "hi"}) == "bad_request"


def test_a_logout_forgets_the_current_room() -> None:
    client = ready(1)
    client.session.enter("room0001")
    client.session.log_out()
    assert client.session.current_room is None
    assert client.code("text_message", {"text": "hi"}) == "not_authenticated"


# Limits.


def test_texts_are_limited_by_the_users_bucket() -> None:
    client = Client().log_in(rate=1.0)
    codes = [client.send("text_message")[0] for _ in range(4)]
    assert [type(one) for one in codes] == [Text, Text, Text, Reply]
    refused = codes[-1]
    assert isinstance(refused, Reply)
    assert (refused.data["code"], refused.data["retry_after_s"]) == ("rate_limited", 1.0)
    client.now += 1.0
    assert isinstance(client.send("text_message")[0], Text)


def test_texts_under_way_are_limited() -> None:
    client = ready()
    for _ in range(4):
        assert isinstance(client.send("text_message")[0], Text)
    assert client.code("text_message") == "overloaded"
    client.session.finish_text(client.now)
    assert isinstance(client.send("text_message")[0], Text)


def test_commands_are_limited_per_connection() -> None:
    rules = Rules(server_info={}, command_rate=1, command_burst=2, faults_per_minute=20, held_max=8, texts_max=4)
    client = Client(rules)
    assert client.send("heartbeat") == [Pulse(None)]
    assert client.send("heartbeat") == [Pulse(None)]
    assert client.code("heartbeat") == "rate_limited"
    client.now += 1
    assert client.send("heartbeat") == [Pulse(None)]


def test_twenty_faulty_frames_a_minute_are_forgiven() -> None:
    client = ready()
    for _ in range(20):
        assert client.code("nonsense") == "unknown_type"
    reply, close = client.send("nonsense")
    assert refusals([reply]) == ["unknown_type"]
    assert close == Close("protocol_error")
    client.now += 60
    assert client.code("nonsense") == "unknown_type"


def test_refusals_that_are_nobodys_fault_do_not_count_as_faulty() -> None:
    client = ready(1)
    for _ in range(100):
        assert client.code("text_message", {"text": "hi"}) == "not_a_member"


@pytest.mark.parametrize("code", [ErrorCode.BAD_FRAME, ErrorCode.FRAME_TOO_LARGE])
def test_a_broken_stream_is_said_and_closed(code: ErrorCode) -> None:
    session = Session(RULES)
    reply, close = session.break_stream(code)
    assert refusals([reply]) == [code.value]
    assert close == Close(None)
    assert session.version == 1


def test_chunks_are_refused() -> None:
    chunk = Chunk(bytes(16), 0, b"x")
    assert refusals(Session(RULES).receive(chunk, 0.0)) == ["not_authenticated"]
    assert refusals(ready().session.receive(chunk, 0.0)) == ["no_such_file"]


# Anything at all.

_FRAMES = st.one_of(
    st.sampled_from(sorted(DATA)).map(frame),
    st.tuples(st.sampled_from(sorted(DATA)), st.sampled_from(["x", 1, 1.5]), st.integers(1, 4)).map(
        lambda one: frame(one[0], id=one[1], priority=one[2])
    ),
    st.binary(max_size=40).map(lambda data: b"{" + data),
    st.tuples(
        st.sampled_from(sorted(DATA)),
        st.dictionaries(
            st.sampled_from(["username", "password", "room_id", "text", "token", "name", "protocol", "rooms"]),
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.lists(st.integers())),
        ),
    ).map(lambda one: frame(*one)),
)


class SessionMachine(RuleBasedStateMachine):
    """Whatever comes: each frame leads to one decision, at once or when the barrier before it has fallen."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(
            Rules(server_info={}, command_rate=5, command_burst=9, faults_per_minute=3, held_max=6, texts_max=3)
        )
        self.now = 50.0
        self.frames = 0
        self.answers = 0
        self.barrier: Command | None = None
        self.texts = 0

    @property
    def is_open(self) -> bool:
        return self.session.phase is not Phase.CLOSED

    def look(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Close):
                self.session.close()
                continue
            self.answers += 1
            if isinstance(decision, Command):
                self.look_at_command(decision)
            elif isinstance(decision, Text):
                self.texts += 1
                assert self.session.user is not None

    def look_at_command(self, command: Command) -> None:
        assert self.session.user is not None or type(command.request) in BEFORE_LOGIN
        if self.session.is_barrier(command.request):
            assert self.barrier is None
            self.barrier = command
            if isinstance(command.request, Logout | LeaveRoom):
                assert self.texts == 0

    @precondition(lambda self: not self.session.is_full)
    @rule(value=_FRAMES)
    def a_frame_comes(self, value: bytes) -> None:
        if self.is_open:
            self.frames += 1
        self.look(self.session.receive(value, self.now))

    @rule(seconds=st.floats(0, 5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.barrier is not None and self.is_open)
    @rule(success=st.booleans())
    def a_barrier_is_answered(self, success: bool) -> None:
        assert self.barrier is not None
        request, self.barrier = self.barrier.request, None
        if type(request) in LOGINS and success:
            self.session.log_in(USER, TokenBucket(rate=3, burst=5))
        elif isinstance(request, Logout) and success:
            self.session.log_out()
        elif isinstance(request, JoinRoom) and success:
            self.session.enter(request.room_id)
        self.look(self.session.finish(self.now))

    @precondition(lambda self: self.texts > 0)
    @rule()
    def a_text_is_answered(self) -> None:
        self.texts -= 1
        self.look(self.session.finish_text(self.now))

    @invariant()
    def texts_are_counted(self) -> None:
        assert self.session.texts_under_way == self.texts <= 3

    def teardown(self) -> None:
        for _ in range(self.frames + 1):
            while self.texts:
                self.a_text_is_answered()
            if self.barrier is not None and self.is_open:
                self.a_barrier_is_answered(success=False)
        if self.is_open:
            assert self.answers == self.frames


TestSessionMachine: Callable[..., Any] = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)  # type: ignore[attr-defined]
