from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.wire.text import is_clean_line, is_clean_name, is_clean_text, sanitize_for_terminal

any_text = st.text(st.characters(exclude_categories=()), max_size=60)
hostile_pieces = st.lists(
    st.sampled_from(
        ["\x1b", "[", "]", "P", "_", "^", "X", "\\", "\x9b", "\x9d", "\x90", "\x9c", "\x07", "0", ";", "31", "m", "?",
         "$", "h", "c", "\u202e", "\u2066", "\U000e0041", "\u2028", "\r", "\n", "\t", "a", "\U0001f3f4",
         "\U000e007f", "\udc1b"]
    ),
    max_size=40,
).map("".join)  # fmt: skip

BAD_CONTROLS = [chr(c) for c in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(c) not in "\n\t"]
PEOPLE_WRITE = [
    "plain",
    "naïve café",
    "e\u0301",
    "می\u200cخواهم",
    "שלום",
    "日本語\u3000テキスト",
    "👨\u200d👩\u200d👧\u200d👦",
    "❤\ufe0f",
    "👍🏽",
    "🇩🇪",
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "क्\u200dष",
    "a\u00adb",
    "a\u00a0b",
    "\u200eltr mark\u200f",
]


@pytest.mark.parametrize("character", BAD_CONTROLS)
def test_no_text_holds_control_characters(character: str) -> None:
    for text in (character, f"a{character}b", f"\n{character}"):
        assert not is_clean_text(text)
        assert not is_clean_line(text)
        assert not is_clean_name(text)


@pytest.mark.parametrize("text", [*PEOPLE_WRITE, "a\nb", "\tcode", "\u202eabc", "\u2028", "\ue000", ""])
def test_texts_may_hold_the_rest(text: str) -> None:
    assert is_clean_text(text)
    assert is_clean_line(text) == ("\n" not in text and "\t" not in text)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc80\n"])
def test_surrogates_are_not_text(text: str) -> None:
    assert not is_clean_text(text)
    assert not is_clean_line(text)
    assert not is_clean_name(text)


@given(any_text)
def test_clean_text_is_what_it_says(text: str) -> None:
    dirty = any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text)
    assert is_clean_text(text) is not dirty


@pytest.mark.parametrize(
    "name", ["a", "a b", "Тест", "گفت\u200cوگو", "日本\u3000語", "a\u00a0b", "😀", "e\u0301", "#42"]
)
def test_names(name: str) -> None:
    assert is_clean_name(name)


@pytest.mark.parametrize(
    "name",
    ["", " ", " a", "a ", "\u00a0a", "a\u3000", "\u2028", "a\u2028b", "a\u2029b", "a\u202eb", "a\u2066b", "a\u200bb",
     "a\u200cb", "\u200cگ", "گ\u200c", "a\u200db", "a\u00adb", "\ufeffa", "a\ue000b", "a\U000e0041b", "a\u0378b",
     "a\uffffb"],
)  # fmt: skip
def test_not_names(name: str) -> None:
    assert not is_clean_name(name)


@pytest.mark.parametrize("text", PEOPLE_WRITE)
def test_what_people_write_is_shown_as_it_is(text: str) -> None:
    assert sanitize_for_terminal(text) == text


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("a\x9b31mred", "ared"),
        ("a\x1b[?1049hb", "ab"),
        ("a\x1b[1;2$yb", "ab"),
        ("a\x1b[>0cb", "ab"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]0;title\x1b\\b", "ab"),
        ("a\x9d0;title\x9cb", "ab"),
        ("a\x1b]52;c;aGk=\x07b", "ab"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x1bP$q\x1b\\b", "ab"),
        ("a\x90q\x9cb", "ab"),
        ("a\x1b_apc\x1b\\b", "ab"),
        ("a\x9fapc\x9cb", "ab"),
        ("a\x1b^pm\x1b\\b", "ab"),
        ("a\x1bXsos\x1b\\b", "ab"),
        ("a\x1bcb", "ab"),
        ("a\x1b(0b", "ab"),
        ("a\x1b#8b", "ab"),
        ("a\x1b[31", "a"),
        ("a\x1b", "a"),
        ("a\x1b]0;no end", "a0;no end"),
        ("a\x1b\x1b[m[31mb", "a[31mb"),
        ("a\x08\x08b", "ab"),
        ("real\rfake", "real fake"),
        ("a\r\nb", "a b"),
        ("a\nb\tc", "a b c"),
        ("a\x0bb\x0cc\x85d", "a b c d"),
        ("a\u2028b\u2029c", "a b c"),
        ("a\u202eb\u202cc", "abc"),
        ("a\u2066b\u2069c", "abc"),
        ("a\U000e0068\U000e0069b", "ab"),
        ("\ufeffa", "a"),
        ("a\0b\x7fc", "abc"),
        ("a\ud800b", "a\ufffdb"),
        ("🏴\U000e0068\U000e007f", "🏴"),
    ],
)
def test_what_could_command_a_terminal_is_gone(hostile: str, shown: str) -> None:
    assert sanitize_for_terminal(hostile) == shown


def test_newlines_and_tabs_stay_when_asked() -> None:
    assert sanitize_for_terminal("a\nb\tc\r\nd\re\u2028f\x1b[m", keep_newlines=True) == "a\nb\tc\nd e f"


@given(any_text | hostile_pieces, st.booleans())
def test_nothing_shown_can_command_a_terminal(text: str, keep_newlines: bool) -> None:
    shown = sanitize_for_terminal(text, keep_newlines=keep_newlines)
    for character in shown:
        if character in "\n\t":
            assert keep_newlines
            continue
        assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(character) not in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        )
    shown.encode()


@given(any_text | hostile_pieces, st.booleans())
def test_sanitising_twice_is_sanitising_once(text: str, keep_newlines: bool) -> None:
    once = sanitize_for_terminal(text, keep_newlines=keep_newlines)
    assert sanitize_for_terminal(once, keep_newlines=keep_newlines) == once


def test_a_megabyte_of_introducers_takes_no_quadratic_time() -> None:
    for piece in ("\x1b]", "\x1b[", "\x1b[1;", "\x9d0", "\x1bP\x1b"):
        sanitize_for_terminal(piece * 300_000)
