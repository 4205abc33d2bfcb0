"""docs/security.md goes through every row of the standard, and the tests that it names exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.security_test import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "security.md"
_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)(?:::(test_[a-z0-9_]+))?`")
_CHECK = re.compile(r'"([^"]+)"')
CHECKS = {name for checks in SECTIONS.values() for name in checks}
# Rows of levels 1 and 2 of ASVS 5.0.0: the last number of each section. (Those of level 3 come behind.)
_SECTIONS = {
    "1.1": 2, "1.2": 9, "1.3": 11, "1.4": 3, "1.5": 2, "2.1": 3, "2.2": 3, "2.3": 4, "2.4": 1, "3.2": 2, "3.3": 4,
    "3.4": 6, "3.5": 5, "3.7": 2, "4.1": 3, "4.2": 1, "4.3": 2, "4.4": 4, "5.1": 1, "5.2": 3, "5.3": 2, "5.4": 3,
    "6.1": 3, "6.2": 12, "6.3": 4, "6.4": 4, "6.5": 5, "6.6": 3, "6.8": 4, "7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5,
    "7.5": 2, "7.6": 2, "8.1": 2, "8.2": 3, "8.3": 1, "8.4": 1, "9.1": 3, "9.2": 4, "10.1": 2, "10.2": 2, "10.3": 4,
    "10.4": 11, "10.5": 5, "10.6": 2, "10.7": 3, "11.1": 2, "11.2": 3, "11.3": 3, "11.4": 4, "11.5": 1, "11.6": 1,
    "12.1": 3, "12.2": 2, "12.3": 4, "13.1": 1, "13.2": 5, "13.3": 2, "13.4": 5, "14.1": 2, "14.2": 4, "14.3": 3,
    "15.1": 3, "15.2": 3, "15.3": 7, "16.1": 1, "16.2": 5, "16.3": 4, "16.4": 3, "16.5": 3, "17.1": 1, "17.2": 4,
    "17.3": 2,
}  # fmt: skip
LEVEL_2 = {f"{section}.{number}" for section, last in _SECTIONS.items() for number in range(1, last + 1)}


def rows() -> list[list[str]]:
    """Rows of both tables: numbers, what is here, and (of those that apply) what shows it."""
    lines = PAGE.read_text().split("## OWASP ASVS", 1)[1].splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if re.match(r"\| \d", line)]


def numbers(cell: str) -> list[str]:
    """`1.2.1, 1.3.2 to 1.3.4` one by one."""
    found = []
    for part in cell.split(", "):
        first, _, last = part.partition(" to ")
        section, _, number = first.rpartition(".")
        until = int((last or first).rpartition(".")[2])
        found += [f"{section}.{n}" for n in range(int(number), until + 1)]
    return found


@cache
def names(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_row_of_level_2_is_there_once() -> None:
    assert len(LEVEL_2) == 253
    found = [number for row in rows() for number in numbers(row[0])]
    assert sorted(found) == sorted(LEVEL_2)


@pytest.mark.parametrize("row", [row for row in rows() if len(row) == 3], ids=lambda row: row[0])
def test_what_a_row_names_exists(row: list[str]) -> None:
    _, here, shown = row
    for file, test in _TEST.findall(shown):
        assert (ROOT / file).is_file(), file
        assert not test or test in names(ROOT / file), test
    for check in _CHECK.findall(shown):
        assert check in CHECKS, check
    named = _TEST.search(shown) or _CHECK.search(shown) or "make " in shown
    assert named or shown == "this page" or "**Gap**" in here, "nothing shows it"
