"""Names: what PRECIS refuses, what mixes scripts, and what looks alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.names import RESERVED, canonical_username, is_single_script, parse_username, skeleton
from services.common.errors import ParleyError
from services.common.wire.codes import ErrorCode


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("Alice", "alice"),
        ("Ａｌｉｃｅ", "alice"),  # full width
        ("STRASSE", "strasse"),
        ("żółw", "żółw"),
        ("Żo\u0301łw", "żółw"),  # decomposed ó
        ("علی", "علی"),
        ("كاوه", "كاوه"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # a joiner that shapes is spelling
        ("علی12", "علی12"),
        ("علی۱۲", "علی۱۲"),
        ("田中さん", "田中さん"),
        ("カナ田", "カナ田"),
        ("김철수", "김철수"),
        ("ὑπᾧς", "ὑπᾧς"),
        ("user-1.2_3", "user-1.2_3"),
        ("a" * 32, "a" * 32),
    ],
)
def test_names_of_one_script_are_stored_folded(typed: str, stored: str) -> None:
    assert parse_username(typed).text == stored


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "ab",
        "a" * 33,
        "a" * 100_000,
        "...",
        "ali reza",
        "user\x00x",
        "user\n",
        "abc\u202e",  # bidi override
        "a\u200bbc",  # zero-width space
        "a\u200cbc",  # a joiner that shapes nothing
        "abc\U000e0041",  # tag character
        "😀😀😀",
        "ﬁnn",  # ligature
        "𝐛𝐨𝐛𝐛𝐲",
        "a\u0301\u0302\u0303\u0308b",  # stacked marks
        "x\u0300\u0300abc",  # one mark twice
        "\u0301abc",  # a mark with nothing under it
        "abc\ud800",  # a lone surrogate
    ],
)
def test_what_is_no_name_is_refused(typed: str) -> None:
    with pytest.raises(ParleyError) as caught:
        parse_username(typed)
    assert caught.value.code is ErrorCode.BAD_USERNAME


@pytest.mark.parametrize("typed", ["еvan", "раураl", "σystem1", "bob۵", "bob٥", "علی۱٢", "abc田", "がабв"])
def test_mixed_scripts_and_digits_are_refused(typed: str) -> None:
    with pytest.raises(ParleyError) as caught:
        parse_username(typed)
    assert caught.value.code is ErrorCode.BAD_USERNAME


@pytest.mark.parametrize(
    "typed",
    ["admin", "ADMIN", "_admin_", "a.d.m.i.n", "adm1n", "r00t", "ROOT", "supp0rt", "ｓｙｓｔｅｍ", "adrnin", "ѕеrvеr"],
)
def test_reserved_names_and_their_look_alikes_are_refused(typed: str) -> None:
    with pytest.raises(ParleyError) as caught:
        parse_username(typed)
    assert caught.value.code is ErrorCode.BAD_USERNAME


def test_every_reserved_name_is_refused() -> None:
    for name in RESERVED:
        with pytest.raises(ParleyError, match="reserved"):
            parse_username(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("paypa", "раура"),  # wholly Cyrillic
        ("modern", "modem"),
        ("bill10", "billlo"),
        ("a11y", "ally"),
        ("vvilliam", "william"),
        ("istanbul", "İstanbul"),
        ("istanbul", "ıstanbul"),
        ("علي", "علی"),  # Arabic and Persian yeh
        ("كاوه", "کاوه"),  # Arabic and Persian kaf
        ("میخواهم", "می\u200cخواهم"),
        ("a|ice", "alice"),
    ],
)
def test_look_alikes_have_one_skeleton(one: str, other: str) -> None:
    assert parse_username(one).skeleton == parse_username(other).skeleton
    assert parse_username(one).text != parse_username(other).text


@pytest.mark.parametrize(
    ("one", "other"),
    [("alice", "alicia"), ("user1", "user2"), ("user1", "user11"), ("clara", "dara"), ("jose", "josé")],
)
def test_names_that_differ_to_the_eye_have_different_skeletons(one: str, other: str) -> None:
    assert parse_username(one).skeleton != parse_username(other).skeleton


def test_canonical_form_is_none_for_what_precis_refuses() -> None:
    assert canonical_username("ali reza") is None
    assert canonical_username("") is None
    assert canonical_username("a" * 1025) is None
    assert canonical_username("ALICE") == "alice"


def test_scripts_that_are_written_together_are_one() -> None:
    assert is_single_script("東京タワー")
    assert not is_single_script("カ가")


@given(st.text(max_size=60))
def test_any_text_is_a_stable_name_or_a_typed_refusal(typed: str) -> None:
    name = refusal = None
    try:
        name = parse_username(typed)
    except ParleyError as error:
        refusal = error.code
    if name is None:
        assert refusal is ErrorCode.BAD_USERNAME
    else:
        assert parse_username(name.text) == name
        assert 3 <= len(name.text) <= 32


@given(st.text(max_size=40))
def test_a_skeleton_is_its_own_skeleton(text: str) -> None:
    assert skeleton(skeleton(text)) == skeleton(text)
