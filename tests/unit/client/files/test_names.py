from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.files.names import NAME_BYTES_MAX, SAME_NAME_MAX, alternatives, safe_name
from services.rooms.files.rules import is_file_name

HOSTILE = {
    "../x": "x",
    "../../etc/passwd": "passwd",
    "/etc/passwd": "passwd",
    "..": "file",
    ".": "file",
    "/": "file",
    "": "file",
    "   ": "file",
    "...": "file",
    "a/..": "file",
    "C:\\Users\\x.txt": "x.txt",
    "..\\..\\boot.ini": "boot.ini",
    "a\0b": "a_b",
    "\x1b]0;owned\x07.txt": "_]0;owned_.txt",
    "a\x1b[31mb": "a_[31mb",
    "line\nbreak": "line_break",
    "\u202egpj.exe": "_gpj.exe",
    "invoice\u202efdp.exe": "invoice_fdp.exe",
    "a\u200bb": "a_b",
    "a\u2028b": "a_b",
    "\U000e0041tag": "_tag",
    "\ud800": "_",
    "CON": "_CON",
    "con.txt": "_con.txt",
    "Nul .tar.gz": "_Nul .tar.gz",
    "COM1": "_COM1",
    "com¹.log": "_com¹.log",
    "LPT9.x": "_LPT9.x",
    "conin$": "_conin$",
    "console.txt": "console.txt",
    ".bashrc": "_bashrc",
    "-rf": "_rf",
    "~root": "_root",
    "plan.pdf                                                                  .exe": "plan.pdf .exe",
    "trailing. . .": "trailing",
    'a<b>c:d"e|f?g*h': "a_b_c_d_e_f_g_h",
    "a\u2215b": "a_b",
    "a\uff0fb": "a_b",
    "\u2025\u2044x": "__x",
    "\u2024\u2024": "__",
    "file:stream": "file_stream",
    "cafe\u0301": "caf\u00e9",
    "می\u200cخواهم.txt": "می\u200cخواهم.txt",
    "plan one.pdf": "plan one.pdf",
    "日本語.txt": "日本語.txt",
}


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_that_others_chose(name: str) -> None:
    assert safe_name(name) == HOSTILE[name]


LONG = ["x" * 5000, "ü" * 5000 + ".pdf", "x." + "y" * 5000, "../" * 2000 + "x" * 1000 + ".tar.gz"]
NASTY = "./\\ -~:\0\x1bconCON1\u200c\u202e"


@pytest.mark.parametrize("name", LONG, ids=range(len(LONG)))
def test_long_names_are_cut_and_keep_their_ending(name: str) -> None:
    safe = safe_name(name)
    assert len(safe.encode()) <= NAME_BYTES_MAX
    if name.endswith(".pdf"):
        assert safe.endswith("ü.pdf")


@given(st.text(alphabet=st.characters(), max_size=300) | st.text(alphabet=NASTY, max_size=30))
def test_every_name_becomes_a_safe_one(name: str) -> None:
    safe = safe_name(name)
    assert is_file_name(safe), "the server takes it"
    assert safe == safe_name(safe)
    assert safe == Path(safe).name
    assert safe[0] not in ".-~ "
    assert safe[-1] not in ". "
    assert not any(unicodedata.category(one) in ("Cc", "Cs", "Cn", "Co") for one in safe)
    for other in (safe, *list(alternatives(safe))[-1:]):
        assert len(other.encode()) <= 255


def test_alternatives_keep_the_ending() -> None:
    found = list(alternatives("plan.tar.gz"))
    assert found[:3] == ["plan.tar.gz", "plan.tar (1).gz", "plan.tar (2).gz"]
    assert len(found) == len(set(found)) == SAME_NAME_MAX + 1
    assert list(alternatives("plan"))[1] == "plan (1)"
