"""Runs: what was stored, by room, in order, in parts of a bounded size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.common.wire.codes import ErrorCode
from services.rooms.messages import RUN_CHARS_MAX, Message, Outcome, Publish, Run, runs, split


def publish(room_id: str, text: str = "x") -> Publish:
    return Publish(1, room_id, "u1", "alice", text, "k")


def test_new_messages_are_gathered_by_room() -> None:
    found = runs(
        [publish("a"), publish("b"), publish("a"), publish("a")],
        [Outcome("e1", 5, 10), Outcome("e2", 1, 11), Outcome("e1", 6, 12), Outcome("e1", 7, 13)],
    )
    assert [(run.room_id, run.epoch, run.first_seq, run.last_seq) for run in found] == [
        ("a", "e1", 5, 7),
        ("b", "e2", 1, 1),
    ]
    assert found[0].messages[1] == Message(6, "u1", "alice", "x", 12)


def test_what_was_not_stored_now_is_in_no_run() -> None:
    outcomes = [
        Outcome(code=ErrorCode.NOT_A_MEMBER),
        Outcome("e1", 3, 10, is_duplicate=True),
        Outcome("e1", 5, 11),
        Outcome(code=ErrorCode.CONFLICT),
    ]
    found = runs([publish("a")] * 4, outcomes)
    assert [(run.first_seq, run.last_seq) for run in found] == [(5, 5)]
    assert runs([publish("a")], [Outcome(code=ErrorCode.OVERLOADED)]) == []


def size(run: Run) -> int:
    return sum(len(message.text) + 48 for message in run.messages)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4_000)), max_size=80))
def test_runs_are_bounded_contiguous_and_complete(sent: list[tuple[str, int]]) -> None:
    publishes = [publish(room, "x" * chars) for room, chars in sent]
    last = {"a": 0, "b": 0}
    outcomes = []
    for room, _ in sent:
        last[room] += 1
        outcomes.append(Outcome("e1", last[room], 0))
    found = runs(publishes, outcomes)
    assert all(size(run) <= RUN_CHARS_MAX for run in found)
    for room, count in last.items():
        messages = [message for run in found if run.room_id == room for message in run.messages]
        assert [message.seq for message in messages] == list(range(1, count + 1))
        assert split(room, "e1", messages) == [run for run in found if run.room_id == room]


def test_nothing_makes_no_run() -> None:
    assert runs([], []) == []
    assert split("a", "e1", []) == []
