from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import OutboxFullError, RequestError
from client.outbox import PACED_WINDOW, REFUSALS_MAX, TEXTS_MAX, WINDOW, Outbox, Text


def keys(texts: list[Text]) -> list[str]:
    return [text.key for text in texts]


def filled(count: int, room_id: str = "r1") -> Outbox:
    outbox = Outbox()
    for number in range(count):
        outbox.add(key=f"{room_id}-{number}", room_id=room_id, text=str(number))
    return outbox


BUSY = RequestError("overloaded", "busy")


def test_texts_go_out_in_order_and_once() -> None:
    outbox = filled(3)
    assert keys(outbox.take_due(0.0)) == ["r1-0", "r1-1", "r1-2"]
    assert outbox.take_due(0.0) == []


def test_a_window_is_on_the_way_at_a_time() -> None:
    outbox = filled(WINDOW + 5)
    assert len(outbox.take_due(0.0)) == WINDOW
    outbox.acknowledge("r1-0")
    assert keys(outbox.take_due(0.0)) == [f"r1-{WINDOW}"]


def test_after_a_loss_everything_unacknowledged_goes_out_again_in_order() -> None:
    outbox = filled(4)
    outbox.take_due(0.0)
    outbox.acknowledge("r1-1")
    outbox.disconnect()
    assert keys(outbox.take_due(0.0)) == ["r1-0", "r1-2", "r1-3"]


@pytest.mark.parametrize(("code", "most"), [("rate_limited", PACED_WINDOW), ("unavailable", WINDOW)])
def test_after_a_refusal_the_room_waits_and_then_goes_on_carefully(code: str, most: int) -> None:
    outbox = filled(4 * WINDOW)
    for text in outbox.take_due(0.0):
        assert outbox.refuse(text.key, RequestError(code, "slow down", retry_after_s=5.0), 10.0) is None
    assert outbox.take_due(14.9) == []
    assert outbox.next_due(10.0) == 15.0
    sent, rounds = 0, []
    while due := outbox.take_due(15.0):
        assert keys(due) == [f"r1-{sent + number}" for number in range(len(due))]
        sent += len(due)
        rounds.append(len(due))
        for text in due:
            outbox.acknowledge(text.key)
    assert sent == 4 * WINDOW
    assert rounds[:3] == [1, 2, 4]
    assert max(rounds) == most
    outbox.add(key="later", room_id="r1", text="x")
    outbox.add(key="latest", room_id="r1", text="x")
    assert keys(outbox.take_due(15.0)) == ["later", "latest"]


def test_nothing_overtakes_what_may_be_turned_away_yet() -> None:
    outbox = filled(4)
    outbox.take_due(0.0)
    for number in (0, 2, 3):  # what becomes of the second text is not known yet
        outbox.refuse(f"r1-{number}", BUSY, 0.0)
    assert keys(outbox.take_due(1.0)) == ["r1-0"]
    outbox.acknowledge("r1-0")
    assert outbox.take_due(1.0) == []
    outbox.refuse("r1-1", BUSY, 1.0)
    assert keys(outbox.take_due(9.0)) == ["r1-1"]
    outbox.acknowledge("r1-1")
    assert keys(outbox.take_due(9.0)) == ["r1-2", "r1-3"]


def test_only_the_first_text_was_tried() -> None:
    outbox = filled(2)
    now = 0.0
    for _ in range(REFUSALS_MAX):
        outbox.disconnect()
        for text in outbox.take_due(now):
            assert outbox.refuse(text.key, BUSY, now) is None
        now += 20.0
    outbox.take_due(now)
    assert outbox.refuse("r1-0", BUSY, now) is not None
    assert keys(outbox.take_due(now + 20.0)) == ["r1-1"]
    assert outbox.refuse("r1-1", BUSY, now + 20.0) is None


def test_one_room_that_waits_does_not_hold_up_another() -> None:
    outbox = filled(1)
    outbox.take_due(0.0)
    outbox.refuse("r1-0", BUSY, 0.0)
    outbox.add(key="other", room_id="r2", text="x")
    assert keys(outbox.take_due(0.1)) == ["other"]


def test_who_sends_too_fast_waits_in_all_rooms_and_gives_nothing_up() -> None:
    outbox = filled(1)
    outbox.add(key="other", room_id="r2", text="x")
    now = 0.0
    for _ in range(3 * REFUSALS_MAX):
        assert keys(outbox.take_due(now)) == ["r1-0", "other"]
        assert outbox.refuse("r1-0", RequestError("rate_limited", "slow down", retry_after_s=0.01), now) is None
        outbox.disconnect()  # even so
        assert outbox.next_due(now) is None
        assert keys(outbox.take_due(now)) == ["r1-0", "other"]
        assert outbox.refuse("other", RequestError("rate_limited", "slow down", retry_after_s=0.01), now) is None
        assert outbox.refuse("r1-0", RequestError("rate_limited", "slow down"), now) is None
        assert outbox.take_due(now + 0.4) == []
        now += 0.5
    outbox.take_due(now)
    assert outbox.acknowledge("r1-0") is not None
    assert outbox.acknowledge("other") is not None


