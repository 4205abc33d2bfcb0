from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.words import quoted, split


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ()),
        ("  /join   lobby ", ("/join", "lobby")),
        ('/create "tea room" all about tea', ("/create", "tea room", "all", "about", "tea")),
        ("/create 'tea room'", ("/create", "tea room")),
        ("/create tea it's nice", ("/create", "tea", "it's", "nice")),
        ("/create 'tis the season", ("/create", "'tis", "the", "season")),
        ('/login ada "half open', ("/login", "ada", '"half', "open")),
        ('/login ada "a "b" c"', ("/login", "ada", 'a "b', 'c"')),
        ('/login ada ""', ("/login", "ada", "")),
    ],
)
def test_words_and_quotes(line: str, words: tuple[str, ...]) -> None:
    assert split(line).words == words


def test_the_rest_of_a_line_is_taken_as_it_is() -> None:
    words = split('/create "tea room"  all  about   tea ').without_first()
    assert words.rest(0) == '"tea room"  all  about   tea'
    assert words.rest(1) == "all  about   tea"
    assert words.rest(9) == ""
    assert split("/join tea room").without_first().rest(0) == "tea room"
    assert split('/join "tea room"').without_first().rest(0) == "tea room"


@given(st.text())
def test_anything_can_be_split(line: str) -> None:
    words = split(line)
    assert len(words) == len(words.starts)
    assert list(words.starts) == sorted(words.starts)


@given(st.text(st.characters(exclude_characters="\"'"), min_size=1))
def test_a_quoted_word_comes_back_as_one(word: str) -> None:
    assert split(f"/join {quoted(word)}").words[1:] == (word,)
