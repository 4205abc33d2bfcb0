from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from client.replies import Message, Messages, RoomInfo
from client.rooms import AHEAD_MAX, Missing, Room, Rooms


def message(seq: int) -> Message:
    return Message(seq, "bob", f"text {seq}")


def info(room_id: str = "room0001", name: str = "Lobby", epoch: str = "e001", last_seq: int = 0) -> RoomInfo:
    return RoomInfo(room_id, name, epoch, last_seq)


def page(log: list[Message], after: int, limit: int) -> Messages:
    found = [one for one in log if one.seq > after]
    return Messages("e001", found[:limit], log[0].seq if log else 0, log[-1].seq if log else 0, more=len(found) > limit)


def seqs(messages: list[Message]) -> list[int]:
    return [one.seq for one in messages]


def test_messages_in_order_are_shown_at_once() -> None:
    room = Room.entered(info(last_seq=10))
    assert seqs(room.receive([message(11), message(12)])) == [11, 12]
    assert not room.is_behind


def test_old_and_repeated_messages_are_not_shown_again() -> None:
    room = Room.entered(info(last_seq=10))
    room.receive([message(11)])
    assert room.receive([message(9), message(10), message(11)]) == []
    assert room._ahead == {}


def test_what_came_too_early_waits_for_what_is_missing() -> None:
    room = Room.entered(info())
    assert room.receive([message(3)]) == []
    assert room.is_behind
    fresh, missing = room.fill(Messages("e001", [message(1), message(2)], 1, 3, more=True))
    assert seqs(fresh) == [1, 2, 3]
    assert missing is None
    assert not room.is_behind


def test_what_the_server_no_longer_has_is_named() -> None:
    room = Room.entered(info(last_seq=2))
    room.learn(9)
    fresh, missing = room.fill(Messages("e001", [message(6), message(7)], 6, 9, more=True))
    assert missing == Missing(3, 5)
    assert seqs(fresh) == [6, 7]
    assert room.is_behind


def test_a_top_that_was_wrong_ends_the_search() -> None:
    room = Room.entered(info(last_seq=2))
    room.learn(9)
    assert room.fill(Messages("e001", [], 1, 2)) == ([], None)
    assert not room.is_behind


def test_messages_ahead_of_a_log_that_says_nothing_are_still_shown() -> None:
    room = Room.entered(info(last_seq=2))
    room.receive([message(5), message(6)])
    fresh, missing = room.fill(Messages("e001", [], 0, 0))
    assert missing == Missing(3, 4)
    assert seqs(fresh) == [5, 6]


def test_memory_for_early_messages_is_bounded() -> None:
    room = Room.entered(info())
    room.receive([message(seq) for seq in range(2, 5000)])
    log = [message(seq) for seq in range(1, 5000)]
    shown: list[int] = []
    while room.is_behind:
        fresh, _ = room.fill(page(log, room.seq, 200))
        shown += seqs(fresh)
        assert len(room._ahead) <= AHEAD_MAX
    assert shown == list(range(1, 5000))


def test_a_new_epoch_shows_the_newest_of_the_new_log() -> None:
    room = Room.entered(info(last_seq=500))
    room.receive([message(503)])
    room.begin_epoch("e002", 200)
    assert room.seq == 150
    assert room.is_behind
    assert seqs(room.receive([message(151)])) == [151]


@given(
    count=st.integers(1, 60),
    start=st.integers(0, 20),
    data=st.data(),
)
def test_whatever_is_lost_repeated_or_reordered_each_message_is_shown_once_and_in_order(
    count: int, start: int, data: st.DataObject
) -> None:
    log = [message(seq) for seq in range(1, start + count + 1)]
    room = Room.entered(info(last_seq=start))
    shown: list[int] = []
    for _ in range(data.draw(st.integers(0, 30))):
        batch = data.draw(st.lists(st.sampled_from(log), max_size=8))
        shown += seqs(room.receive(batch))
        if room.is_behind and data.draw(st.booleans()):
            shown += seqs(room.fill(page(log, room.seq, data.draw(st.integers(1, 10))))[0])
        assert shown == list(range(start + 1, start + len(shown) + 1))
    room.learn(start + count)  # as a heartbeat does
    steps = 0
    while room.is_behind:
        shown += seqs(room.fill(page(log, room.seq, 7))[0])
        steps += 1
        assert steps <= count
    assert shown == list(range(start + 1, start + count + 1))


def test_rooms_are_found_by_id_name_and_beginning() -> None:
    rooms = Rooms()
    for room_id, name in (("abcd1234", "Lobby"), ("abef1234", "Loft"), ("lobb0000", "Kitchen")):
        rooms.enter(info(room_id, name))

    def found(text: str) -> list[str]:
        return [room.name for room in rooms.find(text)]

    assert found("lobby") == ["Lobby"]
    assert found("LO") == ["Lobby", "Loft"]
    assert found("abef") == ["Loft"]
    assert found("lobb") == ["Lobby", "Kitchen"]
    assert found("lobb0000") == ["Kitchen"]
    assert found("x") == []


def test_returning_finds_what_is_gone_new_and_replaced() -> None:
    rooms = Rooms()
    rooms.enter(info("r1", "one", last_seq=5))
    rooms.enter(info("r2", "two", last_seq=5))
    rooms.enter(info("r3", "three", last_seq=5))
    gone, replaced = rooms.return_to(
        [info("r1", "one", last_seq=8), info("r3", "three", "e002", 3), info("r4", "four")]
    )
    assert [room.name for room in gone] == ["two"]
    assert [room.name for room in replaced] == ["three"]
    assert [room.name for room in rooms] == ["one", "three", "four"]
    one = rooms.get("r1")
    assert one is not None
    assert (one.seq, one.top) == (5, 8)
    four = rooms.get("r4")
    assert four is not None
    assert not four.is_behind