def test_a_text_is_given_up_after_its_refusals_and_waits_longer_each_time() -> None:
    outbox = filled(1)
    now, waits = 0.0, []
    for _ in range(REFUSALS_MAX):
        assert keys(outbox.take_due(now)) == ["r1-0"]
        assert outbox.refuse("r1-0", BUSY, now) is None
        due = outbox.next_due(now)
        assert due is not None
        waits.append(due - now)
        now = due
    assert waits[:5] == pytest.approx([0.5, 1.0, 2.0, 4.0, 8.0])
    assert max(waits) == pytest.approx(10.0)
    outbox.take_due(now)
    given_up = outbox.refuse("r1-0", BUSY, now)
    assert given_up is not None
    assert len(outbox) == 0


@pytest.mark.parametrize("code", ["not_a_member", "forbidden", "too_large", "conflict", "bad_request", "brand_new"])
def test_refusals_that_are_about_the_text_are_final(code: str) -> None:
    outbox = filled(2)
    outbox.take_due(0.0)
    refused = outbox.refuse("r1-0", RequestError(code, "no"), 0.0)
    assert refused is not None
    assert refused.text == "0"
    assert len(outbox) == 1


def test_it_is_bounded_and_can_be_cleared() -> None:
    outbox = filled(TEXTS_MAX - 1)
    outbox.add(key="last", room_id="r2", text="x")
    with pytest.raises(OutboxFullError):
        outbox.add(key="one too many", room_id="r2", text="x")
    assert keys(outbox.clear("r2")) == ["last"]
    assert len(outbox.clear()) == TEXTS_MAX - 1
    assert len(outbox) == 0
    assert outbox.acknowledge("last") is None
    assert outbox.refuse("last", BUSY, 0.0) is None


class Server:
    """Stores each key once, and everything in the order in which it came."""

    def __init__(self) -> None:
        self.stored: dict[str, list[str]] = {"r1": [], "r2": []}

    def store(self, text: Text) -> None:
        if text.key not in self.stored[text.room_id]:
            self.stored[text.room_id].append(text.key)


@given(st.lists(st.tuples(st.sampled_from("adskr"), st.integers(0, 9), st.sampled_from(["r1", "r2"])), max_size=80))
def test_a_server_that_keeps_keys_stores_each_text_once_whatever_happens(steps: list[tuple[str, int, str]]) -> None:
    outbox, server, now = Outbox(), Server(), 0.0
    added: dict[str, list[str]] = {"r1": [], "r2": []}
    on_the_way: list[Text] = []
    for number, (step, choice, room_id) in enumerate(steps):
        if step == "a":
            outbox.add(key=str(number), room_id=room_id, text="x")
            added[room_id].append(str(number))
        elif step == "d":  # what is on the way may be stored, or lost
            for text in on_the_way[:choice]:
                server.store(text)
            on_the_way = []
            outbox.disconnect()
        elif step == "s":
            now += choice
            on_the_way += outbox.take_due(now)
        elif step == "k" and on_the_way:
            server.store(on_the_way[0])
            outbox.acknowledge(on_the_way.pop(0).key)
        elif on_the_way and on_the_way[0].refusals < REFUSALS_MAX:
            assert outbox.refuse(on_the_way.pop(0).key, BUSY, now) is None
    outbox.disconnect()
    while len(outbox):
        now += 60
        for text in outbox.take_due(now):
            server.store(text)
            outbox.acknowledge(text.key)
    assert {room_id: sorted(stored, key=int) for room_id, stored in server.stored.items()} == added


@given(st.lists(st.sampled_from("askd"), max_size=80))
def test_without_refusals_the_order_is_kept_across_losses(steps: list[str]) -> None:
    outbox, server = Outbox(), Server()
    on_the_way: list[Text] = []
    for number, step in enumerate([*steps, "s"]):
        if step == "a":
            outbox.add(key=str(number), room_id="r1", text="x")
        elif step == "s":
            on_the_way += outbox.take_due(0.0)
        elif step == "k" and on_the_way:
            server.store(on_the_way[0])
            outbox.acknowledge(on_the_way.pop(0).key)
        elif step == "d":
            on_the_way = []
            outbox.disconnect()
    for text in on_the_way:
        server.store(text)
    assert server.stored["r1"] == sorted(server.stored["r1"], key=int)
