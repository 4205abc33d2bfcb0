from __future__ import annotations

from datetime import UTC, date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import display
from client.errors import ClientError, RequestError

TS = 1_800_000_000_000  # 2027-01-15 08:00:00 UTC


def shown(username: str, text: str, **more: object) -> list[str]:
    lines = display.message_lines(username=username, text=text, ts_ms=TS, is_own=False, zone=UTC, **more)  # type: ignore[arg-type]
    return [line.render(colour=False) for line in lines]


def test_a_message() -> None:
    assert shown("bob", "hello") == ["[08:00:00] bob: hello"]
    assert shown("bob", "hello", room_name="tea") == ["[08:00:00] #tea bob: hello"]


def test_a_text_of_several_lines_cannot_look_like_somebody_else() -> None:
    assert shown("bob", "a\n[08:00:00] ada: b\tc") == ["[08:00:00] bob: a", "           | [08:00:00] ada: b    c"]


def test_colours_can_be_left_out() -> None:
    [line] = display.message_lines(username="bob", text="hello", ts_ms=TS, is_own=True, zone=UTC)
    assert line.render(colour=True) == "\x1b[2m[08:00:00] \x1b[0m\x1b[1;32mbob\x1b[0m: hello"
    assert "\x1b" not in line.render(colour=False)


def test_a_name_keeps_its_colour() -> None:
    assert display.name_style("bob", is_own=False) == display.name_style("bob", is_own=False)
    assert len({display.name_style(f"user{n}", is_own=False) for n in range(100)}) == display.NAME_COLOURS
    assert all(display.name_style(f"user{n}", is_own=False) in display.STYLES for n in range(100))


@given(st.text(), st.text(), st.text())
def test_nothing_from_others_reaches_the_terminal_as_a_control(username: str, text: str, room: str) -> None:
    lines = shown(username, text, room_name=room)
    lines += [line.render(colour=False) for line in display.table(("A", "B"), [(username, text)])]
    lines += [display.note(text, room_name=room).render(colour=False), display.success(text).render(colour=False)]
    lines += [line.render(colour=False) for line in display.error(text)]
    for line in lines:
        assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in line)
        assert not any(character in line for character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def test_marks() -> None:
    assert display.note("x").render(colour=False) == "[SYSTEM] x"
    assert display.success("x").render(colour=False) == "[SUCCESS] x"
    assert [line.render(colour=False) for line in display.error("x\ny")] == ["[ERROR] x", "[ERROR] y"]


def test_tables_are_aligned_and_long_cells_cut() -> None:
    lines = [line.render(colour=False) for line in display.table(("A", "LONG"), [("abc", "x" * 99), (1, 2)])]
    assert lines == ["A    LONG", f"abc  {'x' * 39}…", "1    2"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 seconds"), (1, "1 second"), (59, "59 seconds"), (60, "1 minute"), (7300, "2 hours"), (90_000, "1 day")],
)
def test_durations(seconds: float, text: str) -> None:
    assert display.duration(seconds) == text


@pytest.mark.parametrize("since", [TS, TS // 1000, "2027-01-15T08:00:00+00:00"])
def test_another_login_is_told_with_its_time(since: object) -> None:
    problem = RequestError("already_logged_in", "You are logged in elsewhere", data={"since": since})
    text = display.reason(problem, now=TS / 1000 + 300, zone=UTC)
    assert text == "You are logged in elsewhere (since 08:00:00, 5 minutes ago)"


@pytest.mark.parametrize("since", [None, "yesterday", [], {"a": 1}])
def test_a_time_that_cannot_be_read_is_left_out(since: object) -> None:
    assert display.reason(RequestError("already_logged_in", "elsewhere", data={"since": since}), now=0) == "elsewhere"


def test_reasons_say_when_to_try_again() -> None:
    assert display.reason(RequestError("rate_limited", "slow down", retry_after_s=90), now=0) == (
        "slow down (try again in 1 minute)"
    )
    assert display.reason(ClientError("no"), now=0) == "no"


@pytest.mark.parametrize("ts", [0, -1, 2**62, 10**30])
def test_impossible_times_do_not_fail(ts: int) -> None:
    assert len(display.clock_time(ts, UTC)) == 8
    assert isinstance(display.day_of(ts, UTC), date)
