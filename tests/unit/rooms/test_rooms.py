"""Names, references and ownership, as pure decisions."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rooms import rooms
from services.rooms.rooms import Seat


@dataclass(frozen=True)
class Known:
    room_id: str
    name_key: str


LOBBY = Known("abcd1234wxyz", "lobby")
KITCHEN = Known("abcd9999wxyz", "kitchen")


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("lobby", "lobby"),
        ("  Lobby ", "Lobby"),
        ("Café", "Café"),
        ("Cafe\u0301", "Café"),  # NFC
        ("x" * 64, "x" * 64),
        ("e\u0301" * 64, "é" * 64),  # 64 characters once they are composed
        ("日本語", "日本語"),
        ("a", "a"),
        ("☕", "☕"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_a_name_is_kept_as_it_was_typed(typed: str, kept: str) -> None:
    assert rooms.display_name(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " ",
        "\u3000",
        "x" * 65,
        "x" * 100_000,
        "a\nb",
        "a\x00b",
        "a\u202eb",
        "a\u200bb",
        "a\ufeff",
        "\u0301",  # a mark alone
        "\u3164",  # the Hangul filler: a letter that shows nothing
        "\ud800",
        "\U000e0041",
        "a\u0378",  # unassigned
        "a\ue000",  # private use
    ],
)
def test_what_is_no_name(typed: str) -> None:
    assert rooms.display_name(typed) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lobby", "lOBBY"),
        ("straße", "STRASSE"),
        ("ﬁne", "fine"),
        ("Ａ", "a"),
        ("a  b", "a b"),
        ("a\u3000b", "a b"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
        ("می\u200cخواهم", "میخواهم"),
    ],
)
def test_names_that_are_the_same(one: str, other: str) -> None:
    assert rooms.name_key(one) == rooms.name_key(other)


@given(st.text(max_size=70))
def test_a_name_has_one_form(typed: str) -> None:
    name = rooms.display_name(typed)
    if name is not None:
        assert 1 <= len(name) <= rooms.NAME_CHARS_MAX
        assert rooms.display_name(name) == name
        assert unicodedata.is_normalized("NFC", name)
        assert rooms.name_key(name)
        assert rooms.name_key(name) == rooms.name_key(rooms.name_key(name))
        assert rooms.name_key(name) == rooms.name_key(unicodedata.normalize("NFD", name))


@pytest.mark.parametrize(("topic", "kept"), [("", ""), (" About tea ", "About tea"), ("x" * 256, "x" * 256)])
def test_a_topic(topic: str, kept: str) -> None:
    assert rooms.clean_topic(topic) == kept


@pytest.mark.parametrize("topic", ["x" * 257, "a\nb", "a\tb", "a\x1b[31m", "x" * 100_000])
def test_what_is_no_topic(topic: str) -> None:
    assert rooms.clean_topic(topic) is None


def test_new_ids_and_epochs_have_the_form_of_the_protocol() -> None:
    choose = random.Random(5).choice
    ids = {rooms.new_room_id(choose) for _ in range(100)}
    assert len(ids) == 100
    assert all(rooms.is_room_id(room_id) for room_id in ids)
    epoch = rooms.new_epoch(choose)
    assert 4 <= len(epoch) <= 8
    assert set(epoch) <= set(rooms.ID_ALPHABET)


@pytest.mark.parametrize("text", ["", "abc", "ABCDEFGH", "abcdefg", "a" * 17, "abcd-1234", "abcdefgé"])
def test_what_is_no_room_id(text: str) -> None:
    assert not rooms.is_room_id(text)


@pytest.mark.parametrize(
    ("reference", "meant"),
    [
        ("abcd1234wxyz", LOBBY),
        ("ABCD1234WXYZ", LOBBY),
        ("Lobby", LOBBY),
        ("abcd1", LOBBY),
        ("abcd9", KITCHEN),
        ("abcd", None),  # two begin so
        ("abc", None),  # too short
        ("obby", None),
        ("", None),
        ("lobb", None),
    ],
)
def test_what_a_reference_means(reference: str, meant: Known | None) -> None:
    assert rooms.resolve(reference, [LOBBY, KITCHEN]) == meant


def test_an_id_cannot_be_taken_over_by_a_name() -> None:
    thief = Known("zzzz0000zzzz", "abcd1234wxyz")
    assert rooms.resolve("abcd1234wxyz", [thief, LOBBY]) == LOBBY


def test_a_whole_name_goes_before_the_beginning_of_an_id() -> None:
    named = Known("zzzz0000zzzz", "abcd1")
    assert rooms.resolve("abcd1", [LOBBY, named]) == named


def test_the_longest_standing_member_inherits() -> None:
    seats = [Seat("late", rooms.MEMBER, 9), Seat("early", rooms.MEMBER, 2), Seat("middle", rooms.MEMBER, 5)]
    assert rooms.heir(seats) == "early"
    assert rooms.heir([]) is None


def test_who_comes_into_an_abandoned_room_owns_it() -> None:
    assert rooms.role_of_newcomer(member_count=0) == rooms.OWNER
    assert rooms.role_of_newcomer(member_count=1) == rooms.MEMBER
